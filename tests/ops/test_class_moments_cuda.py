"""class_moments in CUDA C++ against the reference: each way to order rows, fresh and added to. Runs on a GPU alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from op_cases import DTYPES, SETTINGS, Rows, lay_out, make_rows, row_cases
from test_class_moments import compare
from test_class_moments_triton import exact_moments, on_device

from imbdyn.ops import ClassMoments, _extension
from imbdyn.ops.class_moments.cuda import add_class_moments_cuda, class_moments_cuda
from imbdyn.ops.class_moments.reference import class_moments_reference

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or _extension.kernels is None or not _extension.kernels.has_cuda,
    reason="no GPU, or built without CUDA",
)

CHUNK_ROWS = 128  # of one class that a block takes where there are few blocks
ONE_CHUNK = 512  # rows up to which a class has one chunk
MOST_PAIRS = 2048  # rows up to which all pairs of labels are compared
DIGIT = 2048  # classes that one digit tells apart
FEW_CLASSES_FROM = 4096  # rows from which few classes are not ordered


def check(case: Rows) -> None:
    moved = on_device(case)
    got = class_moments_cuda(moved.matrix, moved.labels, case.num_classes, -100)
    compare(ClassMoments(*(t.cpu() for t in got)), case, parts=2 if len(case.labels) > ONE_CHUNK else 1)


@settings(SETTINGS, max_examples=80)
@given(row_cases(columns=(0, 1, 3, 8, 16, 33, 130, 264), classes=(1, 2, 10, 1000)))
def test_matches_reference(case: Rows) -> None:
    check(case)


@settings(SETTINGS, max_examples=40)
@given(row_cases(columns=(1, 16, 33), classes=(1, 2, 10)))
def test_matches_reference_where_rows_are_sorted(case: Rows) -> None:
    if not len(case.labels) or case.matrix.stride(0) == 0 or case.matrix.stride(1) == 0:
        return
    times = 3000 // len(case.labels)
    many = Rows(case.matrix.repeat(times, 1), case.labels.repeat(times), case.num_classes, f"{times} times {case.text}")
    check(many)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("num_classes", "columns"), [(1, 8), (10, 264), (11, 16), (21, 136)])
@pytest.mark.parametrize("special", ["", "inf"])
def test_matches_reference_where_a_warp_has_sums_of_its_own(
    special: str, num_classes: int, columns: int, dtype: torch.dtype
) -> None:
    check(make_rows(FEW_CLASSES_FROM + 37, columns, num_classes, dtype, ignored=True, mean=3.0, special=special))


@pytest.mark.parametrize("rows", [ONE_CHUNK, ONE_CHUNK + 1, 10 * CHUNK_ROWS, MOST_PAIRS, MOST_PAIRS + 1, 8192, 8193])
@pytest.mark.parametrize("num_classes", [1, 3, DIGIT - 1, DIGIT, 130_000])
def test_matches_reference_at_the_edges(num_classes: int, rows: int) -> None:
    check(make_rows(rows, 9, num_classes, ignored=True, mean=3.0))


@pytest.mark.parametrize("rows", [ONE_CHUNK + 1, 3 * ONE_CHUNK])
@pytest.mark.parametrize("special", ["inf", "-inf inf nan"])
def test_what_is_not_finite_in_one_chunk_is_as_in_the_reference(special: str, rows: int) -> None:
    case = make_rows(rows, 8, 1, special=special, mean=3.0)
    case.matrix[:, 0] = 1.0
    case.matrix[-1, 0] = torch.inf  # in the last chunk alone
    case.matrix[:, 1] = 1.0
    case.matrix[0, 1] = -torch.inf  # in the first
    check(case)


@pytest.mark.parametrize("rows", [40, 3000])
@pytest.mark.parametrize("num_classes", [4, 5000])
def test_label_that_is_no_class_is_ignored(num_classes: int, rows: int) -> None:
    case = on_device(make_rows(rows, 3, 4))
    labels = case.labels.clone()
    labels[[0, 7, 8, 20, 39]] = torch.tensor([-1, num_classes, 2**62, -(2**63), 2**32], device="cuda")
    got = class_moments_cuda(case.matrix, labels, num_classes, -100)
    ignored = labels.where((labels >= 0) & (labels < num_classes), -100)
    for a, b in zip(got, class_moments_reference(case.matrix, ignored, num_classes), strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 65, 257, 5000])
def test_equal_rows_have_their_own_value_as_mean_and_no_deviation(rows: int, dtype: torch.dtype) -> None:
    x = torch.full((rows, 16), 0.1, dtype=dtype, device="cuda")
    _, mean, m2 = class_moments_cuda(x, torch.zeros(rows, dtype=torch.int64, device="cuda"), 1, -100)
    assert torch.equal(mean, x[:1].to(mean.dtype))
    assert float(m2.max()) <= rows * (0.1 * torch.finfo(mean.dtype).eps) ** 2


def test_variance_keeps_five_digits_at_mean_1e4_and_deviation_1_in_float32() -> None:
    case = on_device(make_rows(8192, 32, 2, mean=1e4))
    count, _, m2 = class_moments_cuda(case.matrix, case.labels, 2, -100)
    _, _, oracle = class_moments_reference(case.matrix, case.labels, 2)
    variance, exact = m2.double() / (count[:, None] - 1), oracle / (count[:, None] - 1)
    assert bool(((variance - exact).abs() <= 0.5e-5 * exact).all())


def test_values_whose_sum_overflows_float32_have_a_finite_mean() -> None:
    x = torch.full((300, 1), 3e38, device="cuda")
    x[::2] *= -1
    _, mean, m2 = class_moments_cuda(x, torch.zeros(300, dtype=torch.int64, device="cuda"), 1, -100)
    assert mean.item() == 0
    assert m2.item() == torch.inf


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [120, 20_000])
@pytest.mark.parametrize("num_classes", [5, 30_000])
def test_added_rows_count_as_if_all_had_been_read_in_one_pass(num_classes: int, rows: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (10 + torch.randn(rows, 7, generator=generator)).to(dtype).cuda()
    y = torch.randint(0, 4, (rows,), generator=generator)
    y[: rows // 3] = y[: rows // 3].clamp(max=1)  # two classes are absent from the first part, the others from all
    y = y.cuda()
    got = class_moments_cuda(x[: rows // 3], y[: rows // 3], num_classes, -100)
    for part in (slice(rows // 3, rows // 2), slice(rows // 2, rows), slice(0, 0)):
        add_class_moments_cuda(*got, x[part], y[part], -100)
    count, mean, m2 = class_moments_reference(x, y, num_classes)
    tolerance = 1e-12 if dtype == torch.float64 else 5e-6
    assert torch.equal(got[0], count)
    torch.testing.assert_close(got[1].double(), mean, rtol=tolerance, atol=0)
    torch.testing.assert_close(got[2].double(), m2, rtol=tolerance, atol=0)


@pytest.mark.parametrize("rows", [70, 3000])
def test_absent_classes_are_not_touched_when_rows_are_added(rows: int) -> None:
    x, y = torch.ones(rows, 3, device="cuda"), torch.zeros(rows, dtype=torch.int64, device="cuda")
    for num_classes in (2, 9000):
        count = torch.full((num_classes,), 7, device="cuda")
        mean, m2 = torch.full((2, num_classes, 3), torch.nan, device="cuda")
        add_class_moments_cuda(count, mean, m2, x, y, -100)
        assert count.tolist() == [7 + rows] + [7] * (num_classes - 1)
        assert bool(mean[1:].isnan().all() & m2[1:].isnan().all())


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_an_added_value_that_is_not_finite_stays(value: float) -> None:
    x, y = torch.ones(6, 3, device="cuda"), torch.tensor([0, 0, 0, 1, 1, 1], device="cuda")
    got = class_moments_cuda(x, y, 2, -100)
    added = x.clone()
    added[1, 2] = value
    add_class_moments_cuda(*got, added, y, -100)
    add_class_moments_cuda(*got, x, y, -100)
    _, mean, m2 = class_moments_reference(torch.cat([x, added, x]), torch.cat([y, y, y]), 2)
    torch.testing.assert_close(got[1].double(), mean, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(got[2].double(), m2, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("rows", [200, 20_000])
def test_result_is_bitwise_the_same_each_time_and_for_any_layout_of_the_labels(rows: int) -> None:
    case = on_device(make_rows(rows, 20, 5))
    strided = lay_out(case.labels[:, None], "every other row")[:, 0]
    first = class_moments_cuda(case.matrix, case.labels, 5, -100)
    for labels in (case.labels, strided):
        again = class_moments_cuda(case.matrix, labels, 5, -100)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8192, 2048, 10), (8193, 700, 1000), (70_000, 512, 100), (30_000, 33, 130_000)])
def test_large_shapes_match_float64(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    rows, columns, num_classes = shape
    case = on_device(make_rows(rows, columns, num_classes, dtype, ignored=True, mean=5.0))
    _, mean, m2 = class_moments_cuda(case.matrix, case.labels, num_classes, -100)
    exact, exact_m2 = exact_moments(case)
    torch.testing.assert_close(mean.double(), exact, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(m2.double(), exact_m2, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("rows", [256, 5000])
def test_runs_in_a_cuda_graph_and_on_another_stream(rows: int) -> None:
    case = on_device(make_rows(rows, 40, 7))
    expected = class_moments_cuda(case.matrix, case.labels, 7, -100)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = class_moments_cuda(case.matrix, case.labels, 7, -100)
    graph.replay()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        beside = class_moments_cuda(case.matrix, case.labels, 7, -100)
    torch.cuda.synchronize()
    for a, b, c in zip(expected, got, beside, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
