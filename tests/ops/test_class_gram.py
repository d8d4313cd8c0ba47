from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_cases import DTYPES, LAYOUTS, SETTINGS, Rows, assert_accurate, make_rows, where_finite
from torch import Tensor

from imbdyn.ops import _extension, class_gram, class_gram_linear
from imbdyn.ops.class_gram.cpu import WAYS, rows_gram
from imbdyn.ops.class_gram.portable import class_gram_linear_portable, class_gram_portable
from imbdyn.ops.class_gram.reference import class_gram_reference
from imbdyn.ops.class_moments import accumulator_dtype


def plain_torch(a: Rows, d: Tensor, samples: Tensor | None) -> tuple[Tensor, Tensor]:
    """The class gradients and the samples' gradients as matrices, in the accumulator's dtype."""
    dtype = accumulator_dtype(d.dtype)
    x, g, y, num_classes = a.matrix.to(dtype), d.to(dtype), a.labels, a.num_classes
    gradient_CK = torch.stack([(g[y == c].T @ x[y == c]).flatten() for c in range(num_classes)])
    norm_C = x.new_zeros(num_classes)
    samples = torch.arange(len(y)) if samples is None else samples
    for s in samples.unique().tolist():
        for c in y[(samples == s) & (y >= 0)].unique().tolist():
            rows = (samples == s) & (y == c)
            norm_C[c] += (g[rows].T @ x[rows]).square().sum()
    return gradient_CK @ gradient_CK.T, norm_C


def check(a: Rows, d: Tensor, samples: Tensor | None) -> None:
    compare(class_gram(a.matrix, d, a.labels, a.num_classes, samples), a, d, samples)


def compare(got: tuple[Tensor, ...], a: Rows, d: Tensor, samples: Tensor | None) -> None:
    oracle_gram, oracle_norms = class_gram_reference(a.matrix, d, a.labels, a.num_classes, samples)
    gram, norms = where_finite("gram", got[0], oracle_gram), where_finite("sample_norm_sq", got[1], oracle_norms)
    plain_gram, plain_norms = plain_torch(a, d, samples)
    # Rows of a class may cancel: the terms are as large as if all of them pointed one way.
    row_R = (a.matrix.double().norm(dim=1) * d.double().norm(dim=1)).nan_to_num(posinf=0)
    counted = a.labels >= 0
    length_C = row_R.new_zeros(a.num_classes).index_add_(0, a.labels[counted], row_R[counted])
    if d.dtype == torch.float64:
        length_C *= 2  # the oracle, which is float64 too, rounds as much
    assert_accurate("gram", gram, oracle_gram, plain_gram, length_C[:, None] * length_C, d.dtype)
    assert_accurate("sample_norm_sq", norms, oracle_norms, plain_norms, length_C.square(), d.dtype)


@st.composite
def gram_cases(
    draw: st.DrawFn,
    inputs: tuple[int, ...] = (1, 3, 16),
    outputs: tuple[int, ...] = (1, 2, 17),
    special: tuple[str, ...] = ("",),
) -> tuple[Rows, Tensor, Tensor | None]:
    rows = draw(st.sampled_from([0, 1, 2, 7, 24, 60]))
    dtype = draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 1000))
    num_classes = draw(st.sampled_from([1, 2, 5, 40]))
    ignored = draw(st.booleans())
    a = make_rows(
        rows,
        draw(st.sampled_from(inputs)),
        num_classes,
        dtype,
        layout := draw(st.sampled_from(LAYOUTS)),
        ignored=ignored,
        special=draw(st.sampled_from(special)),
        scale=draw(st.sampled_from([1.0, 0.01])),
        seed=seed,
    )
    # Not one product again and again: sums of equal terms round all the same way, by more than the tolerance knows.
    layouts = [which for which in LAYOUTS if which != layout or which != "expanded rows"]
    d = make_rows(
        rows,
        draw(st.sampled_from(outputs)),
        1,
        dtype,
        draw(st.sampled_from(layouts)),
        special=draw(st.sampled_from(special)),
        seed=seed + 1,
    )
    rows_per_sample = draw(st.sampled_from([None, 1, 2, 5, 1000]))
    samples = None if rows_per_sample is None else torch.arange(rows) // rows_per_sample
    if samples is not None and draw(st.booleans()):  # as in a classifier: all rows of a sample have its label
        first = torch.arange(rows) // rows_per_sample * rows_per_sample
        a = Rows(a.matrix, a.labels[first], num_classes, a.text + f" {rows_per_sample=}")
    return a, d.matrix, samples


@SETTINGS
@given(gram_cases())
def test_matches_reference(case: tuple[Rows, Tensor, Tensor | None]) -> None:
    check(*case)


def of_bias(a: Rows) -> Rows:
    return Rows(torch.ones_like(a.matrix[:, :1]), a.labels, a.num_classes, a.text)


needs_kernel = pytest.mark.skipif(_extension.kernels is None, reason=_extension.why_missing)


@needs_kernel
@pytest.mark.parametrize("way", WAYS)
@SETTINGS
@given(case=gram_cases())
def test_forced_way_matches_the_reference_for_weight_and_bias(
    way: str, case: tuple[Rows, Tensor, Tensor | None]
) -> None:
    a, d, samples = case
    got = rows_gram(a.matrix, d, a.labels, a.num_classes, samples, -100, True, bias=True, way=way)
    compare(got[:2], a, d, samples)
    compare(got[2:], of_bias(a), d, samples)


@SETTINGS
@given(gram_cases())
def test_portable_matches_the_reference(case: tuple[Rows, Tensor, Tensor | None]) -> None:
    a, d, samples = case
    compare(class_gram_portable(a.matrix, d, a.labels, a.num_classes, samples, -100), a, d, samples)


@SETTINGS
@given(gram_cases())
def test_linear_is_class_gram_of_weight_and_of_ones(case: tuple[Rows, Tensor, Tensor | None]) -> None:
    a, d, samples = case
    arguments = (a.matrix, d, a.labels, a.num_classes, samples)
    weight, bias = class_gram_linear(*arguments)
    compare(weight, a, d, samples)
    compare(bias, of_bias(a), d, samples)
    portable = class_gram_linear_portable(*arguments, -100)
    compare(portable[:2], a, d, samples)
    compare(portable[2:], of_bias(a), d, samples)


#: The edges +-1 of tiles (6 rows; 4, 8 and 16 columns) and of pairs of rows (24 and 48).
@needs_kernel
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "num_classes"),
    [(23, 5, 7, 2), (25, 6, 8, 2), (47, 7, 9, 30), (49, 12, 15, 3), (97, 13, 16, 5), (24, 31, 17, 4), (600, 9, 33, 3)],
)
def test_matches_the_reference_at_block_edges(way: str, rows: int, inputs: int, outputs: int, num_classes: int) -> None:
    a, d = make_rows(rows, inputs, num_classes), make_rows(rows, outputs, 1, seed=1).matrix
    for samples in (None, torch.arange(rows) // 3, torch.arange(rows) % 5):
        got = rows_gram(a.matrix, d, a.labels, num_classes, samples, -100, True, bias=True, way=way)
        compare(got[:2], a, d, samples)
        compare(got[2:], of_bias(a), d, samples)


@needs_kernel
@pytest.mark.parametrize("way", WAYS)
def test_long_rows_and_many_rows_of_a_class_match_the_reference(way: str) -> None:
    a, d = make_rows(40, 2100, 2), make_rows(40, 3, 1, seed=1).matrix  # dot products of several parts
    compare(rows_gram(a.matrix, d, a.labels, 2, None, -100, True, bias=False, way=way), a, d, None)
    a, d = make_rows(1300, 3, 2), make_rows(1300, 4, 1, seed=1).matrix  # several chunks of a sample
    samples = torch.arange(1300) // 600
    compare(rows_gram(a.matrix, d, a.labels, 2, samples, -100, True, bias=False, way=way), a, d, samples)


@needs_kernel
@pytest.mark.parametrize("way", WAYS)
def test_sums_larger_than_the_scratch_memory_match_float64(way: str) -> None:
    # 40 classes of 700 * 700 numbers are 78 MB in float32
    a, d = make_rows(80, 700, 40), make_rows(80, 700, 1, seed=1).matrix
    gram, norms = rows_gram(a.matrix, d, a.labels, 40, None, -100, True, bias=False, way=way)
    oracle = rows_gram(a.matrix.double(), d.double(), a.labels, 40, None, -100, True, bias=False, way="gram")
    # float32 dot products of 700 terms; the largest entries are about 700^2 * 5
    torch.testing.assert_close(gram, oracle[0], rtol=1e-5, atol=1.0)
    torch.testing.assert_close(norms, oracle[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("way", WAYS if _extension.kernels is not None else [])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("outputs", [3, 16])
def test_result_is_finite_exactly_where_the_reference_is(way: str, value: float, outputs: int) -> None:
    a, d = make_rows(60, 5, 4), make_rows(60, outputs, 1, seed=1).matrix
    d[7, 1] = value
    got = rows_gram(a.matrix, d, a.labels, 4, None, -100, True, bias=True, way=way)
    oracle = class_gram_reference(a.matrix, d, a.labels, 4)
    for one, expected in zip(got[:2], oracle, strict=True):
        assert torch.equal(one.isfinite(), expected.isfinite())
    for one, expected in zip(got[2:], class_gram_reference(torch.ones(60, 1), d, a.labels, 4), strict=True):
        assert torch.equal(one.isfinite(), expected.isfinite())


@pytest.mark.parametrize(("inputs", "outputs"), [(0, 3), (3, 0), (0, 0)])
def test_weight_without_elements_has_inner_products_0_beside_nan(inputs: int, outputs: int) -> None:
    a, d = make_rows(8, inputs, 2), torch.full((8, outputs), torch.nan)
    arguments = (a.matrix, d, a.labels, 2, None, -100)
    results = [class_gram_portable(*arguments)]
    if _extension.kernels is not None:
        results += [rows_gram(*arguments, True, bias=True, way=way) for way in WAYS]
    for gram, norms, *_ in results:
        assert gram.count_nonzero() == norms.count_nonzero() == 0
    (_, _), (of_bias, norms) = class_gram_linear(*arguments[:4])
    assert of_bias.isfinite().all() == norms.isfinite().all() == (outputs == 0)


@pytest.mark.parametrize("samples", [None, torch.arange(20) // 4])
def test_sample_norms_that_are_not_wanted_are_nan_and_change_nothing_else(samples: Tensor | None) -> None:
    a, d = make_rows(20, 5, 3), make_rows(20, 4, 1, seed=1).matrix
    for make in (class_gram_linear, lambda *args, **kwargs: (class_gram(*args, **kwargs),)):
        for one, full in zip(
            make(a.matrix, d, a.labels, 3, samples, sample_norms=False),
            make(a.matrix, d, a.labels, 3, samples),
            strict=True,
        ):
            assert bool(one.sample_norm_sq.isnan().all())
            # another way may have been taken: float32 sums of 20 terms
            torch.testing.assert_close(one.gram, full.gram, rtol=1e-5, atol=1e-5)


def test_many_classes_of_which_few_are_present_cost_no_memory_by_class() -> None:
    a, d = make_rows(30, 300, 3), make_rows(30, 300, 1, seed=1).matrix
    labels = a.labels * 900
    gram, norms = class_gram(a.matrix, d, labels, 2000)
    small = class_gram(a.matrix, d, a.labels, 3)
    assert torch.equal(gram[::900, ::900][:3, :3], small.gram)
    assert torch.equal(norms[::900][:3], small.sample_norm_sq)
    assert int(gram.count_nonzero()) == 9


@pytest.mark.parametrize("rows_per_sample", [None, 1, 9])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (2, 2), (300, 1), (40, 50)])
def test_every_way_matches_the_reference(inputs: int, outputs: int, rows_per_sample: int | None) -> None:
    rows = 54
    samples = None if rows_per_sample is None else torch.arange(rows) // rows_per_sample
    a = make_rows(rows, inputs, 4)
    labels = a.labels if rows_per_sample is None else a.labels[torch.arange(rows) // rows_per_sample * rows_per_sample]
    check(Rows(a.matrix, labels, 4, a.text), make_rows(rows, outputs, 1, seed=1).matrix, samples)


def test_rows_beyond_one_block_match_the_reference() -> None:
    check(make_rows(1100, 3, 3), make_rows(1100, 2, 1, seed=1).matrix, torch.arange(1100) // 11)


def test_sum_of_gram_is_the_squared_norm_of_the_weight_gradient() -> None:
    a, d = make_rows(128, 20, 10, torch.float64), make_rows(128, 30, 1, torch.float64, seed=1).matrix
    gram, _ = class_gram(a.matrix, d, a.labels, 10)
    # float64 sums of 128 * 20 * 30 terms
    torch.testing.assert_close(gram.sum(), (d.T @ a.matrix).square().sum(), rtol=1e-13, atol=0)


def test_absent_class_is_exactly_zero() -> None:
    a, d = make_rows(20, 5, 3), make_rows(20, 4, 1, seed=1).matrix
    gram, norms = class_gram(a.matrix, d, a.labels, 8)
    assert gram[3:].count_nonzero() == gram[:, 3:].count_nonzero() == norms[3:].count_nonzero() == 0
    assert bool((gram.diagonal()[:3] > 0).all())


def test_nan_row_reaches_only_the_products_of_its_class() -> None:
    a, d = make_rows(20, 5, 3), make_rows(20, 4, 1, seed=1).matrix
    a.matrix[0] = torch.nan
    c = int(a.labels[0])
    gram, norms = class_gram(a.matrix, d, a.labels, 3)
    other = [k for k in range(3) if k != c]
    assert bool(gram[c].isnan().all() and gram[:, c].isnan().all() and norms[c].isnan())
    assert bool(gram[other][:, other].isfinite().all() and norms[other].isfinite().all())


def test_unequal_dtypes_are_an_error_with_both() -> None:
    with pytest.raises(TypeError, match=r"one dtype, got torch\.float32 and torch\.float64"):
        class_gram(torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.float64), torch.tensor([0, 0]), 1)


def test_samples_of_another_dtype_are_an_error() -> None:
    with pytest.raises(TypeError, match=r"samples must be int64, got torch\.int32"):
        class_gram(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([0, 0]), 1, torch.zeros(2, dtype=torch.int32))
