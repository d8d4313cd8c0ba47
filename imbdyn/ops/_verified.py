"""Which GPU implementations a committed result shows right: benchmarks/results/gpu_*.json, written by gpu.sh."""

from __future__ import annotations

#: (op, implementation) to the GPUs whose committed result has its parity tests passed. tests/ops/test_verified.py
#: reads those results: no line may stand here without one.
VERIFIED: dict[tuple[str, str], tuple[str, ...]] = {}
