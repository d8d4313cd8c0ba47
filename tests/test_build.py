"""What a newcomer sees when the extension cannot be built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what is built, with nothing built in it yet."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    (tmp_path / "imbdyn").mkdir()
    return tmp_path


def build(source: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=source,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_missing_compiler_is_one_sentence(source: Path) -> None:
    done = build(source, CXX="no-such-compiler", IMBDYN_CUDA="0")
    assert done.returncode != 0
    assert "imbdyn needs a C++17 compiler and 'no-such-compiler' is not on PATH: install one" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.nightly
def test_a_failing_nvcc_names_the_way_out(source: Path, tmp_path: Path) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\nexit 1\n")
    nvcc.chmod(0o755)
    done = build(source, CUDA_HOME=str(tmp_path))
    assert done.returncode != 0
    assert "IMBDYN_CUDA=0 builds without CUDA kernels" in done.stderr


@pytest.mark.nightly
def test_without_cuda_the_extension_builds_and_loads(source: Path) -> None:
    assert build(source, IMBDYN_CUDA="0").returncode == 0
    (built,) = (source / "imbdyn").glob("_C*")
    loads = (
        f"import importlib.util as u; s = u.spec_from_file_location('_C', {str(built)!r}); m = u.module_from_spec(s)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{loads}; s.loader.exec_module(m); print(m.has_cuda, m.active_isa())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("False ")
