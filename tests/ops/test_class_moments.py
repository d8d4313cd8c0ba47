from __future__ import annotations

import math
import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from op_cases import DTYPES, FLOOR, SETTINGS, Rows, assert_accurate, lay_out, make_rows, row_cases
from torch import Tensor

from imbdyn.ops import ClassMoments, add_class_moments, class_moments
from imbdyn.ops.class_moments import accumulator_dtype
from imbdyn.ops.class_moments.reference import class_moments_reference

PANEL = 2048  # columns that the C++ kernel takes at a time
SEGMENT = 8192  # rows of one class that one task takes
IN_ORDER = 4 * 512  # rows for each class from which on few classes are read in the order in which rows lie
CHUNK = 8 + 256  # rows of a class after which its sums have been merged into its moments, and those before them


def plain_torch(case: Rows) -> tuple[Tensor, Tensor]:
    x = case.matrix.to(accumulator_dtype(case.matrix.dtype))
    mean = x.new_zeros(case.num_classes, x.shape[1])
    m2 = torch.zeros_like(mean)
    for c in case.labels[case.labels >= 0].unique().tolist():
        rows = x[case.labels == c]
        mean[c] = rows.mean(0)
        m2[c] = (rows - mean[c]).square().sum(0)
    return mean, m2


def oracle_moments(case: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Return count, mean and m2 in float64: those of float64 features rounded from long double, where they are finite.

    The reference's own rounding, in float64 too, would else count as the kernel's.
    """
    count, mean, m2 = class_moments_reference(case.matrix, case.labels, case.num_classes)
    if case.matrix.dtype == torch.float64 and np.finfo(np.longdouble).nmant > 52:
        x = case.matrix.numpy().astype(np.longdouble)
        for c in case.labels[case.labels >= 0].unique().tolist():
            rows = x[(case.labels == c).numpy()]
            with np.errstate(invalid="ignore", over="ignore"):
                exact_mean = rows.mean(0)
                exact = exact_mean, np.square(rows - exact_mean).sum(0)
                for moment, better in zip((mean[c], m2[c]), exact, strict=True):
                    moment.copy_(torch.where(moment.isfinite(), torch.from_numpy(better.astype(float)), moment))
    return count, mean, m2


def first_rows_mean(case: Rows) -> Tensor:
    """Return of each class the mean of its first 8 rows (4, 2, 1 if it has fewer), which the sums are taken about."""
    x = case.matrix.double()
    mean = x.new_zeros(case.num_classes, x.shape[1])
    for c in case.labels[case.labels >= 0].unique().tolist():
        rows = x[case.labels == c]
        mean[c] = rows[: 1 << min(len(rows).bit_length() - 1, 3)].mean(0)
    return mean


def check(case: Rows) -> None:
    compare(class_moments(case.matrix, case.labels, case.num_classes), case)


def compare(got: ClassMoments, case: Rows, *, parts: int = 1) -> None:
    """Compare with the reference; `parts` tells of how many batches `got` was merged."""
    x, dtype = case.matrix, case.matrix.dtype
    count, mean, m2 = got
    oracle_count, oracle_mean, oracle_m2 = oracle_moments(case)
    # Numbers beyond float32's are infinite there, and between its smallest ones there is nothing.
    oracle_mean, oracle_m2 = oracle_mean.to(mean.dtype).double(), oracle_m2.to(m2.dtype).double()
    plain_mean, plain_m2 = plain_torch(case)
    assert mean.dtype == m2.dtype == accumulator_dtype(dtype)
    assert torch.equal(count, oracle_count)
    # A mean is rounded like the largest of its terms.
    largest = x.double().abs().nan_to_num(posinf=0).amax(0) if len(x) else oracle_mean.new_zeros(x.shape[1])
    assert_accurate("mean", mean, oracle_mean, plain_mean, largest, dtype)
    # m2 is the sum of squares about a shift, less n (shift - mean)^2, and is rounded like the former, which is several
    # times as large if one of the rows that give the shift is far from all others.
    about_shift = oracle_m2 + oracle_count[:, None] * (first_rows_mean(case) - oracle_mean).square()
    # d = x - shift is rounded like x where x is close to it, so the sum of d^2 feels it once for each deviation.
    # A mean so far has been rounded to its dtype, and the square of what it is away from the next part's feels that. So
    # does the oracle's own mean, in float64: equal rows are away from it by its rounding.
    rounded = (parts - 1 + FLOOR[torch.float64]) * oracle_count[:, None] * largest.square()
    magnitude = oracle_m2 + about_shift.nan_to_num(nan=0, posinf=0) + rounded
    assert_accurate("m2", m2, oracle_m2, plain_m2, magnitude, dtype)


@SETTINGS
@given(row_cases(columns=(0, 1, 3, 16, 33, 130), classes=(1, 2, 10, 1000)))
def test_matches_reference(case: Rows) -> None:
    check(case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("columns", [PANEL - 1, PANEL, PANEL + 1])
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_matches_reference_at_panel_edges(columns: int, layout: str, dtype: torch.dtype) -> None:
    check(make_rows(70, columns, 3, dtype, layout))


@pytest.mark.parametrize("rows", [SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 5])
@pytest.mark.parametrize("special", ["", "inf", "-inf inf nan"])
def test_matches_reference_at_segment_edges(rows: int, special: str) -> None:
    case = make_rows(rows, 3, 1, layout="every other column", special=special, mean=3.0)
    if special:
        case.matrix[:, 0] = 1.0
        case.matrix[-1, 0] = torch.inf  # in the last segment alone
    check(case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("special", ["", "nan", "-inf inf nan", "large"])
@pytest.mark.parametrize(("columns", "classes"), [(0, 3), (1, 2), (37, 6), (16, 40)])
def test_rows_read_in_order_match_reference(columns: int, classes: int, special: str, dtype: torch.dtype) -> None:
    rows = IN_ORDER * classes + 7
    check(make_rows(rows, columns, classes, dtype, ignored=True, special=special, mean=100.0))
    check(make_rows(rows, columns, classes, dtype, layout="every other row", special=special))


@pytest.mark.parametrize("edge", [8, 9, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 256])
def test_class_of_so_many_rows_among_rows_in_order_matches_reference(edge: int) -> None:
    case = make_rows(IN_ORDER * 4 + 1, 19, 2, mean=3.0)
    case.labels[:] = 0
    case.labels[1 : 1 + edge] = 1  # all in the first span, unless they are more than it has
    check(case)


@pytest.mark.parametrize("rows", [IN_ORDER * 2 - 1, IN_ORDER * 2])
def test_both_orders_name_the_first_bad_label_and_add_nothing(rows: int) -> None:
    case = make_rows(rows, 5, 2)
    moments = class_moments(case.matrix, case.labels, 2)
    before = [t.clone() for t in moments]
    case.labels[[rows // 2, rows - 1]] = 2
    with pytest.raises(ValueError, match=rf"labels\[{rows // 2}\] is 2"):
        add_class_moments(moments, case.matrix, case.labels)
    assert all(torch.equal(a, b) for a, b in zip(moments, before, strict=True))


def test_sorted_labels_leave_classes_out_of_spans() -> None:
    case = make_rows(IN_ORDER * 30, 9, 3)
    sorted_labels = case.labels.sort().values.where(torch.arange(len(case.labels)) > 40, -100)
    check(replace(case, labels=sorted_labels))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux' /proc")
def test_of_many_classes_only_those_that_are_there_take_memory() -> None:
    case = make_rows(64, 512, 130_000, ignored=True)
    class_moments(case.matrix, case.labels, 130_000)
    before = resident_bytes()
    found = class_moments(case.matrix, case.labels, 130_000)
    assert resident_bytes() - before < 16 << 20, "of 512 MiB"
    present = case.labels[case.labels >= 0].unique()
    number = torch.searchsorted(present, case.labels).where(case.labels >= 0, -100)
    oracle = class_moments_reference(case.matrix, number, len(present))
    for a, b in zip(found, oracle, strict=True):
        torch.testing.assert_close(a[present], b.to(a.dtype))
    assert int(found.count.sum()) == int((case.labels >= 0).sum())
    found.mean[0, 0] = 1.0  # it is memory like any other


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_absent_class_is_exactly_zero(dtype: torch.dtype) -> None:
    case = make_rows(40, 9, 3, dtype)
    count, mean, m2 = class_moments(case.matrix, case.labels, 1000)
    assert count[3:].count_nonzero() == mean[3:].count_nonzero() == m2[3:].count_nonzero() == 0
    assert count.sum() == 40


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 256, 257, IN_ORDER, SEGMENT + 1])
def test_equal_rows_have_their_own_value_as_mean_and_no_deviation(rows: int, dtype: torch.dtype) -> None:
    x = torch.full((rows, 2), 0.1, dtype=dtype)
    _, mean, m2 = class_moments(x, torch.zeros(rows, dtype=torch.int64), 1)
    assert torch.equal(mean, x[:1].to(mean.dtype))
    # Three rows have no power-of-two shift: what is left is the square of one rounding.
    assert float(m2.max()) <= rows * (0.1 * torch.finfo(mean.dtype).eps) ** 2


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_variance_keeps_five_digits_at_mean_1e4_and_deviation_1_in_float32(layout: str) -> None:
    case = make_rows(4096, 32, 2, layout=layout, mean=1e4)
    count, _, m2 = class_moments(case.matrix, case.labels, 2)
    _, _, oracle = class_moments_reference(case.matrix, case.labels, 2)
    variance, exact = m2.double() / (count[:, None] - 1), oracle / (count[:, None] - 1)
    assert bool(((variance - exact).abs() <= 0.5e-5 * exact).all())


def test_values_whose_sum_overflows_float32_have_a_finite_mean() -> None:
    x = torch.full((300, 1), 3e38)
    x[::2] *= -1
    _, mean, m2 = class_moments(x, torch.zeros(300, dtype=torch.int64), 1)
    assert mean.item() == 0
    assert m2.item() == torch.inf


def test_other_ignore_index_takes_out_its_rows() -> None:
    case = make_rows(50, 4, 3)
    labels = torch.where(case.labels == 1, 7, case.labels)
    got = class_moments(case.matrix, labels, 3, ignore_index=7)
    assert got.count[1] == 0
    assert torch.equal(got.mean[0], class_moments(case.matrix, case.labels, 3).mean[0])


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_result_is_bitwise_the_same_for_any_layout_of_the_labels(layout: str) -> None:
    case = make_rows(200, 20, 5, layout=layout)
    strided = lay_out(case.labels[:, None], "every other row")[:, 0]
    assert strided.stride(0) == 2
    for a, b in zip(class_moments(case.matrix, case.labels, 5), class_moments(case.matrix, strided, 5), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [40, 20_000])
def test_added_rows_count_as_if_all_had_been_read_in_one_pass(rows: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (10 + torch.randn(rows, 7, generator=generator)).to(dtype)
    y = torch.randint(0, 4, (rows,), generator=generator)
    y[: rows // 3] = y[: rows // 3].clamp(max=1)  # two classes are absent from the first part, one from all
    first, second, third = (slice(0, rows // 3), slice(rows // 3, rows // 2), slice(rows // 2, rows))
    moments = class_moments(x[first], y[first], 5)
    add_class_moments(moments, x[second], y[second])
    add_class_moments(moments, x[third], y[third])
    count, mean, m2 = class_moments_reference(x, y, 5)
    # two roundings of mean and m2 to their dtype more than in one pass
    tolerance = 1e-12 if dtype == torch.float64 else 5e-6
    assert torch.equal(moments.count, count)
    torch.testing.assert_close(moments.mean.double(), mean, rtol=tolerance, atol=0)
    torch.testing.assert_close(moments.m2.double(), m2, rtol=tolerance, atol=0)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_added_value_that_is_not_finite_stays(value: float) -> None:
    x, y = torch.ones(6, 3), torch.tensor([0, 0, 0, 1, 1, 1])
    moments = class_moments(x, y, 2)
    added = x.clone()
    added[1, 2] = value
    add_class_moments(moments, added, y)
    _, mean, m2 = class_moments_reference(torch.cat([x, added]), torch.cat([y, y]), 2)
    torch.testing.assert_close(moments.mean.double(), mean, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(moments.m2.double(), m2, equal_nan=True, rtol=0, atol=0)


def test_after_a_bad_label_nothing_was_added() -> None:
    moments = class_moments(torch.ones(3, 2), torch.tensor([0, 1, 1]), 2)
    before = [t.clone() for t in moments]
    with pytest.raises(ValueError, match=r"labels\[1\] is 2"):
        add_class_moments(moments, torch.zeros(3, 2), torch.tensor([0, 2, 1]))
    assert all(torch.equal(a, b) for a, b in zip(moments, before, strict=True))


def test_moments_that_do_not_fit_are_refused() -> None:
    x, y = torch.ones(3, 2), torch.tensor([0, 1, 1])
    moments = class_moments(x, y, 2)
    with pytest.raises(ValueError, match="need mean and m2"):
        add_class_moments(moments, torch.ones(3, 4), y)
    with pytest.raises(ValueError, match="need mean and m2"):
        add_class_moments(moments, x.double(), y)
    with pytest.raises(ValueError, match="contiguous"):
        add_class_moments(ClassMoments(moments.count, torch.ones(2, 2).t(), moments.m2), x, y)
