"""Where the Triton tests run: on a GPU, or on CPU tensors by Triton's interpreter (tests/conftest.py chooses it)."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, and with the extra test on Linux")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

#: The interpreter runs a block at a time in NumPy: some examples take it as long as many take a GPU.
EXAMPLES = int(os.environ.get("IMBDYN_EXAMPLES", 50 if DEVICE == "cuda" else 6))
