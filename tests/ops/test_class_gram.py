from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_cases import DTYPES, LAYOUTS, SETTINGS, Rows, assert_accurate, make_rows
from torch import Tensor

from imbdyn.ops import class_gram
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
    gram, norms = class_gram(a.matrix, d, a.labels, a.num_classes, samples)
    oracle_gram, oracle_norms = class_gram_reference(a.matrix, d, a.labels, a.num_classes, samples)
    plain_gram, plain_norms = plain_torch(a, d, samples)
    # Rows of a class may cancel: the terms are as large as if all of them pointed one way.
    row_R = (a.matrix.double().norm(dim=1) * d.double().norm(dim=1)).nan_to_num(posinf=0)
    counted = a.labels >= 0
    length_C = row_R.new_zeros(a.num_classes).index_add_(0, a.labels[counted], row_R[counted])
    assert_accurate("gram", gram, oracle_gram, plain_gram, length_C[:, None] * length_C, d.dtype)
    assert_accurate("sample_norm_sq", norms, oracle_norms, plain_norms, length_C.square(), d.dtype)


@st.composite
def gram_cases(draw: st.DrawFn) -> tuple[Rows, Tensor, Tensor | None]:
    rows = draw(st.sampled_from([0, 1, 2, 7, 24, 60]))
    dtype = draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 1000))
    num_classes = draw(st.sampled_from([1, 2, 5, 40]))
    ignored = draw(st.booleans())
    a = make_rows(
        rows,
        draw(st.sampled_from([1, 3, 16])),
        num_classes,
        dtype,
        draw(st.sampled_from(LAYOUTS)),
        ignored=ignored,
        scale=draw(st.sampled_from([1.0, 0.01])),
        seed=seed,
    )
    d = make_rows(rows, draw(st.sampled_from([1, 2, 17])), 1, dtype, draw(st.sampled_from(LAYOUTS)), seed=seed + 1)
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
