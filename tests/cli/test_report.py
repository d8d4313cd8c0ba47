from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from report import full_traces

from imbdyn.cli import main
from imbdyn.trace import TraceWriter


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two runs, from which commands are given."""
    for name in ("a", "b"):
        full_traces.write_full(tmp_path / "runs" / name, [120, 6], epochs=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["report", *arguments])


def test_a_page_has_the_name_of_its_run_or_of_their_folder(folder: Path) -> None:
    result = report("runs/a")
    assert result.exit_code == 0
    assert result.output.startswith("a-report.html: 0.")
    assert report("runs").output.startswith("runs-report.html: 0.")
    assert "What each class did: a, b" in (folder / "runs-report.html").read_text(encoding="utf-8")


def test_a_file_is_replaced_only_by_force(folder: Path) -> None:
    (folder / "page.html").write_text("mine")
    refused = report("runs/a", "-o", "page.html")
    assert (refused.exit_code, refused.output) == (2, "Error: page.html exists; --force replaces it\n")
    assert (folder / "page.html").read_text() == "mine"
    result = report("runs/a", "-o", "page.html", "--force", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert (folder / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_mistake_is_one_sentence_and_leaves_no_file(folder: Path) -> None:
    TraceWriter(folder / "bare").close("finished")
    for arguments, message in (
        (["nowhere"], "does not exist"),
        (["bare"], "bare was not written by a Monitor"),
        (["runs/a", "-o", "nowhere/page.html"], "nowhere is not a folder"),
        (["runs/a", "-o", "runs"], "runs is not a regular file"),
    ):
        result = report(*arguments)
        assert result.exit_code == 2
        assert result.output.startswith("Error: ")
        assert message in result.output
        assert result.output.count("\n") == 1
    assert not list(folder.glob("**/*.html"))


def test_of_a_damaged_trace_the_rest_is_shown(folder: Path) -> None:
    part = next((folder / "runs" / "a" / "classifier").glob("*.parquet"))
    content = bytearray(part.read_bytes())
    content[10] ^= 1
    part.write_bytes(content)
    result = report("runs/a")
    assert result.exit_code == 1
    assert part.name in result.output
    assert "The trace has no classifier rows." in (folder / "a-report.html").read_text(encoding="utf-8")
