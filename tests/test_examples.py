"""The example and the notebook run as they stand, in an empty folder, and find what they say."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

import pytest

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
