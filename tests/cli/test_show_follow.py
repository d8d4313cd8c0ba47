"""imbdyn show --follow: what is shown while runs go on, and that it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from forked_python import ForkedPython
from report.growing_runs import GrowingRun

from imbdyn.cli import main
from imbdyn.report import follow

Action = Callable[[], object]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what happens between two looks, one after the other; after that a further look is an error."""

    def between(*actions: Action) -> None:
        left = list(actions)
        waits = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: left.pop(0)())
        monkeypatch.setattr(follow, "time", waits)

    return between


def nothing() -> None: ...


def show(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["show", "--follow", *map(str, arguments)])


def epochs(run: GrowingRun, *recalls: float) -> list[Action]:
    return [lambda recall=recall: run.epoch([recall] * 4, [0.25] * 4) for recall in recalls]


def test_in_a_pipe_a_block_is_printed_after_each_epoch_and_the_report_at_the_end(
    tmp_path: Path, between: Callable[..., None]
) -> None:
    run = GrowingRun(tmp_path / "run")
    between(*epochs(run, 0.25, 0.5), nothing, lambda: run.writer.close("finished"), nothing)
    result = show(tmp_path / "run")
    assert result.exit_code == 0, result.output
    heads = [" ".join(line.split()[:6]) for line in result.stdout.splitlines() if line.startswith("run ")]
    assert heads[:2] == ["run running step 2, epoch 1", "run running step 4, epoch 2"]
    assert heads[2:] == [f"run {tmp_path / 'run'} finished"]
    assert "\x1b" not in result.stdout
    report = CliRunner().invoke(main, ["show", str(tmp_path / "run")]).stdout
    assert result.stdout.endswith(report)


def test_json_is_one_object_a_line_and_the_last_one_is_that_of_show(
    tmp_path: Path, between: Callable[..., None]
) -> None:
    run = GrowingRun(tmp_path / "run")
    between(*epochs(run, 0.25, 0.5), lambda: run.writer.close("interrupted"), nothing)
    lines = [json.loads(line) for line in show("--json", tmp_path / "run").stdout.splitlines()]
    assert [line["runs"][0]["status"] for line in lines] == ["running", "running", "interrupted"]
    assert [line["runs"][0]["classes"][0]["train_recall"] for line in lines] == [0.25, 0.5, 0.5]
    assert lines[-1] == json.loads(CliRunner().invoke(main, ["show", "--json", str(tmp_path / "run")]).stdout)


def test_a_run_that_has_not_begun_is_waited_for(tmp_path: Path, between: Callable[..., None]) -> None:
    runs: list[GrowingRun] = []
    between(
        nothing,
        (tmp_path / "later").mkdir,
        lambda: runs.append(GrowingRun(tmp_path / "later")),
        lambda: runs[0].epoch([0.5] * 4, [0.25] * 4),
        lambda: runs[0].writer.close("failed"),
        nothing,
    )
    result = show(tmp_path / "later")
    assert result.exit_code == 0, result.output
    assert result.stderr == f"Waiting for {tmp_path / 'later'}\n"
    assert "step 2, epoch 1" in result.stdout


def test_a_run_that_begins_when_another_has_ended_is_followed_too(tmp_path: Path, between: Callable[..., None]) -> None:
    first = GrowingRun(tmp_path / "a")
    runs: list[GrowingRun] = []
    between(
        lambda: first.writer.close("finished"),
        lambda: runs.append(GrowingRun(tmp_path / "b")),
        lambda: runs[0].epoch([0.5] * 4, [0.25] * 4),
        lambda: runs[0].writer.close("finished"),
        nothing,
    )
    result = show(tmp_path)
    assert result.exit_code == 0, result.output
    assert "b  running  step 2, epoch 1" in result.stdout


@pytest.mark.parametrize("is_there", [True, False])
def test_what_can_never_be_a_trace_is_one_sentence(tmp_path: Path, is_there: bool) -> None:
    place = tmp_path / "file" if is_there else "nosuch://x"
    (tmp_path / "file").write_text("")
    result = show(place)
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1


WRITER = """
import os, sys, time
from pathlib import Path
from report.growing_runs import GrowingRun
run = GrowingRun(Path(sys.argv[1]))
for recall in (0.25, 0.5, 0.75):
    run.epoch([recall] * 4, [0.25] * 4)
    time.sleep(0.3)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), 9)
run.writer.close(sys.argv[2])
"""


def follow_another_process(
    python: ForkedPython, path: Path, end: str, monkeypatch: pytest.MonkeyPatch, *options: str
) -> Result:
    monkeypatch.setattr(follow, "_SECONDS", 0.05)
    monkeypatch.setattr(follow, "_PART", 1.0)
    with ThreadPoolExecutor() as threads:
        written = threads.submit(python, WRITER, path, end)
        result = show(*options, path)
        assert written.result().returncode == (-9 if end == "killed" else 0), written.result().stderr
    return result


def test_a_run_of_another_process_is_followed_to_its_end(
    python: ForkedPython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = follow_another_process(python, tmp_path / "run", "finished", monkeypatch, "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line)["runs"][0] for line in result.stdout.splitlines()]
    assert lines[-1]["status"] == "finished"
    recalls = [line["classes"][0]["train_recall"] for line in lines]
    assert len(set(recalls)) >= 2
    assert recalls == sorted(recalls)
    assert recalls[-1] == 0.75


def test_a_killed_run_is_not_followed_for_ever(
    python: ForkedPython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = follow_another_process(python, tmp_path / "run", "killed", monkeypatch)
    assert result.exit_code == 1
    assert f"{tmp_path / 'run'} seems to be written no more" in result.stderr
    assert "running" in result.stdout
    assert " 0.75 " in result.stdout


IN_A_TERMINAL = """
import os, pty, sys, termios, fcntl, struct, time
from pathlib import Path
from report.growing_runs import GrowingRun
run = GrowingRun(Path(sys.argv[1]))
run.epoch([0.25, 0.5, 0.0, 1.0], [0.5, 0.25, 0.25, 0.0])
child, terminal = pty.fork()
if child == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.environ["TERM"] = sys.argv[2]
    from imbdyn.report import follow
    follow._SECONDS, follow._PART = 0.05, 1.0
    from imbdyn.cli import main
    main(["show", "--follow", sys.argv[1]])
shown, acted = b"", False
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    shown += piece
    if b"late overfit" in shown and not acted:
        acted = True
        if sys.argv[3] == "ctrl-c":
            os.write(terminal, b"\\x03")
        else:
            run.epoch([0.75] * 4, [0.25] * 4)
            run.writer.close("finished")
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.buffer.write(shown)
if sys.argv[3] == "ctrl-c":
    run.writer.close("interrupted")
sys.exit(code)
"""


def test_on_a_terminal_ctrl_c_leaves_the_last_view_and_the_cursor(python: ForkedPython, tmp_path: Path) -> None:
    done = python(IN_A_TERMINAL, tmp_path / "run", "xterm", "ctrl-c")
    assert done.returncode == 130, done
    shown = done.stdout.decode()
    assert "\x1b[?25l" in shown
    last = shown.rpartition("\x1b[?25h")[0]
    assert "c3" in last
    assert "running" in last
    assert "Traceback" not in shown
    assert "The three claims" not in shown


def test_on_a_terminal_a_run_is_drawn_in_place_and_reported_at_the_end(python: ForkedPython, tmp_path: Path) -> None:
    done = python(IN_A_TERMINAL, tmp_path / "run", "xterm", "end")
    assert done.returncode == 0, done
    live, _, report = done.stdout.decode().rpartition("\x1b[?25h")
    assert "\x1b[1A" in live
    assert "\x1b[1A" not in report.partition("finished")[2]
    assert "The three claims on run alone" in report
    assert all(len(line) <= 80 for line in report.splitlines() if line.startswith(("  ", "* ")))


def test_a_dumb_terminal_gets_no_cursor_codes(python: ForkedPython, tmp_path: Path) -> None:
    done = python(IN_A_TERMINAL, tmp_path / "run", "dumb", "end")
    assert done.returncode == 0, done
    assert b"\x1b" not in done.stdout
    assert b"step 2, epoch 1" in done.stdout
