"""The matrix product of all kernels of class_gram."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

#: Whether kernels run in Triton's interpreter, whose tl.dot takes the bits of bfloat16 for numbers.
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(a, b, sums, PRECISION: tl.constexpr):
    """Return sums + a b, float32."""
    if _INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), sums, input_precision=PRECISION)
    else:
        return tl.dot(a, b, sums, input_precision=PRECISION)
