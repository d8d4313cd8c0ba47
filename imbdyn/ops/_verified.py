"""Which GPU implementations a committed result shows right: benchmarks/results/gpu_*.json, written by gpu.sh."""

from __future__ import annotations

#: (op, implementation) to the GPUs whose committed result has its parity tests passed. tests/ops/test_verified.py
#: reads those results: no line may stand here without one.
VERIFIED: dict[tuple[str, str], tuple[str, ...]] = {
    ("class_gram", "triton"): ("NVIDIA H100 80GB HBM3",),
    ("class_logits", "triton"): ("NVIDIA H100 80GB HBM3",),
    ("class_moments", "triton"): ("NVIDIA H100 80GB HBM3",),
    ("norm_gradients", "triton"): ("NVIDIA H100 80GB HBM3",),
    ("parameter_norms", "triton"): ("NVIDIA H100 80GB HBM3",),
}
