from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from imbdyn.experiments.errors import ConfigError, DataError, ExistingRunError
from imbdyn.experiments.study.grid import Study, load_study, study_presets
from imbdyn.experiments.study.plan import Task, loaded, plan_study, unfinished_tasks
from imbdyn.experiments.train import train


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def study(tmp_path: Path, text: str) -> Study:
    return load_study(written(tmp_path, text))


def test_every_preset_is_a_grid_of_valid_experiments() -> None:
    assert "default" in study_presets()
    for name in study_presets():
        found = load_study(name)
        assert found.name == name
        assert len({cell.label for cell in found.cells}) == len(found.cells) > 1


def test_the_cifar_study_is_ldams_recipe() -> None:
    cells = load_study("cifar10-lt").cells
    assert {cell.config.as_dict()["model"]["name"] for cell in cells} == {"resnet32"}
    train_config = cells[0].config.train
    assert (train_config.epochs, train_config.batch_size, train_config.lr, train_config.momentum) == (
        200,
        128,
        0.1,
        0.9,
    )
    assert (train_config.weight_decay, train_config.warmup, train_config.milestones) == (2e-4, 5, (160, 180))
    assert (train_config.decay, train_config.schedule, train_config.augment) == (0.01, "step", True)
    assert [cell.config.imbalance.apply([5000] * 10, cell.config.seed).counts[-1] for cell in cells[:1]] == [50]
    methods = [json.dumps(cell.config.as_dict()["method"], sort_keys=True) for cell in cells]
    assert len(set(methods)) == 8


def test_a_grid_is_every_combination_the_last_key_the_fastest(tmp_path: Path) -> None:
    found = study(
        tmp_path,
        "[train]\nepochs = 2\n[grid]\nimbalance.ratio = [2, 7.5]\nmethod.name = ['focal', 'ldam']\nseed = [3, 4]\n",
    )
    assert [cell.label for cell in found.cells] == [
        f"ratio-{ratio}_{method}_seed-{seed}"
        for ratio in ("2", "7.5")
        for method in ("focal", "ldam")
        for seed in (3, 4)
    ]
    last = found.cells[-1].config
    assert (last.seed, last.method.name, last.train.epochs, last.name) == (4, "ldam", 2, "mine")
    assert last.as_dict()["imbalance"]["ratio"] == 7.5
    assert found.cells[-1].shared_label == "ldam_seed-4"


def test_whole_sections_can_be_taken_in_turn(tmp_path: Path) -> None:
    found = study(
        tmp_path,
        "[method]\nname = 'focal'\ngamma = 3\n"
        "[grid]\nmethod = [{ gamma = 1 }, { name = 'ldam', reweight_after = 7 }, { name = 'ldam' }]\n",
    )
    assert [cell.label for cell in found.cells] == ["method", "ldam", "ldam-2"]
    methods = [cell.config.as_dict()["method"] for cell in found.cells]
    assert [method.get("gamma", method.get("reweight_after")) for method in methods] == [1.0, 7, 160]


def test_lists_as_values_are_told_apart_by_their_nesting(tmp_path: Path) -> None:
    found = study(tmp_path, "[grid]\ntrain.milestones = [[], [1, 2]]\n")
    assert [cell.config.train.milestones for cell in found.cells] == [(), (1, 2)]


def test_no_grid_is_one_cell(tmp_path: Path) -> None:
    assert [cell.label for cell in study(tmp_path, "seed = 9\n").cells] == ["run"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\nseed = 3", "grid.seed must be an array of what seed takes in turn, got an integer (3)"),
        ("[grid]\nimbalance.ratio = []", "grid.imbalance.ratio must be an array of what imbalance.ratio takes in turn"),
        ("[grid]\nseed = [1, 2, 1]", "grid.seed must have each value once, got 1 twice"),
        ("grid = 3", "grid must be a table ([grid]), got an integer (3)"),
        ("[grid]\nimbalance.ration = [1]", "unknown key imbalance.ration; the nearest valid one is imbalance.ratio"),
        ("[grid]\nmethod.name = ['focall']", "unknown method.name 'focall'; the nearest known one is focal"),
        ("[grid]\nseeds = [1]", "unknown key seeds; the nearest valid one is seed"),
    ],
)
def test_mistakes_are_one_line_that_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        study(tmp_path, text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_neither_preset_nor_file_names_the_presets() -> None:
    with pytest.raises(
        ConfigError, match=r"a study is a preset \(cifar10-lt, default\) or a TOML file, and 'x' is neither"
    ):
        load_study("x")


GRID = "[train]\nepochs = 1\n[model]\nname = 'mlp'\n[grid]\nimbalance.ratio = [2, 10]\nseed = [0, 1]\n"


def places(tasks: list[Task], out: Path) -> list[str]:
    return sorted(Path(str(task.out)).relative_to(out).as_posix() for task in tasks)


def test_the_balanced_run_of_a_seed_is_trained_once_for_all_ratios(tmp_path: Path) -> None:
    planned = plan_study(study(tmp_path, GRID), tmp_path)
    todo, finished = unfinished_tasks(planned)
    cells = [
        f"ratio-{ratio}_seed-{seed}/{run}" for ratio in (10, 2) for seed in (0, 1) for run in ("imbalanced", "scarce")
    ]
    assert places(todo, tmp_path) == sorted([*cells, "seed-0/balanced", "seed-1/balanced"])
    assert finished == 0
    assert planned[0].tasks["balanced"].run.class_counts == [122] * 10
    assert planned[2].tasks["imbalanced"].run.class_counts.count(12) == 5


def test_balanced_runs_that_differ_are_not_shared(tmp_path: Path) -> None:
    text = "[imbalance]\nprofile = 'step'\nratio = 2\n[grid]\nimbalance.fraction = [0.5, 0.2]\n"
    todo, _ = unfinished_tasks(plan_study(study(tmp_path, text), tmp_path))
    assert "fraction-0.2/balanced" in places(todo, tmp_path)
    assert len(todo) == 6, "their rare classes differ, though their counts do not"


def trained(task: Task) -> None:
    train(task.run, loaded(task.run.config), task.out, force=False, on_epoch=lambda: None)


def test_what_is_finished_is_not_trained_again_even_under_another_ratio(tmp_path: Path) -> None:
    planned = plan_study(study(tmp_path, GRID), tmp_path)
    trained(planned[0].tasks["balanced"])
    todo, finished = unfinished_tasks(plan_study(study(tmp_path, GRID), tmp_path))
    assert (len(todo), finished) == (9, 1)
    longer = study(tmp_path, GRID.replace("[2, 10]", "[1.5, 2, 10]"))
    assert "seed-0/balanced" not in places(unfinished_tasks(plan_study(longer, tmp_path))[0], tmp_path)
    other = study(tmp_path, GRID.replace("epochs = 1", "epochs = 2"))
    with pytest.raises(ExistingRunError, match="seed-0/balanced was made with another configuration: remove it, or"):
        unfinished_tasks(plan_study(other, tmp_path))


def test_data_are_kept_in_memory_for_the_next_run(tmp_path: Path) -> None:
    cell = study(tmp_path, GRID).cells[0]
    assert loaded(cell.config) is loaded(replace(cell.config, train=replace(cell.config.train, lr=1.0)))
    assert loaded(cell.config) is not loaded(cell.config.with_seed(1)), "the seed decides which digits are held out"


def test_data_that_are_not_there_end_a_study_before_it_begins(tmp_path: Path) -> None:
    text = f"[data]\nname = 'mnist'\npath = '{tmp_path / 'nowhere'}'\n"
    with pytest.raises(DataError, match="nowhere does not exist"):
        plan_study(study(tmp_path, text), tmp_path)
