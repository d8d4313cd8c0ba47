from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from imbdyn.cli import main
from imbdyn.experiments.study.grid import load_study
from imbdyn.experiments.study.plan import plan_study, unfinished_tasks
from imbdyn.experiments.study.work import perform
from imbdyn.trace import TraceError, open_trace

TINY = """
[model]
name = "mlp"
hidden = 16
[train]
epochs = 2
[grid]
imbalance.ratio = [2, 10]
seed = [0, 1]
"""
CLAIMS = ["alike_when_balanced", "early_underfit", "late_overfit", "gap_beyond_scarcity"]

#: What is summarised beside them.
ERRORS = ["test_error", "best_test_error"]


def written(tmp_path: Path, text: str = TINY) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return path


def study(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["study", str(config), "--out", str(config.parent / "runs"), *arguments])


def is_one_sentence(result: Result) -> bool:
    return result.exit_code == 2 and result.output.startswith("Error: ") and result.output.count("\n") == 1


def statuses(folder: Path) -> dict[str, str]:
    """Return the status of every trace that is there."""
    found = {}
    for record in sorted(folder.rglob("run.json")):
        try:
            found[record.parent.relative_to(folder).as_posix()] = open_trace(record.parent).run["status"]
        except TraceError:  # it is being written
            continue
    return found


RUNS = [
    *(f"ratio-{ratio}_seed-{seed}/{run}" for ratio in (10, 2) for seed in (0, 1) for run in ("imbalanced", "scarce")),
    "seed-0/balanced",
    "seed-1/balanced",
]


def test_a_grid_is_trained_measured_and_gone_on_with(tmp_path: Path) -> None:
    config, folder = written(tmp_path), tmp_path / "runs" / "tiny"
    first = study(config, "--jobs", "2")
    assert first.exit_code == 0, first.output
    assert statuses(folder) == dict.fromkeys(RUNS, "finished")
    assert max(len(line.rstrip()) for line in first.stdout.splitlines()) <= 80
    assert all(f"{number}. NOT DECIDED: " in first.stdout for number in (1, 2, 3)), "two seeds decide nothing"
    assert f"A row for each experiment and claim is in {folder / 'results.parquet'}." in first.stderr

    table = pd.read_parquet(folder / "results.parquet")
    assert table.groupby("cell")["measure"].apply(list).tolist() == [CLAIMS] * 4
    assert table["ir"].unique().round(2).tolist() == [2.0, 10.17], "122 samples are cut to 61 and 12"
    assert [Path(place).relative_to(folder).as_posix() for place in table["balanced"].unique()] == RUNS[-2:]
    assert table["test_error"].between(0, 1).all()
    schema = pq.read_schema(folder / "results.parquet")
    assert all(field.metadata[b"description"] for field in schema)

    made = {run: (folder / run / "run.json").stat().st_mtime_ns for run in RUNS}
    shutil.rmtree(folder / RUNS[0])
    second = study(config, "--jobs", "1", "--json")
    assert "9 of 10 runs are finished and kept." in second.stderr
    again = {run: (folder / run / "run.json").stat().st_mtime_ns for run in RUNS}
    assert [run for run in RUNS if again[run] != made[run]] == RUNS[:1]
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "results.parquet"), table)

    found = json.loads(second.stdout)
    assert [summary["measure"] for summary in found["summary"]] == CLAIMS + ERRORS
    lag = table[table["measure"] == "early_underfit"]["value"]
    assert lag.notna().all() == (found["summary"][1]["effects"][0]["seeds"] == 2)
    assert found["failures"] == {}

    third = study(config, "--quiet", "--json")
    assert third.stderr == ""
    assert json.loads(third.stdout) == found

    other = study(written(tmp_path, TINY.replace("epochs = 2", "epochs = 3")))
    assert is_one_sentence(other)
    assert "was made with another configuration" in other.output


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def meanwhile(condition: Callable[[], object], act: Callable[[], None]) -> Iterator[None]:
    """Do something in another thread as soon as a condition holds."""
    failures: list[BaseException] = []

    def wait_and_act() -> None:
        try:
            wait_for(condition)
            act()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    yield
    thread.join()
    assert not failures


LONG = '[model]\nname = "mlp"\n[train]\nepochs = 400\n[grid]\nseed = [0, 1]\n'


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell lets what it runs in the background ignore Ctrl-C, and so does all that is begun by it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.nightly  # 20 s each; an interrupted run, and that it goes on, are in test_run.py
@pytest.mark.parametrize("to_all", [True, False], ids=["Ctrl-C", "kill -INT"])
def test_an_interrupt_keeps_what_is_done_and_the_same_command_goes_on(tmp_path: Path, to_all: bool) -> None:
    config, folder = written(tmp_path, LONG), tmp_path / "runs" / "tiny"

    def interrupt() -> None:
        for child in multiprocessing.active_children() if to_all else ():
            os.kill(child.pid, signal.SIGINT)  # as a terminal does
        os.kill(os.getpid(), signal.SIGINT)

    with meanwhile(lambda: len(list(folder.rglob("*.checkpoint.pt"))) == 2, interrupt):
        result = study(config, "--jobs", "2")
    assert result.exit_code == 130
    assert result.output == f"Interrupted. What is finished is kept in {folder}; the same command goes on.\n"
    assert set(statuses(folder).values()) == {"interrupted"}
    assert len(statuses(folder)) == 2, "nothing else was begun"
    assert multiprocessing.active_children() == []

    todo, finished = unfinished_tasks(plan_study(load_study(str(config)), folder))
    assert (len(todo), finished) == (6, 0)
    place = Path(str(todo[0].out))
    last = int(open_trace(place).classes["epoch"].max())

    def stop() -> None:
        raise KeyboardInterrupt

    assert perform(todo[0], stop).interrupted
    assert open_trace(place).run["resumed"], "it went on after its checkpoint"
    assert last <= open_trace(place).classes["epoch"].max() <= last + 1


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_of_a_single_process_closes_its_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = written(tmp_path), tmp_path / "runs" / "tiny"

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("imbdyn.experiments.loop.Loop.evaluate", interrupt)
    assert study(config, "--jobs", "1").exit_code == 130
    assert statuses(folder) == {"seed-0/balanced": "interrupted"}


def test_a_run_that_fails_is_told_and_the_others_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_failing_model.py").write_text(
        "from torch import nn\n"
        "def wide(num_classes, width):\n"
        "    if width == 13:\n"
        "        raise RuntimeError('thirteen')\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    text = """
    [train]
    epochs = 1
    [grid]
    model = [{ name = "their_failing_model:wide", options = { width = 13 } }, { name = "their_failing_model:wide", options = { width = 3 } }]
    """  # noqa: E501
    result = study(written(tmp_path, text), "--jobs", "1")
    assert result.exit_code == 1
    assert (
        result.stderr.count("imbalanced: model.name 'their_failing_model:wide' cannot be made: RuntimeError: thirteen")
        == 1
    )
    assert "3 of 6 runs failed; the same command tries them again." in result.stderr
    table = pd.read_parquet(tmp_path / "runs" / "tiny" / "results.parquet")
    assert table["cell"].unique().tolist() == ["their-failing-model-wide-2"]


@pytest.mark.nightly
def test_a_process_that_is_killed_is_told_and_the_same_command_goes_on(tmp_path: Path) -> None:
    config, folder = written(tmp_path, LONG.replace("400", "40")), tmp_path / "runs" / "tiny"

    def kill() -> None:
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with meanwhile(lambda: len(list(folder.rglob("*.checkpoint.pt"))) == 2, kill):
        result = study(config, "--jobs", "2")
    assert result.exit_code == 1
    assert "a process of the study was killed (out of memory?), and with it the runs that waited" in result.stderr
    assert study(config, "--jobs", "1").exit_code == 0
    assert set(statuses(folder).values()) == {"finished"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "2", "--scheduler", "tcp://127.0.0.1:1"], "give one of them"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no dask scheduler answers at tcp://127.0.0.1:1"),
        (["--scheduler", "nonsense://"], "no dask scheduler answers at nonsense://"),
        (["--out", "s3:///"], "cannot be opened"),
    ],
)
def test_mistakes_in_options_are_one_sentence(tmp_path: Path, monkeypatch, arguments, message) -> None:
    monkeypatch.setattr("imbdyn.experiments.study.cluster._CONNECT_SECONDS", 1)
    result = CliRunner().invoke(main, ["study", str(written(tmp_path)), "--out", str(tmp_path), *arguments])
    assert is_one_sentence(result), result.output
    assert message in result.output


def test_no_jobs_are_a_mistake(tmp_path: Path) -> None:
    assert study(written(tmp_path), "--jobs", "0").exit_code == 2


def test_missing_dask_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = study(written(tmp_path), "--scheduler", "tcp://127.0.0.1:1")
    assert is_one_sentence(result)
    assert 'pip install "imbdyn[study]"' in result.output


@contextmanager
def process(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        started = subprocess.Popen([sys.executable, "-m", *arguments], stdout=file, stderr=subprocess.STDOUT)
        try:
            yield started
        finally:
            started.kill()
            started.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A dask scheduler and two workers on loopback, each a process; its address and the workers."""
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    options = ("--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(file))
    with ExitStack() as started:
        started.enter_context(
            process("distributed.cli.dask_scheduler", "--port", "0", *options, log=tmp_path / "s.log")
        )
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))
        workers = [
            started.enter_context(
                process(
                    *("distributed.cli.dask_worker", *options, "--nthreads", "1", "--no-nanny"),
                    *("--local-directory", str(tmp_path / f"w{i}")),
                    log=tmp_path / f"w{i}.log",
                )
            )
            for i in range(2)
        ]
        yield json.loads(file.read_text())["address"], workers


@pytest.mark.nightly  # half a minute; `test_a_grid_is_trained_measured_and_gone_on_with` goes on with every commit
def test_a_worker_that_is_killed_costs_an_epoch(tmp_path: Path, cluster) -> None:
    address, workers = cluster
    text = 'seed = 0\n[model]\nname = "mlp"\nhidden = 16\n[train]\nepochs = 25\n'
    config, folder = written(tmp_path, text), tmp_path / "runs" / "tiny"
    wait_for(lambda: all("Registered to" in (tmp_path / f"w{i}.log").read_text() for i in range(2)))
    with meanwhile(lambda: len(list(folder.rglob("*.checkpoint.pt"))) == 2, workers[0].kill):
        result = study(config, "--scheduler", address, "--json")
    assert result.exit_code == 0, result.output
    runs = ["run/balanced", "run/imbalanced", "run/scarce"]
    assert statuses(folder) == dict.fromkeys(runs, "finished")
    records = [open_trace(folder / run).run for run in runs]
    assert sum(bool(record.get("resumed")) for record in records) == 1, "the run of the killed worker was gone on with"
    for run in runs:
        evaluated = open_trace(folder / run).classes.query("split == 'test'")
        assert sorted(evaluated["epoch"].dropna().unique()) == list(range(1, 26))
    assert [summary["measure"] for summary in json.loads(result.stdout)["summary"]] == CLAIMS + ERRORS


@pytest.mark.nightly
def test_the_default_study_takes_at_most_ten_minutes_on_two_cores(tmp_path: Path) -> None:
    begun = time.monotonic()
    result = CliRunner().invoke(main, ["study", "--jobs", "2", "--json", "--quiet", "--out", str(tmp_path)])
    seconds = time.monotonic() - begun
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["failures"] == {}
    assert {summary["measure"] for summary in found["summary"]} == {*CLAIMS, *ERRORS}
    verdicts = {summary["claim"]: summary["verdict"] for summary in found["summary"] if summary.get("verdict")}
    assert len(verdicts) == 3, "the three claims"
    assert seconds < 600
