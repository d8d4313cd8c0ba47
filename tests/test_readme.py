"""The README's snippets, pasted one after the other; and its commands, read as .ci/run reads them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_snippets_run_as_they_stand(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks("python"))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^class_id +0 +1 +2 +3$", done.stdout, re.MULTILINE), done.stdout
    assert (tmp_path / "runs" / "mine" / "run.json").is_file()


@pytest.mark.parametrize("end", ["imbdyn run", "pytest -n auto"])
def test_each_command_is_one_line_with_its_own_environment(end: str) -> None:
    (command,) = [block for block in blocks("bash") if block.rstrip().endswith(f".venv/bin/{end}")]
    assert command.count("\n") == 1
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e ")


def test_files_it_names_exist() -> None:
    named = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
