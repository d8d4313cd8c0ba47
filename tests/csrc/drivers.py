"""Compiling the kernels with a driver of this folder, as setup.py compiles the extension."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[2]
CXX = shutil.which("c++") or shutil.which("g++")


def build(compiler: str | None, folder: Path, driver: str, *link_flags: str, sanitize: str = "") -> Path:
    """Compile the kernels and `driver` for the machine that `compiler` compiles for; a warning is an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **_: None)
        patch.chdir(ROOT)
        patch.setenv("IMBDYN_SANITIZE", sanitize)
        recipe = runpy.run_path("setup.py")
        sources = [*recipe["files"]("common/*.cpp"), *recipe["files"]("cpu/*.cpp"), f"tests/csrc/{driver}"]
    machine = subprocess.run([str(compiler), "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    isa_flags: dict[str, list[str]] = recipe["X86_FLAGS"]
    is_x86 = machine.startswith("x86_64")
    flags = ["-std=c++17", *recipe["GNU_FLAGS"], "-Werror", "-Icsrc", *(["-DIMBDYN_X86_KERNELS"] if is_x86 else [])]

    def compile_cpp(source: str) -> Path:
        output = folder / f"{Path(source).stem}.o"
        command = [compiler, *flags, *isa_flags.get(source, []), "-c", source, "-o", output]
        subprocess.run(command, cwd=ROOT, check=True)
        return output

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_cpp, [s for s in sources if is_x86 or s not in isa_flags]))
    program = folder / Path(driver).stem
    subprocess.run([compiler, *recipe["GNU_LINK_FLAGS"], *link_flags, *objects, "-o", program], check=True)
    return program
