"""The examples and the notebook run as they stand, in an empty folder, and find what they say."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch

from imbdyn import open_trace

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")


def test_fraud_is_learned_late_and_memorised(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "fraud.py"), run_name="__main__")
    assert "early_underfit: " in capsys.readouterr().out
    assert Path("fraud.png").stat().st_size > 10_000
    trace = open_trace("runs/fraud")
    assert trace.run["class_counts"][1] == pytest.approx(0.011 * 6_000, rel=0.15)
    recall = trace.classes.pivot_table(index="epoch", columns=["split", "class_id"], values="accuracy")
    assert recall["test", 1].iloc[0] < 0.5 < 0.99 < recall["test", 0].iloc[0]
    assert recall["train_eval", 1].iloc[-1] > recall["test", 1].iloc[-1] + 0.1


def test_the_notebook_goes_from_a_run_to_a_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # No kernel: its cells are plain Python, run in their order.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    notebook = json.loads((ROOT / "docs" / "from_run_to_figure.ipynb").read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "The three claims on these runs" in printed
    assert "rare five" in printed
    assert Path("recall.png").stat().st_size > 10_000


@pytest.mark.models
@pytest.mark.filterwarnings("ignore")  # Lightning's own; those of imbdyn stand in run.json
@pytest.mark.parametrize(
    ("options", "residual"),
    [
        ({}, 1e-5),
        ({"accumulate_grad_batches": 3}, 1e-5),
        ({"gradient_clip_val": 0.5}, 1e-5),
        ({"precision": "bf16-mixed"}, 2e-2),
    ],
    ids=str,
)
def test_lightning_trains_as_without_the_callback_and_its_gradients_are_read(
    options: dict[str, object], residual: float
) -> None:
    import torchvision_operators  # noqa: F401

    example = runpy.run_path(str(ROOT / "examples" / "lightning_callback.py"))
    options = {"enable_progress_bar": False, "enable_model_summary": False, **options}
    bare = example["train"](**options)
    watched = example["train"](example["ClassGradients"](num_classes=4, out="run", interval=2), **options)
    for p, q in zip(bare.parameters(), watched.parameters(), strict=True):
        assert torch.equal(p, q)
    trace = open_trace("run")
    assert trace.run["status"] == "finished"
    assert trace.run["problems"] == {}
    assert trace.run["coverage"]["share"] == 1.0
    assert trace.run["class_counts"] == [300, 100, 30, 10]
    steps = trace.steps.step.max()
    assert steps == 5 * -(-14 // int(str(options.get("accumulate_grad_batches", 1))))
    assert sorted(trace.parameters.step.unique()) == [1, *range(2, steps + 1, 2)]
    assert trace.parameters.residual.max() <= residual
    test = trace.classes[trace.classes.split == "test"]
    assert test["count"].tolist() == [50] * 4 * 5
