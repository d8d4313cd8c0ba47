"""Where the Triton tests run: on a GPU, or on CPU tensors by Triton's interpreter (tests/conftest.py chooses it)."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, and with the extra test on Linux")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

#: The interpreter runs a block at a time in NumPy: a tenth of the examples takes it as long as a GPU takes for all.
EXAMPLES = int(os.environ.get("IMBDYN_EXAMPLES", 150 if DEVICE == "cuda" else 15))
