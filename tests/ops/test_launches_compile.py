"""What the tests launch by Triton's interpreter also compiles for a GPU, in every specialisation that they launch.

The interpreter is Python: it accepts what Triton's compiler does not, such as `.to` of an argument that is 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compiled_kernels import TARGETS, Kernel, compile_kernels
from launches import specialised
from triton_device import DEVICE

TESTS = sorted(path.name for path in Path(__file__).parent.glob("test_*_triton.py"))


@pytest.mark.nightly
@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU compiles them itself")
@pytest.mark.parametrize("file", TESTS)
def test_every_launch_compiles(file: str, tmp_path: Path) -> None:
    written = tmp_path / "launches.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).with_name(file))]
    environment = os.environ | {"IMBDYN_LAUNCHES": str(written), "IMBDYN_GPU_ARITHMETIC": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    launches = [Kernel(**fields) for fields in json.loads(written.read_text())]
    assert launches
    for first in range(0, len(launches), 100):
        some = launches[first : first + 100]
        for kernel, compiled in zip(some, compile_kernels(some, "sm_90"), strict=True):
            assert compiled.shared <= TARGETS["sm_90"][1], kernel


def test_arguments_are_specialised_as_triton_does() -> None:
    arguments = {"x": torch.zeros(8), "y": torch.zeros(8)[1:], "out": None, "n": 1, "m": 1, "k": 48, "far": 2**31}
    launch = specialised("kernels:sum", arguments | {"eps": 0.5, "BLOCK": 16}, ["BLOCK"], ["m"], {"num_warps": 4})
    assert launch["signature"] == {
        **{"x": "*fp32", "y": "*fp32", "m": "i32", "k": "i32", "far": "i64", "eps": "fp32"},
    }
    assert launch["constants"] == {"out": None, "n": 1, "BLOCK": 16}
    assert launch["aligned"] == ["x", "k", "far"]
