"""The kernels on arm64, cross-compiled and run under qemu, give the numbers that they give here, and so does every
instruction set of this machine: all run tests/csrc/every_kernel.cpp, compiled as setup.py compiles an extension.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from drivers import CXX, build

ARM64_CXX = shutil.which("aarch64-linux-gnu-g++")
QEMU = shutil.which("qemu-aarch64")

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(CXX is None, reason="no C++ compiler"),
    pytest.mark.skipif(ARM64_CXX is None, reason="no aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu)"),
    pytest.mark.skipif(QEMU is None, reason="no qemu-aarch64 (Debian: qemu-user)"),
]

#: Bounds for the difference of two results, relative to the largest number of their array. Vectors of 2 to 16 numbers
#: add up to some hundred terms in another order, and a multiply-add is rounded once or twice: up to 7 units of rounding
#: were seen, 16 are allowed. Halves are read exactly; their arithmetic is float32.
TOLERANCE = {"float64": 16 * 2**-53, "float32": 16 * 2**-24, "bfloat16": 16 * 2**-24, "float16": 16 * 2**-24}

#: Counts, and numbers that are only converted.
EXACT = ("count", "correct", "predicted", "bad_row", "halves/mean")

#: The families whose headers promise that the number of threads changes no bit.
SAME_FOR_ANY_THREADS = (
    *("class_moments", "class_logits", "class_gram_gram", "parameter_norms"),
    *("norm_gradients", "norm_gradients_rows"),
)


class Run:
    """What one run of the driver printed."""

    def __init__(self, command: Iterable[str | Path], isa: str = "") -> None:
        environment = {**os.environ, "IMBDYN_FORCE_ISA": isa}
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        lines = {name: values for name, *values in map(str.split, printed.splitlines())}
        [self.active], self.available = lines.pop("active"), lines.pop("available")
        self.results = {n: torch.tensor([float(v) for v in vs], dtype=torch.float64) for n, vs in lines.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The runs by instruction set: this machine's own choice first, then each that it has, then arm64's."""
    here = build(CXX, tmp_path_factory.mktemp("here"), "every_kernel.cpp")
    arm64 = build(ARM64_CXX, tmp_path_factory.mktemp("arm64"), "every_kernel.cpp", "-static")
    own = Run([here])
    return {"own": own, **{isa: Run([here], isa) for isa in own.available}, "neon": Run([str(QEMU), arm64])}


def assert_agree(name: str, got: torch.Tensor, expected: torch.Tensor, exact: bool) -> None:
    largest = expected[expected.isfinite()].abs().max().item()
    bound = 0.0 if exact else TOLERANCE[name.split("/")[0]] * largest
    torch.testing.assert_close(got, expected, rtol=0, atol=bound, equal_nan=True, msg=lambda m: f"{name}: {m}")
    # An absent class is exactly zero, and nothing that is there may vanish.
    assert torch.equal(got == 0, expected == 0), name


def test_every_instruction_set_gives_the_same_numbers(runs: dict[str, Run]) -> None:
    assert runs["own"].active == runs["own"].available[0]
    for isa, run in runs.items():
        assert isa in ("own", run.active)
        assert run.results.keys() == runs["own"].results.keys()
        for name, expected in runs["own"].results.items():
            assert_agree(name, run.results[name], expected, name.endswith(EXACT))


def test_three_threads_give_the_numbers_of_one(runs: dict[str, Run]) -> None:
    for run in runs.values():
        for name, one in run.results.items():
            dtype, threads, family, case = name.split("/", 3)
            if threads == "1":
                three = run.results[f"{dtype}/3/{family}/{case}"]
                assert_agree(name, three, one, family in SAME_FOR_ANY_THREADS or name.endswith(EXACT))
