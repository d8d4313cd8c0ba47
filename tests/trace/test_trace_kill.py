"""A training that is killed at random instants: no completed step is lost, none is doubled, none is there in part."""

import signal
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from forked_python import ForkedPython
from reference_trace_reader import read_table

from imbdyn.trace import TraceWriter, open_trace
from imbdyn.trace.schema import TABLES

SCRIPT = Path(__file__).with_name("killed_trainings.py")
CLASSES, PARAMETERS = 4, 4
#: Rows of a step by table.
ROWS = {
    "steps": 1,
    "classes": CLASSES,
    "parameters": PARAMETERS,
    "class_gradients": CLASSES * (PARAMETERS + 1),
    "class_gradient_pairs": CLASSES * (CLASSES - 1) // 2 * (PARAMETERS + 1),
    "classifier": CLASSES,
}


def trained(python: ForkedPython, folder: Path, runs: int, number: int, seed: int) -> list[tuple[Path, int, int]]:
    """Return the traces of trainings that were ended by a signal, the steps that had returned, and the exit codes."""
    done = python(SCRIPT.read_text(), folder, runs, int(number), seed, seconds=60 + 10 * runs)
    assert (done.returncode, done.stderr) == (0, b"")
    codes = [int(line) for line in done.stdout.split()]
    steps = [folder / f"{run}.steps" for run in range(runs)]
    returned = [path.stat().st_size if path.exists() else 0 for path in steps]
    return [(folder / str(run), returned[run], codes[run]) for run in range(runs)]


def check(run: Path, returned: int, *, last_may_lack: bool = False) -> int:
    """Check every table of a trace, and return how many steps it has.

    Args:
        last_may_lack: whether the step in which the end came may be there as a window without its readings: Ctrl-C
            came after the weights had moved, and the trace was closed.
    """
    steps = [row["step"] for row in read_table(run, "steps")]
    assert sorted(steps) == list(range(1, len(steps) + 1)), "none is missing in between, none is doubled"
    assert returned <= len(steps) <= returned + 1, "one may be written that had not returned yet"
    for table, rows in ROWS.items():
        found = read_table(run, table)
        counted = Counter(row["step"] for row in found)
        if last_may_lack and len(steps) > returned and table != "steps":
            counted.setdefault(len(steps), rows)
        assert counted == dict.fromkeys(steps, rows)
        keys = Counter(tuple(row[name] for name in TABLES[table].key) for row in found)
        assert set(keys.values()) <= {1}
    return len(steps)


def kill_and_check(python: ForkedPython, folder: Path, runs: int, seed: int) -> None:
    in_journal = in_parts = 0
    for run, returned, code in trained(python, folder, runs, signal.SIGKILL, seed):
        assert code == -signal.SIGKILL
        if not (run / "run.json").exists():
            assert returned == 0
            continue
        steps = check(run, returned)
        sealed = len(pd.read_parquet(run / "steps")) if (run / "steps").is_dir() else 0
        in_parts, in_journal = in_parts + sealed, in_journal + steps - sealed
        TraceWriter(run, resume=True).close("interrupted")  # seals what was left
        assert check(run, returned) == steps
        if steps:
            assert sorted(pd.read_parquet(run / "steps")["step"]) == list(range(1, steps + 1))
            assert not (run / "_journal").exists() or not list((run / "_journal").iterdir())
    assert in_journal > 0, "some must have been killed with rows that no part held"
    assert in_parts > 0, "and some after parts were sealed"


def test_ten_trainings_killed_at_random_instants_lose_and_double_no_step(python, tmp_path):
    kill_and_check(python, tmp_path, 10, seed=0)


@pytest.mark.nightly
def test_two_hundred_trainings_killed_at_random_instants_lose_and_double_no_step(python, tmp_path):
    kill_and_check(python, tmp_path, 200, seed=1)


def test_a_training_that_is_terminated_loses_no_step(python, tmp_path):
    for run, returned, code in trained(python, tmp_path, 3, signal.SIGTERM, seed=2):
        assert code == -signal.SIGTERM
        if (run / "run.json").exists():
            check(run, returned)


def test_a_training_that_is_interrupted_closes_its_trace(python, tmp_path):
    closed = 0
    for run, returned, code in trained(python, tmp_path, 4, signal.SIGINT, seed=3):
        assert code in (130, -signal.SIGINT)
        if (run / "run.json").exists() and open_trace(run).run["status"] == "interrupted":
            steps = check(run, returned, last_may_lack=True)
            assert len(open_trace(run).steps) == steps, "all of it is sealed"
            closed += 1
    assert closed > 0
