from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

import imbdyn
from imbdyn.cli import COMMANDS, main


def test_help_names_every_command_and_loads_neither_torch_nor_pyarrow() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from imbdyn.cli import main;"
        "result = CliRunner().invoke(main, ['--help']); print(result.output);"
        "print('loaded', [m for m in ('torch', 'pyarrow', 'pandas', 'rich') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert "loaded []" in shown


def test_version_is_the_package_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"imbdyn, version {imbdyn.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert f"Usage: main {name}" in result.output


def test_an_unknown_command_is_a_mistake() -> None:
    result = CliRunner().invoke(main, ["shwo"])
    assert result.exit_code == 2
    assert "No such command 'shwo'" in result.output
