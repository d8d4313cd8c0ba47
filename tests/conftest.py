"""Shared by all tests: two networks, images and imbalanced labels."""

from __future__ import annotations

import os
from collections.abc import Iterator

import gpu_arithmetic
import launches
import pytest
import torch
from forked_python import ForkedPython, forked_python
from networks import Cnn, Mlp
from torch import nn

if not torch.cuda.is_available():
    # Read where a Triton kernel is defined, so before any is imported. tests/ops/compiled_kernels.py compiles them.
    os.environ["TRITON_INTERPRET"] = "1"
    if os.environ.get("IMBDYN_GPU_ARITHMETIC") == "1":
        gpu_arithmetic.install()
    if "IMBDYN_LAUNCHES" in os.environ:
        launches.record(os.environ["IMBDYN_LAUNCHES"])

# Read by torch once, with the first product of a process: deterministic tests need it, whichever of them comes first.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

torch.set_num_threads(1)  # tests run side by side; more OpenMP threads than cores only wait for each other


@pytest.fixture(params=["mlp", "cnn"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return Mlp(features=2 * 6 * 6) if request.param == "mlp" else Cnn()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(24, 2, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> torch.Tensor:
    """24 labels of 5 classes, of which class 3 is absent and class 4 has a single sample."""
    return torch.tensor([0] * 12 + [1] * 7 + [2] * 4 + [4])[
        torch.randperm(24, generator=torch.Generator().manual_seed(2))
    ]


@pytest.fixture(scope="session", name="python")
def processes_of_their_own() -> Iterator[ForkedPython]:
    """Runs a script in a process of its own, which has imported torch already."""
    with forked_python() as run:
        yield run
