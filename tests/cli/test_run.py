from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imbdyn.cli import main
from imbdyn.trace import open_trace

RUNS = ("balanced", "imbalanced", "scarce")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text("[train]\nepochs = 1\n[model]\nchannels = 4\nhidden = 16\n", encoding="utf-8")
    return path


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["run", str(config), "--out", str(config.parent / "runs"), *arguments])


def is_one_sentence(result: Result) -> bool:
    return result.exit_code == 2 and result.output.startswith("Error: ") and result.output.count("\n") == 1


def test_three_traces_a_table_each_and_the_claims(config: Path) -> None:
    result = run(config)
    assert result.exit_code == 0, result.output
    folder = config.parent / "runs" / "tiny-seed0"
    assert [open_trace(folder / name).run["status"] for name in RUNS] == ["finished"] * 3
    assert [line.split()[0] for line in result.stdout.splitlines() if line.endswith("finished")] == list(RUNS)
    assert all(f"{number}. " in result.stdout for number in (1, 2, 3))
    assert max(len(line.rstrip()) for line in result.stdout.splitlines() if str(folder) not in line) <= 80
    assert f"The traces are in {folder}" in result.stderr


def test_json_and_quiet_leave_nothing_else(config: Path) -> None:
    result = run(config, "--json", "--quiet", "--seed", "7")
    found = json.loads(result.stdout)
    assert result.stderr == ""
    assert [Path(trace["path"]).name for trace in found["runs"]] == list(RUNS)
    assert Path(found["runs"][0]["path"]).parent.name == "tiny-seed7"
    assert [finding["name"] for finding in found["findings"] if finding["kind"] == "claim"] == [
        "alike_when_balanced",
        "early_underfit",
        "late_overfit",
    ]
    assert any(finding["name"] == "initial_guess" and finding["value"] is not None for finding in found["findings"])


def test_an_existing_run_is_kept_unless_told_otherwise(config: Path) -> None:
    run(config, "--quiet")
    again = run(config)
    assert is_one_sentence(again)
    assert "--resume" in again.output
    assert "--force" in again.output
    started = open_trace(config.parent / "runs" / "tiny-seed0" / "balanced").run
    resumed = run(config, "--resume")
    assert "Finished and kept: balanced, imbalanced, scarce." in resumed.stderr
    assert open_trace(config.parent / "runs" / "tiny-seed0" / "balanced").run == started
    assert run(config, "--force").exit_code == 0
    assert open_trace(config.parent / "runs" / "tiny-seed0" / "balanced").run != started


def test_an_interrupt_says_where_the_traces_are_and_resume_completes_them(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imbdyn.experiments import train as module

    whole = module.train

    def interrupted(run: module.Run, *arguments: object, **options: object) -> None:
        def stop() -> None:
            if run.name == "imbalanced":
                raise KeyboardInterrupt

        whole(run, *arguments, **{**options, "on_epoch": stop})

    monkeypatch.setattr(module, "train", interrupted)
    result = run(config)
    folder = config.parent / "runs" / "tiny-seed0"
    assert result.exit_code == 130
    assert f"These traces can be read: {folder / 'balanced'}, {folder / 'imbalanced'}." in result.stderr
    assert open_trace(folder / "imbalanced").run["status"] == "interrupted"
    assert not (folder / "scarce").exists()

    monkeypatch.setattr(module, "train", whole)
    resumed = run(config, "--resume")
    assert resumed.exit_code == 0
    assert "kept: balanced. Going on: imbalanced (after epoch 1). From the start: scarce." in resumed.stderr
    assert open_trace(folder / "imbalanced").steps["epoch"].dropna().unique().tolist() == [1], "there was nothing left"
    assert open_trace(folder / "imbalanced").run["status"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--force", "--resume"], "give one of them"),
        (["--seed", "-1"], "seed must be 0 to 4294967295, got -1"),
    ],
)
def test_mistakes_in_options_are_one_sentence(config: Path, arguments: list[str], message: str) -> None:
    result = run(config, *arguments)
    assert is_one_sentence(result)
    assert message in result.output


def test_a_wrong_key_is_one_sentence(config: Path) -> None:
    config.write_text("[train]\nepoch = 2\n", encoding="utf-8")
    result = run(config)
    assert is_one_sentence(result)
    assert "unknown key train.epoch; the nearest valid one is train.epochs" in result.output


def test_an_unknown_preset_is_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["run", "huge", "--out", str(tmp_path)])
    assert is_one_sentence(result)
    assert "'huge' is neither" in result.output


def test_missing_scikit_learn_is_one_sentence(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    result = run(config)
    assert is_one_sentence(result)
    assert 'pip install "imbdyn[run]"' in result.output


def test_force_removes_nothing_but_a_trace(config: Path) -> None:
    precious = config.parent / "runs" / "tiny-seed0" / "balanced" / "thesis.tex"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work", encoding="utf-8")
    result = run(config, "--force")
    assert is_one_sentence(result)
    assert precious.read_text(encoding="utf-8") == "years of work"


def test_an_out_that_is_a_file_is_one_sentence(config: Path) -> None:
    (config.parent / "runs").write_text("", encoding="utf-8")
    assert is_one_sentence(run(config))
