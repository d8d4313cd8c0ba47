"""class_moments in Triton against the reference: every way to order rows, with and without chunks, fresh and added."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from compiled_kernels import TARGETS, Kernel, compile_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import DTYPES, SETTINGS, Rows, lay_out, make_rows, row_cases
from test_class_moments import compare
from triton_device import DEVICE

from imbdyn.ops import ClassMoments
from imbdyn.ops.class_moments.reference import class_moments_reference
from imbdyn.ops.class_moments.triton import (
    Config,
    add_class_moments_triton,
    choose,
    class_moments_triton,
    moments,
)

# the interpreter computes with NumPy, which warns where a GPU does not
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")

WAYS = ("pairs", "count", "sort")

#: The interpreter takes milliseconds for a program; a GPU takes all of the cases that it is given.
ON_GPU = DEVICE == "cuda"


def on_device(case: Rows) -> Rows:
    """Return a case with its strides and offset on the device, also where elements share memory."""
    m = case.matrix
    memory = m.as_strided((m.untyped_storage().nbytes() // m.itemsize,), (1,), 0).to(DEVICE)
    moved = memory.as_strided(m.shape, m.stride(), m.storage_offset())
    return replace(case, matrix=moved, labels=case.labels.to(DEVICE))


def exact_moments(case: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and m2 in float64, by additions side by side: for what takes the reference too long."""
    kept = case.labels >= 0
    x, y = case.matrix[kept].double(), case.labels[kept]
    count = y.bincount(minlength=case.num_classes).clamp(min=1)[:, None]
    mean = x.new_zeros(case.num_classes, x.shape[1]).index_add_(0, y, x) / count
    return mean, torch.zeros_like(mean).index_add_(0, y, (x - mean[y]).square())


def small(way: str, chunk_rows: int = 64) -> Config:
    return Config(way, chunk_rows, (8, 16), 4)


def check(case: Rows, config: Config | None = None) -> None:
    moved = on_device(case)
    if config is None:
        config = choose(*case.matrix.shape, case.num_classes, case.matrix.dtype)
    if config.way == "count" and case.num_classes > len(case.labels):
        return
    got = moments(moved.matrix, moved.labels, case.num_classes, -100, config)
    chunks = -(-len(case.labels) // config.chunk_rows)
    compare(ClassMoments(*(t.cpu() for t in got)), case, parts=min(chunks, 2) if chunks > 1 else 1)


@settings(SETTINGS, max_examples=60 if ON_GPU else 8)
@given(row_cases(columns=(0, 1, 3, 16, 33), classes=(1, 2, 10)))
def test_matches_reference(case: Rows) -> None:
    check(case)


@settings(SETTINGS, max_examples=60 if ON_GPU else 10)
@given(row_cases(columns=(1, 33), classes=(1, 2, 10)), st.sampled_from(WAYS))
def test_every_way_with_chunks_matches_reference(case: Rows, way: str) -> None:
    check(case, small(way))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_classes", [1, 31, 32, 33, 70] if ON_GPU else [1, 33])
def test_every_way_knows_every_class(way: str, num_classes: int) -> None:
    check(make_rows(70, 2, num_classes, ignored=True), small(way))


@pytest.mark.parametrize("way", ["pairs", "sort"])
def test_more_classes_than_rows(way: str) -> None:
    check(make_rows(20, 3, 130_000 if ON_GPU else 1000, ignored=True), small(way, 8))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [63, 64, 65, 128, 129, 256, 257] if ON_GPU else [64, 65, 129])
@pytest.mark.parametrize("special", ["", "inf"] if ON_GPU else ["inf"])
def test_matches_reference_at_the_edges_of_chunks(rows: int, special: str, way: str) -> None:
    case = make_rows(rows, 3, 1, special=special, mean=3.0)
    if special:
        case.matrix[:, 0] = 1.0
        case.matrix[-1, 0] = torch.inf  # in the last chunk alone
        case.matrix[:, 1] = 1.0
        case.matrix[0, 1] = -torch.inf  # in the first
    check(case, small(way))


@pytest.mark.parametrize("way", WAYS)
def test_label_that_is_no_class_is_ignored(way: str) -> None:
    case = on_device(make_rows(40, 3, 4))
    labels = case.labels.clone()
    labels[[0, 7, 8, 20, 39]] = torch.tensor([-1, 4, 2**62, -(2**63), 2**32], device=DEVICE)
    got = moments(case.matrix, labels, 4, -100, small(way, 8))
    ignored = labels.where((labels >= 0) & (labels < 4), -100)
    expected = class_moments_reference(case.matrix, ignored, 4)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_other_ignore_index_takes_out_its_rows(way: str) -> None:
    case = on_device(make_rows(50, 4, 3))
    count, mean, _ = moments(case.matrix, case.labels, 3, 1, small(way))
    assert count[1] == 0
    assert bool((mean[1] == 0).all())
    assert torch.equal(mean[0], moments(case.matrix, case.labels, 3, -100, small(way))[1][0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_classes", [5, 100] if ON_GPU else [5])
def test_absent_class_is_exactly_zero(way: str, num_classes: int) -> None:
    case = on_device(make_rows(120, 9, 3))
    for t in moments(case.matrix, case.labels, num_classes, -100, small(way)):
        assert t[3:].count_nonzero() == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 65, 200] if ON_GPU else [3, 65])
def test_equal_rows_have_their_own_value_as_mean_and_no_deviation(rows: int, dtype: torch.dtype) -> None:
    x = torch.full((rows, 2), 0.1, dtype=dtype, device=DEVICE)
    labels = torch.zeros(rows, dtype=torch.int64, device=DEVICE)
    _, mean, m2 = moments(x, labels, 1, -100, small("pairs"))
    assert torch.equal(mean, x[:1].to(mean.dtype))
    assert float(m2.max()) <= rows * (0.1 * torch.finfo(mean.dtype).eps) ** 2


def test_variance_keeps_five_digits_at_mean_1e4_and_deviation_1_in_float32() -> None:
    case = on_device(make_rows(1200, 16, 2, mean=1e4))
    count, _, m2 = moments(case.matrix, case.labels, 2, -100, small("count", 256))
    _, _, oracle = class_moments_reference(case.matrix, case.labels, 2)
    variance, exact = m2.double() / (count[:, None] - 1), oracle / (count[:, None] - 1)
    assert bool(((variance - exact).abs() <= 0.5e-5 * exact).all())


def test_values_whose_sum_overflows_float32_have_a_finite_mean() -> None:
    x = torch.full((300, 1), 3e38, device=DEVICE)
    x[::2] *= -1
    _, mean, m2 = class_moments_triton(x, torch.zeros(300, dtype=torch.int64, device=DEVICE), 1, -100)
    assert mean.item() == 0
    assert m2.item() == torch.inf


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_classes", [5, 1000] if ON_GPU else [5, 150])
def test_added_rows_count_as_if_all_had_been_read_in_one_pass(dtype: torch.dtype, num_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (10 + torch.randn(120, 7, generator=generator)).to(dtype).to(DEVICE)
    y = torch.randint(0, 4, (120,), generator=generator)
    y[:40] = y[:40].clamp(max=1)  # two classes are absent from the first part, the others from all
    y = y.to(DEVICE)
    got = class_moments_triton(x[:40], y[:40], num_classes, -100)
    add_class_moments_triton(*got, x[40:60], y[40:60], -100)
    add_class_moments_triton(*got, x[60:], y[60:], -100)
    add_class_moments_triton(*got, x[:0], y[:0], -100)
    count, mean, m2 = class_moments_reference(x, y, num_classes)
    tolerance = 1e-12 if dtype == torch.float64 else 5e-6
    assert torch.equal(got[0], count)
    torch.testing.assert_close(got[1].double(), mean, rtol=tolerance, atol=0)
    torch.testing.assert_close(got[2].double(), m2, rtol=tolerance, atol=0)


def test_absent_classes_are_not_touched_when_rows_are_added() -> None:
    x, y = torch.ones(70, 3, device=DEVICE), torch.zeros(70, dtype=torch.int64, device=DEVICE)
    for num_classes in (2, 200):
        count = torch.full((num_classes,), 7, device=DEVICE)
        mean, m2 = torch.full((2, num_classes, 3), torch.nan, device=DEVICE)
        add_class_moments_triton(count, mean, m2, x, y, -100)
        assert count.tolist() == [77] + [7] * (num_classes - 1)
        assert bool(mean[1:].isnan().all() & m2[1:].isnan().all())


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_an_added_value_that_is_not_finite_stays(value: float) -> None:
    x, y = torch.ones(6, 3, device=DEVICE), torch.tensor([0, 0, 0, 1, 1, 1], device=DEVICE)
    got = class_moments_triton(x, y, 2, -100)
    added = x.clone()
    added[1, 2] = value
    add_class_moments_triton(*got, added, y, -100)
    add_class_moments_triton(*got, x, y, -100)
    _, mean, m2 = class_moments_reference(torch.cat([x, added, x]), torch.cat([y, y, y]), 2)
    torch.testing.assert_close(got[1].double(), mean, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(got[2].double(), m2, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("way", WAYS)
def test_result_is_bitwise_the_same_each_time_and_for_any_layout_of_the_labels(way: str) -> None:
    case = on_device(make_rows(100, 20, 3, layout="transposed"))
    strided = lay_out(case.labels[:, None], "every other row")[:, 0]
    assert strided.stride(0) == 2
    first = moments(case.matrix, case.labels, 3, -100, small(way))
    for labels in (case.labels, strided):
        again = moments(case.matrix, labels, 3, -100, small(way))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.skipif(DEVICE == "cpu", reason="millions of elements")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8192, 2048, 10), (8193, 700, 1000), (70_000, 512, 100), (30_000, 33, 130_000)])
def test_large_shapes_match_reference(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    rows, columns, num_classes = shape
    case = on_device(make_rows(rows, columns, num_classes, dtype, ignored=True, mean=5.0))
    _, mean, m2 = class_moments_triton(case.matrix, case.labels, num_classes, -100)
    exact, exact_m2 = exact_moments(case)
    torch.testing.assert_close(mean.double(), exact, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(m2.double(), exact_m2, rtol=3e-6, atol=1e-6)


KERNELS = "imbdyn.ops.class_moments.triton_kernels:"
ORDER = "imbdyn.ops.class_moments.triton_order:"
LABELS = {"labels": "*i64", "label_stride": "i32", "num_rows": "i32", "num_classes": "i32", "ignore_index": "i32"}
TABLE = {"table": "*i64", "chunk_lines": "i32", "chunk_rows": "i32"}


def main_kernel(element: str, tile: tuple[int, int], *, fresh: bool, warps: int = 4) -> Kernel:
    real = "fp64" if element == "fp64" else "fp32"
    return Kernel(
        KERNELS + "moments_of_lines",
        {
            **{"features": f"*{element}", "row_stride": "i64", "columns": "i32", "order": "*i32", "panels": "i32"},
            **{**TABLE, "mean": f"*{real}", "m2": f"*{real}", "partial": f"*{real}"},
        },
        {"column_stride": 1, "R": tile[0], "W": tile[1], "BY_CLASS": True, "FRESH": fresh},
        {"num_warps": warps},
        ("features", "row_stride", "columns", "order", "table", "mean", "m2", "partial"),
    )


def of_one_column(kernel: Kernel) -> Kernel:
    """Return a kernel for features [N, 1]: an argument that is 1 is a constant."""
    aligned = tuple(name for name in kernel.aligned if name not in ("row_stride", "columns"))
    return replace(kernel, constants={**kernel.constants, "row_stride": 1, "columns": 1}, aligned=aligned)


SOME = [
    main_kernel("bf16", (4, 1024), fresh=True),
    main_kernel("fp32", (8, 512), fresh=False),
    Kernel(
        KERNELS + "merge_chunks",
        {**TABLE, "columns": "i32", "panels": "i32", "mean": "*fp32", "m2": "*fp32", "partial": "*fp32"},
        {"K": 8, "W": 32, "BY_CLASS": True, "FRESH": False},
        {"num_warps": 4},
    ),
    Kernel(
        ORDER + "order_by_pairs",
        {**LABELS, **TABLE, "order": "*i32", "count": "*i64", "row_blocks": "i32"},
        {"CHUNKED": True, "BY_CLASS": True, "FRESH": False, "OWN": 32, "OTHER": 64},
        {"num_warps": 4},
    ),
]
SOME += [
    of_one_column(main_kernel("fp32", (256, 16), fresh=True)),
    replace(SOME[2], constants={**SOME[2].constants, "columns": 1}),
]
ALL = [
    *SOME,
    main_kernel("fp64", (8, 256), fresh=False),
    main_kernel("fp16", (64, 64), fresh=True),
    main_kernel("fp32", (256, 16), fresh=True),
    Kernel(
        ORDER + "count_labels",
        {**LABELS, "histogram": "*i32", "totals": "*i32"},
        {"BINS": 4096, "L": 256},
        {"num_warps": 4},
    ),
    Kernel(
        ORDER + "start_classes",
        {
            **{"histogram": "*i32", "blocks": "i32", "num_classes": "i32", "totals": "*i32", "table": "*i64"},
            **{"chunk_lines": "i32", "count": "*i64"},
        },
        {"FRESH": False, "BINS": 4096, "L": 1024},
        {"num_warps": 4},
    ),
    Kernel(
        ORDER + "place_rows",
        {**LABELS, **TABLE, "histogram": "*i32", "order": "*i32"},
        {"L": 256, "J": 16},
        {"num_warps": 8},
    ),
    Kernel(ORDER + "make_keys", {**LABELS, "keys": "*i16"}, {"L": 256}, {"num_warps": 4}),
    Kernel(
        ORDER + "list_sorted",
        {**TABLE, "keys": "*i16", "num_rows": "i32", "num_classes": "i32", "steps": "i32", "count": "*i64"},
        {"BY_CLASS": False, "FRESH": False, "L": 256},
        {"num_warps": 4},
    ),
]


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU's time is for what needs one")
@pytest.mark.parametrize(
    ("target", "kernels"),
    [
        pytest.param("sm_90", SOME, id="sm_90"),
        *(pytest.param(target, ALL, id=f"{target} all", marks=pytest.mark.nightly) for target in TARGETS),
    ],
)
def test_kernels_compile_without_spills(target: str, kernels: list[Kernel]) -> None:
    for kernel, compiled in zip(kernels, compile_kernels(kernels, target), strict=True):
        assert compiled.spills == 0, kernel
        assert compiled.shared <= min(TARGETS[target][1], 33 << 10), kernel
