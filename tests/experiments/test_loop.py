"""Training against a loop that is written out here: equal weights, bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from imbdyn.experiments.augment import PADDING, crop_and_flip
from imbdyn.experiments.config import ExperimentConfig, experiment, load_config
from imbdyn.experiments.data import SplitData
from imbdyn.experiments.data.split import Split
from imbdyn.experiments.errors import ConfigError
from imbdyn.experiments.models import SmallConvNet
from imbdyn.experiments.profiles import select
from imbdyn.experiments.run import plan
from imbdyn.experiments.schedules import SCHEDULES, lr_factor
from imbdyn.experiments.train import train
from imbdyn.trace import open_trace


@pytest.fixture(scope="module")
def digits() -> SplitData:
    return load_config().data.load(seed=0)


def weights(config: ExperimentConfig, data: SplitData, out: Path) -> dict[str, torch.Tensor]:
    model = train(plan(config, data)[1], data, out, force=False, on_epoch=lambda: None)
    return dict(model.state_dict())


def test_the_default_experiment_is_this_loop(digits: SplitData, tmp_path: Path) -> None:
    """SGD on shuffled batches of 32: what `imbdyn run` has done since its first version."""
    config = load_config()
    config = replace(config, train=replace(config.train, epochs=3))
    run = plan(config, digits)[1]
    kept = select(digits.train.labels, run.class_counts, 0)
    images, labels = digits.train.inputs[kept], digits.train.labels[kept]
    torch.manual_seed(0)
    model = SmallConvNet(10, 16, 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    order = torch.Generator().manual_seed(0)
    for _ in range(3):
        shuffled = torch.randperm(len(labels), generator=order)
        for x, y in zip(images[shuffled].split(32), labels[shuffled].split(32), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    trained = weights(config, digits, tmp_path / "run")
    for name, value in model.state_dict().items():
        assert trained[name].equal(value), name


def test_adamw_with_warm_up_and_cosine_schedule_is_this_loop(digits: SplitData, tmp_path: Path) -> None:
    options = {
        "optimizer": "adamw",
        "schedule": "cosine",
        "warmup": 2,
        "lr": 0.01,
        "weight_decay": 0.1,
        "momentum": 0.8,
    }
    config = experiment(
        "x",
        {
            "model": {"name": "mlp", "hidden": 16, "depth": 1},
            "method": {"name": "focal", "gamma": 2.0},
            "train": {"epochs": 4, **options},
        },
    )
    run = plan(config, digits)[1]
    kept = select(digits.train.labels, run.class_counts, 0)
    torch.manual_seed(0)
    model = config.model.build((1, 8, 8), 10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.8, 0.999), weight_decay=0.1)
    order = torch.Generator().manual_seed(0)
    for factor in (0.5, 1.0, 1.0, 0.5):  # two epochs of warm-up; cos(0), cos(pi / 2)
        optimizer.param_groups[0]["lr"] = 0.01 * factor
        shuffled = kept[torch.randperm(len(kept), generator=order)]
        for chosen in shuffled.split(32):
            optimizer.zero_grad()
            config.method.loss(model(digits.train.inputs[chosen]), digits.train.labels[chosen], None, 1).backward()
            optimizer.step()
    trained = weights(config, digits, tmp_path / "run")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-5, atol=1e-7)
    lr = open_trace(tmp_path / "run").steps.dropna(subset=["lr"]).groupby("epoch")["lr"].last()
    assert lr.tolist() == pytest.approx([0.005, 0.01, 0.01, 0.005])


@pytest.mark.parametrize("method", ["oversampling", "ldam", "logit_adjustment", "class_balanced"])
def test_a_run_that_is_resumed_has_the_weights_of_one_that_was_not(
    digits: SplitData, tmp_path: Path, method: str
) -> None:
    """The draws of augmentation and of sampling go on, too."""
    config = experiment(
        "x", {"model": {"name": "mlp"}, "method": {"name": method}, "train": {"epochs": 3, "augment": True}}
    )
    run = plan(config, digits)[2]
    whole = train(run, digits, tmp_path / "whole", force=False, on_epoch=lambda: None)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, digits, tmp_path / "run", force=False, on_epoch=interrupt)
    torch.manual_seed(99)
    resumed = train(run, digits, tmp_path / "run", force=False, resume=True, on_epoch=lambda: None)
    for (name, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert value.equal(other), name


def test_post_hoc_adjustment_changes_recall_and_not_the_weights(digits: SplitData, tmp_path: Path) -> None:
    plain = experiment("x", {"model": {"name": "mlp"}, "train": {"epochs": 2}})
    adjusted = experiment(
        "x",
        {
            "model": {"name": "mlp"},
            "method": {"name": "logit_adjustment", "post_hoc": True},
            "train": {"epochs": 2},
        },
    )
    before, after = (weights(config, digits, tmp_path / name) for config, name in ((plain, "a"), (adjusted, "b")))
    assert all(before[name].equal(after[name]) for name in before)
    rare = plan(plain, digits)[1].rare_classes
    recall = {}
    for name in ("a", "b"):
        rows = open_trace(tmp_path / name).classes
        rows = rows[(rows["split"] == "test") & (rows["epoch"] == 2)].set_index("class_id")
        recall[name] = rows["accuracy"].loc[rare].mean()
    assert recall["b"] > recall["a"] + 0.05


def test_a_dataset_that_makes_its_inputs_is_trained_on(tmp_path: Path, digits: SplitData) -> None:
    rows = [(digits.train.inputs[i], int(digits.train.labels[i])) for i in range(300)]
    made = SplitData(Split(rows, digits.train.labels[:300]), digits.test, digits.class_names)  # type: ignore[arg-type]
    memory = replace(made, train=Split(digits.train.inputs[:300], digits.train.labels[:300]))
    config = experiment("x", {"model": {"name": "mlp"}, "train": {"epochs": 1}})
    first, second = (weights(config, data, tmp_path / name) for name, data in (("made", made), ("memory", memory)))
    assert all(first[name].equal(second[name]) for name in first)


def test_schedules_are_their_formulas() -> None:
    def factors(schedule: str, **options: object) -> list[float]:
        return [lr_factor(schedule, epoch, 200, **options) for epoch in (1, 5, 6, 160, 161, 180, 181, 200)]

    # LDAM's code: lr (e + 1) / 5 in the first five epochs, 0.01 lr after epoch 160, 0.0001 lr after epoch 180
    ldam = factors("step", warmup=5, milestones=(160, 180), decay=0.01)
    assert ldam == pytest.approx([0.2, 1.0, 1.0, 1.0, 0.01, 0.01, 0.0001, 0.0001], rel=1e-12)
    assert factors("constant", warmup=0) == [1.0] * 8
    cosine = [lr_factor("cosine", epoch, 8, warmup=4) for epoch in range(1, 9)]
    assert cosine == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5])
    assert all(lr_factor(schedule, 3, 3, warmup=5) == 0.6 for schedule in SCHEDULES)


def test_a_crop_is_a_shift_with_black_borders_and_a_flip_a_mirror() -> None:
    images = torch.randint(1, 256, (200, 2, 9, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    changed = crop_and_flip(images, torch.Generator().manual_seed(1))
    assert changed.dtype == torch.uint8
    seen = set()
    for image, result in zip(images, changed, strict=True):
        padded = F.pad(image, (PADDING,) * 4)
        crops = {(i, j): padded[:, i : i + 9, j : j + 7] for i in range(9) for j in range(9)}
        matches = [(*corner, False) for corner, crop in crops.items() if result.equal(crop)]
        matches += [(*corner, True) for corner, crop in crops.items() if result.equal(crop.flip(2))]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {match[0] for match in seen} == {match[1] for match in seen} == set(range(9))
    assert 70 < sum(match[2] for match in seen) * 200 / len(seen) < 130


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train": {"device": "warp"}}, "train.device 'warp' cannot be used here"),
        ({"method": {"name": "ldam"}, "model": {"name": "mlp", "depth": 0}}, None),
        ({"model": {"name": "lenet"}}, "'lenet' needs images of at least 12 x 12 pixels"),
    ],
)
def test_what_cannot_be_trained_leaves_no_trace(digits, tmp_path, overrides, message) -> None:
    config = experiment("x", {**overrides, "train": {"epochs": 1, **overrides.get("train", {})}})
    if message is None:
        weights(config, digits, tmp_path / "run")
        return
    with pytest.raises(ConfigError, match=message):
        weights(config, digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_images_are_augmented(tmp_path: Path) -> None:
    rows = Split(torch.randn(40, 5), torch.arange(40) % 2)
    config = experiment("x", {"model": {"name": "mlp"}, "train": {"augment": True}, "imbalance": {"ratio": 2}})
    with pytest.raises(ConfigError, match=r"train\.augment is for images, and inputs are \[5\]"):
        weights(config, SplitData(rows, rows, ("a", "b")), tmp_path / "run")
