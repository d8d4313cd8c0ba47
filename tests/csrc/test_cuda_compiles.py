"""Every CUDA file, compiled here: its kernels keep all they need in registers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NVCC = shutil.which("nvcc")
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob("cuda/*.cu"))


@pytest.mark.nightly
@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize("source", SOURCES)
def test_no_kernel_spills(source: str, architecture: int, tmp_path: Path) -> None:
    flags = ["-std=c++17", "-O3", "-Icsrc", f"-arch=sm_{architecture}", "-Xptxas", "-v", "-Werror", "all-warnings"]
    done = subprocess.run(
        [str(NVCC), "-c", source, "-o", str(tmp_path / "object.o"), *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    used = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert used
    assert all(line == ("0", "0", "0") for line in used), done.stderr
