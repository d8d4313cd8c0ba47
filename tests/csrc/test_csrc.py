"""csrc itself, compiled here: its exp, its halves, the arithmetic of the CUDA kernel, and what its objects export."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from imbdyn.ops.class_moments.reference import class_moments_reference

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


@pytest.mark.parametrize("special", [0.0, math.nan, math.inf])
def test_arithmetic_of_the_cuda_kernel_matches_the_reference_on_the_host(probes: ctypes.CDLL, special: float) -> None:
    random = torch.Generator().manual_seed(0)
    x = (torch.randn(5, 900, generator=random) + 100).t()
    labels = torch.randint(0, 3, (900,), generator=random)
    labels[:10] = 3
    if special:
        x[500, 2] = special
    order = labels.argsort(stable=True)
    start = torch.cat([torch.zeros(1, dtype=torch.int64), labels.bincount(minlength=6).cumsum(0)])
    mean, m2 = torch.zeros(2, 6, 5, dtype=torch.float64)
    probes.columns_on_host(
        *(ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(900), ctypes.c_int64(5)),
        *(ctypes.c_int64(x.stride(0)), ctypes.c_int64(x.stride(1))),
        *(ctypes.c_void_p(order.data_ptr()), ctypes.c_void_p(start.data_ptr()), ctypes.c_int64(6)),
        *(ctypes.c_void_p(mean.data_ptr()), ctypes.c_void_p(m2.data_ptr())),
    )
    _, oracle_mean, oracle_m2 = class_moments_reference(x, labels, 6)
    # float32 sums of at most 256 deviations from a shift that is one row away from the mean
    torch.testing.assert_close(mean, oracle_mean, rtol=2e-7, atol=0, equal_nan=True)
    torch.testing.assert_close(m2, oracle_m2, rtol=2e-5, atol=0, equal_nan=True)


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
