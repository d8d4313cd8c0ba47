"""csrc itself, compiled here: its exp, its halves, and what its objects export."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CXX = shutil.which("c++") or shutil.which("g++")

pytestmark = pytest.mark.skipif(CXX is None, reason="no C++ compiler")


def compile_cpp(source: Path, output: Path, *flags: str) -> Path:
    assert CXX is not None
    subprocess.run(
        [CXX, "-std=c++17", "-O2", "-fPIC", f"-I{ROOT / 'csrc'}", *flags, str(source), "-o", str(output)], check=True
    )
    return output


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    source = Path(__file__).with_name("probes.cpp")
    library = ctypes.CDLL(str(compile_cpp(source, tmp_path_factory.mktemp("csrc") / "probes.so", "-shared")))
    library.largest_exp_error.restype = ctypes.c_double
    library.exp_of.argtypes, library.exp_of.restype = [ctypes.c_float], ctypes.c_float
    library.float_of_half.argtypes, library.float_of_half.restype = [ctypes.c_uint16], ctypes.c_float
    return library


def test_exp_is_within_one_unit_in_the_last_place(probes: ctypes.CDLL) -> None:
    # A prime step, so that all exponents and low bits occur: 1.1 million of 1.1 billion floats.
    assert probes.largest_exp_error(997) <= 1.0


def test_exp_at_the_ends(probes: ctypes.CDLL) -> None:
    assert probes.exp_of(0.0) == probes.exp_of(-0.0) == 1.0
    assert probes.exp_of(-math.inf) == probes.exp_of(-1e30) == probes.exp_of(-87.4) == 0.0
    assert math.isnan(probes.exp_of(math.nan))


def test_every_half_becomes_the_float_that_torch_makes_of_it(probes: ctypes.CDLL) -> None:
    bits = torch.arange(2**16).to(torch.uint16)
    ours = torch.tensor([probes.float_of_half(b) for b in range(2**16)])
    torch.testing.assert_close(ours, bits.view(torch.float16).float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_file_of_an_instruction_set_exports_its_table_alone(isa: str, tmp_path: Path) -> None:
    # A weak symbol here could be taken by the linker for a file of the baseline, and crash an older processor.
    flags = {
        "baseline": [],
        "avx2": ["-mavx2", "-mfma"],
        "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
    }
    machine = subprocess.run([str(CXX), "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    if isa != "baseline" and not machine.startswith("x86_64"):
        pytest.skip(f"{isa} is not of {machine.strip()}")
    source = ROOT / "csrc" / "cpu" / f"isa_{isa}.cpp"
    compiled = compile_cpp(source, tmp_path / "isa.o", "-c", "-DIMBDYN_X86_KERNELS", "-O0", *flags[isa])
    listing = subprocess.run(["nm", "--defined-only", "-gC", str(compiled)], capture_output=True, text=True, check=True)
    symbols = [line.split(maxsplit=2)[2] for line in listing.stdout.splitlines()]
    assert symbols == [f"imbdyn::k{isa.capitalize()}Kernels"]
