"""class_gram's Triton kernels: every way against the float64 reference, and compiled for GPUs that are not here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import DTYPES, SETTINGS, Rows, make_rows, where_finite
from test_class_gram import gram_cases
from test_class_gram_conv import Case, before, cases, weight_gradients
from torch import Tensor
from triton_device import DEVICE, EXAMPLES

from imbdyn.ops.class_gram.reference import class_gram_conv_reference, class_gram_reference
from imbdyn.ops.class_gram.triton import class_gram_conv_triton, rows_gram
from imbdyn.ops.class_gram.triton_choice import FREE, Forced, Norms

#: NumPy, in which the interpreter counts, warns of every sum that is no number.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

#: On a GPU most examples of rows compile kernels of their own, and every one of convolutions does.
FEW = settings(SETTINGS, max_examples=min(EXAMPLES, 15))
FEWER = settings(SETTINGS, max_examples=min(EXAMPLES, 8))
NAMES = ("gram", "sample_norm_sq", "bias gram", "bias sample_norm_sq")

#: Rounding, as a share of the sum of the terms' magnitudes: three TF32 products leave 2^-21 of a float32 one, twice in
#: a pair; tensor cores sum bfloat16 products in float32 without rounding each sum to nearest.
ROUNDING = {torch.float64: 2**-46, torch.float32: 2**-19, torch.bfloat16: 2**-19, torch.float16: 2**-19}


def assert_near(name: str, got: Tensor, oracle: Tensor, magnitude: Tensor, dtype: torch.dtype) -> None:
    got = where_finite(name, got.cpu(), oracle)
    smallest = torch.finfo(torch.float32 if dtype != torch.float64 else dtype).smallest_normal
    wrong = ~((got - oracle).abs() <= ROUNDING[dtype] * magnitude + smallest) & oracle.isfinite()
    if bool(wrong.any()):
        at = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(f"{name}{list(at)} is {got[at]}, the reference has {oracle[at]}, magnitude {magnitude}")


def compare(got: tuple[Tensor, ...], a: Rows, d: Tensor, samples: Tensor | None) -> None:
    counted = (a.labels >= 0) & (a.labels < a.num_classes)
    labels = a.labels.where(counted, -100)
    oracle, magnitudes = [], []
    for inputs in (a.matrix, torch.ones_like(d[:, :1]))[: len(got) // 2]:
        oracle += class_gram_reference(inputs, d, labels, a.num_classes, samples)
        row_R = (inputs.double().norm(dim=1) * d.double().norm(dim=1)).nan_to_num(posinf=0)
        length_C = row_R.new_zeros(a.num_classes).index_add_(0, labels[counted], row_R[counted])
        magnitudes += [length_C[:, None] * length_C, length_C.square()]
    for name, one, expected, magnitude in zip(NAMES, got, oracle, magnitudes, strict=False):
        assert_near(name, one, expected, magnitude, d.dtype)


def run(
    a: Rows, d: Tensor, samples: Tensor | None, forced: Forced = FREE, per_sample: int | None = None, bias: bool = True
) -> tuple[Tensor, ...]:
    """Call the wrapper with rows, or with samples of `per_sample` rows each."""
    x, g, y = (t.to(DEVICE) for t in (a.matrix, d, a.labels))
    if per_sample is not None:
        x, g, y = x.unflatten(0, (-1, per_sample)), g.unflatten(0, (-1, per_sample)), y[::per_sample]
        samples = None
    where = None if samples is None else samples.to(DEVICE)
    return rows_gram(x, g, y, a.num_classes, where, -100, True, bias=bias, forced=forced)


@pytest.mark.parametrize("way", ["gram", "direct"])
@FEW
@given(case=gram_cases())
def test_rows_match_the_reference(way: str, case: tuple[Rows, Tensor, Tensor | None]) -> None:
    a, d, samples = case
    compare(run(a, d, samples, Forced(way)), a, d, samples)


@st.composite
def sample_cases(draw: st.DrawFn) -> tuple[Rows, Tensor, int]:
    per_sample, samples = draw(st.sampled_from([1, 2, 5, 21])), draw(st.sampled_from([1, 3, 7]))
    a, d, _ = draw(gram_cases())
    rows, dtype, seed = per_sample * samples, d.dtype, draw(st.integers(0, 1000))
    made = make_rows(rows, a.matrix.shape[1], a.num_classes, dtype, seed=seed)
    labels = made.labels[::per_sample]
    if draw(st.booleans()):
        labels[::3] = draw(st.sampled_from([-100, -1, 2**40, -(2**63)]))
    a = replace(made, labels=labels.repeat_interleave(per_sample), text=made.text + f" {per_sample=} {labels=}")
    return a, make_rows(rows, d.shape[1], 1, dtype, seed=seed + 1).matrix, per_sample


FORCED = [Forced(), Forced("gram"), *(Forced("direct", by) for by in (Norms.BY_SLOT, Norms.IN_LOOP, Norms.WITHIN))]


@pytest.mark.parametrize("forced", FORCED, ids=["free", "gram", "by slot", "in loop", "within"])
@FEW
@given(case=sample_cases())
def test_samples_match_the_reference(forced: Forced, case: tuple[Rows, Tensor, int]) -> None:
    a, d, per_sample = case
    samples = torch.arange(len(d)) // per_sample
    compare(run(a, d, samples, forced, per_sample), a, d, samples)


@pytest.mark.parametrize("way", ["gram", "direct"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_blocks_of_everything_match_the_reference(way: str, dtype: torch.dtype) -> None:
    # several blocks of rows, columns, outputs, chunks and slots; one class has most samples
    a, d = make_rows(44, 130, 20, dtype), make_rows(44, 130, 1, dtype, seed=1).matrix
    a.labels[::2] = 3
    compare(run(a, d, None, Forced(way), bias=False), a, d, None)


@pytest.mark.parametrize("way", ["gram", "direct"])
def test_nan_and_infinity_stay_with_their_class(way: str) -> None:
    a, d = make_rows(40, 20, 4), make_rows(40, 20, 1, seed=1).matrix
    a.labels[0], a.labels[1], a.labels[2] = -100, 0, 1
    d[0], d[1, 3], a.matrix[2, 5] = torch.nan, torch.nan, torch.inf
    compare(run(a, d, None, Forced(way)), a, d, None)


@pytest.mark.parametrize("way", ["gram", "direct"])
def test_norms_that_are_not_wanted_are_nan(way: str) -> None:
    a, d = make_rows(20, 5, 3), make_rows(20, 4, 1, seed=1).matrix
    x, g, y = (t.to(DEVICE) for t in (a.matrix, d, a.labels))
    got = rows_gram(x, g, y, 3, None, -100, False, bias=True, forced=Forced(way))
    full = run(a, d, None, Forced(way))
    assert bool(got[1].isnan().all() and got[3].isnan().all())
    # not the same bits: a GPU adds the gradients of chunks in any order, in float32
    compare((got[0], full[1], got[2], full[3]), a, d, None)


def test_labels_that_were_written_to_are_sorted_again() -> None:
    a, d = make_rows(12, 3, 3), make_rows(12, 2, 1, seed=1).matrix
    x, g, y = (t.to(DEVICE) for t in (a.matrix, d, a.labels.clone()))
    for shift in range(2):
        y.copy_((a.labels + shift) % 3)
        got = rows_gram(x, g, y, 3, None, -100, True, bias=False)
        compare(got, replace(a, labels=(a.labels + shift) % 3), d, None)


def test_empty_problems_are_zero() -> None:
    for rows, inputs, outputs in ((0, 3, 2), (4, 0, 2), (4, 3, 0)):
        a, d = make_rows(rows, inputs, 2), torch.ones(rows, outputs)
        compare(run(a, d, None), a, d, None)


@pytest.mark.parametrize("bias", [False, True])
def test_deterministic_algorithms_are_bitwise_repeatable(bias: bool) -> None:
    a, d = make_rows(60, 20, 4), make_rows(60, 17, 1, seed=1).matrix
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (run(a, d, torch.arange(60) // 3, bias=bias) for _ in range(2))
        by_sample = run(a, d, torch.arange(60) // 3, per_sample=3, bias=bias)
    finally:
        torch.use_deterministic_algorithms(False)
    compare(first, a, d, torch.arange(60) // 3)
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)
    assert len(by_sample) == len(first)


def check_convolution(case: Case, forced: Forced = FREE) -> None:
    x, d, labels = case.tensors()
    numbers = (list(case.kernel_size), list(case.stride), before(case), list(case.dilation), case.groups)
    got = class_gram_conv_triton(
        x.to(DEVICE), d.to(DEVICE), labels.to(DEVICE), case.num_classes, *numbers, -100, forced=forced
    )
    oracle = class_gram_conv_reference(x, d, labels, case.num_classes, *numbers)
    length_C = torch.zeros(case.num_classes, dtype=torch.float64)
    for u, absolute in enumerate(weight_gradients(case, x.double().abs(), d.double().abs())):
        if labels[u] >= 0:
            length_C[labels[u]] += absolute.norm()
    magnitudes = (length_C[:, None] * length_C, length_C.square())
    for name, one, expected, magnitude in zip(NAMES, got, oracle, magnitudes, strict=False):
        assert_near(name, one, expected, magnitude, case.dtype)


@FEWER
@given(cases())
def test_convolutions_match_the_reference(case: Case) -> None:
    check_convolution(case)


@pytest.mark.parametrize("forced", FORCED[1:4], ids=["gram", "by slot", "in loop"])
@FEWER
@given(case=cases(), dtype=st.sampled_from(DTYPES[1:]))
def test_every_way_of_a_convolution_matches_the_reference(forced: Forced, case: Case, dtype: torch.dtype) -> None:
    if len(case.spatial) < 3:
        check_convolution(replace(case, groups=1, dtype=dtype), forced)


def test_tile_within_one_tap_matches_the_reference() -> None:
    case = Case((5, 4), (3, 2), (1, 2), ((1, 1), (1, 0)), (1, 1), images=3, inputs_per_group=64, outputs_per_group=70)
    for by in (Norms.BY_SLOT, Norms.IN_LOOP):
        check_convolution(replace(case, dtype=torch.bfloat16), Forced("direct", by))
