"""What the op tests share: inputs drawn by Hypothesis, and the tolerance.

The tolerance explains itself: against the float64 reference an op may be off by twice what plain torch is off when it
does the same in the type the op accumulates in, plus a floor where plain torch happens to be exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor

from imbdyn.ops.class_moments import accumulator_dtype

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

#: Share of the magnitude of the summed terms that is rounding: 8 and 4 units in the last place of float64 and float32.
FLOOR = {torch.float64: 8 * 2**-53, torch.float32: 4 * 2**-24}

#: 0, 1, and the edges +-1 of everything the kernels take rows in: 4, 64 and 256 of them.
ROWS = (0, 1, 2, 3, 4, 5, 63, 64, 65, 127, 129, 255, 256, 257, 300)

LAYOUTS = (
    *("contiguous", "transposed", "every other column", "every other row", "steps of a transposed matrix"),
    *("expanded rows", "expanded columns"),
)

#: The same examples every time, no time limit for one of them: a slow machine is no failure.
SETTINGS = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True)
class Rows:
    """A matrix and its labels; `str` is what Hypothesis prints of a failing example."""

    matrix: Tensor
    labels: Tensor
    num_classes: int
    text: str

    def __repr__(self) -> str:
        return self.text


def lay_out(matrix: Tensor, layout: str) -> Tensor:
    """Return `matrix` (or, expanded, what repeats its first row or column) with the strides that `layout` names."""
    rows, columns = matrix.shape
    if layout == "transposed":
        return matrix.t().contiguous().t()
    if layout == "every other column":
        # An odd offset, so that rows are not aligned either.
        wide = matrix.new_zeros(rows, 2 * columns + 1)
        wide[:, 1::2] = matrix
        return wide[:, 1::2]
    if layout == "every other row":
        return matrix.repeat_interleave(2, 0)[::2]
    if layout == "steps of a transposed matrix":
        wide = matrix.new_full((3 * columns + 2, 2 * rows + 1), torch.nan)
        wide[2::3, 1::2] = matrix.t()
        return wide[2::3, 1::2].t()
    if layout == "expanded rows":
        return matrix[:1].expand(rows, columns)
    if layout == "expanded columns":
        return matrix[:, :1].expand(rows, columns)
    return matrix.contiguous()


#: What a case may hold among its normal numbers.
SPECIAL = ("", "", "nan", "inf", "-inf", "-inf inf nan")


def special_value(name: str, dtype: torch.dtype) -> float:
    """Return the number called `name`: a literal, or "denormal" or "large" for what `dtype` has of it."""
    if name == "denormal":
        return torch.finfo(dtype).tiny / 4
    # Of float64's largest numbers neither squares nor sums are numbers of float64, which the references count in.
    return min(torch.finfo(dtype).max, 1e150) if name == "large" else float(name)


def make_rows(
    rows: int,
    columns: int,
    num_classes: int,
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    *,
    ignored: bool = False,
    special: str = "",
    mean: float = 0.0,
    scale: float = 1.0,
    seed: int = 0,
) -> Rows:
    """Return normal rows with random labels; every fifth is ignored, and some elements are `special`, if asked for."""
    random = torch.Generator().manual_seed(seed)
    matrix = (torch.randn(rows, columns, generator=random, dtype=torch.float64) * scale + mean).to(dtype)
    labels = torch.randint(0, num_classes, (rows,), generator=random)
    if ignored:
        labels[::5] = -100
    for value in special.split():
        hit = torch.rand(rows, columns, generator=random) < 0.02
        matrix[hit] = special_value(value, dtype)
    if special.startswith("-inf") and rows > 0:
        matrix[0] = -torch.inf
    text = f"{rows=} {columns=} {num_classes=} {dtype} {layout} {ignored=} {special=} {mean=} {scale=} {seed=}"
    return Rows(lay_out(matrix, layout), labels, num_classes, text)


@st.composite
def row_cases(
    draw: st.DrawFn, columns: tuple[int, ...] | None, classes: tuple[int, ...], special: tuple[str, ...] = SPECIAL
) -> Rows:
    """Draw rows; `columns` None makes as many columns as classes."""
    num_classes = draw(st.sampled_from(classes))
    return make_rows(
        draw(st.sampled_from(ROWS if num_classes <= 1000 else ROWS[:4])),
        num_classes if columns is None else draw(st.sampled_from(columns)),
        num_classes,
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(LAYOUTS)),
        ignored=draw(st.booleans()),
        special=draw(st.sampled_from(special)),
        mean=draw(st.sampled_from([0.0, 0.0, 100.0])),
        scale=draw(st.sampled_from([1.0, 1e-3, 10.0])),
        seed=draw(st.integers(0, 1000)),
    )


def assert_accurate(
    name: str, got: Tensor, oracle: Tensor, plain: Tensor, magnitude: Tensor, dtype: torch.dtype
) -> None:
    """Compare with the float64 `oracle`: NaN and infinities at the same places, the rest within the tolerance.

    `plain` is what plain torch gives in the accumulator of `dtype`, `magnitude` the size of the terms of the sums.
    """
    got, plain = got.double(), plain.double()
    finite = oracle.isfinite()
    torch.testing.assert_close(
        got[~finite], oracle[~finite], rtol=0, atol=0, equal_nan=True, msg=lambda m: f"{name}, not finite: {m}"
    )
    plain_error = (plain - oracle).abs()[finite & plain.isfinite()]
    accumulator = accumulator_dtype(dtype)
    smallest = torch.finfo(accumulator).smallest_normal * torch.finfo(accumulator).eps  # one denormal step
    bound = 2 * (plain_error.max() if plain_error.numel() else 0) + FLOOR[accumulator] * magnitude + smallest
    allowed = bound.broadcast_to(oracle.shape)
    # Written so that NaN fails.
    wrong = ~((got - oracle).abs() <= allowed) & finite
    if bool(wrong.any()):
        at = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(f"{name}{list(at)} is {got[at]}, the reference has {oracle[at]}, allowed is {allowed[at]}")


def where_finite(name: str, got: Tensor, oracle: Tensor) -> Tensor:
    """Check that `got` is finite exactly where `oracle` is; return it with the oracle's infinities and NaN elsewhere.

    For results that are products of sums: whether an infinity becomes NaN in them depends on the order of the sums.
    """
    assert torch.equal(got.isfinite(), oracle.isfinite()), f"{name} is not finite where the reference is, or reversed"
    return got.double().where(oracle.isfinite(), oracle)
