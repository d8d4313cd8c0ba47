"""class_logits in Triton: on a GPU if there is one, else by the interpreter; and what it compiles to."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest
import torch
from compiled_kernels import TARGETS, Kernel, compile_kernels
from hypothesis import given, settings
from op_cases import DTYPES, SETTINGS, Rows, make_rows, row_cases
from test_class_logits import compare
from triton_device import DEVICE, EXAMPLES

from imbdyn.ops import ClassLogits
from imbdyn.ops._triton import alignment
from imbdyn.ops.class_logits.triton import (
    add_class_logits_triton,
    class_logits_triton,
    few_config,
    whole_config,
    wide_configs,
)

implementation = import_module("imbdyn.ops.class_logits.triton")  # the package has a function of its own name

# NumPy, by which the interpreter computes, warns of what the reference gives as well: NaN of infinities
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(params=[False, True], ids=["atomics", "deterministic"])
def deterministic(request: pytest.FixtureRequest) -> Iterator[bool]:
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["few", "tiles", "long", "wide"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A row a thread where there are few classes, tiles of rows, long rows, or as if wider than a block."""
    for name in {"few": (), "tiles": ("FEW",), "long": ("FEW", "TILES"), "wide": ("FEW", "WHOLE")}[request.param]:
        monkeypatch.setattr(implementation, name, 0)
    return str(request.param)


def read(case: Rows) -> ClassLogits:
    sums = class_logits_triton(case.matrix.to(DEVICE), case.labels.to(DEVICE), -100)
    return ClassLogits(*sums.cpu())


@pytest.mark.usefixtures("deterministic")
@settings(SETTINGS, max_examples=min(EXAMPLES, 15))
@given(row_cases(columns=None, classes=(1, 2, 3, 10, 16, 17, 33, 100)))
def test_matches_reference(way: str, case: Rows) -> None:
    if DEVICE == "cpu" and way in ("long", "wide"):  # row by row, which the interpreter takes its time for
        case = Rows(case.matrix[:9], case.labels[:9], case.num_classes, f"first rows of {case}")
    compare(read(case), case)


@pytest.mark.parametrize("adding", [0, 1000])
@pytest.mark.parametrize("num_classes", [30, 100, 300])
def test_programs_that_add_and_that_store(num_classes: int, adding: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "ADDING", adding)
    case = make_rows(12_000 // num_classes, num_classes, num_classes, ignored=True)
    compare(read(case), case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_classes", [127, 128, 1000, 1025])
def test_many_classes_match_reference(num_classes: int, dtype: torch.dtype) -> None:
    case = make_rows(9, num_classes, num_classes, dtype, "every other row", ignored=True, special="nan")
    compare(read(case), case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_more_than_one_block_match_reference(dtype: torch.dtype) -> None:
    num_classes = implementation.WHOLE + 5
    case = make_rows(3, num_classes, num_classes, dtype, ignored=True, special="inf")
    compare(read(case), case)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("row", ["nan 0 0", "0 nan nan", "inf inf 0", "0 -inf -inf", "-inf -inf -inf", "inf -inf nan"])
def test_special_row_comes_out_as_in_the_reference(row: str) -> None:
    z = torch.tensor([[float(v) for v in row.split()]] * 4)
    for labels in (torch.tensor([0]), torch.tensor([0, 1, 2, 1])):
        compare(read(case := Rows(z[: len(labels)], labels, 3, f"{row} {labels.tolist()}")), case)


@pytest.mark.usefixtures("way", "deterministic")
def test_a_label_out_of_range_counts_nowhere() -> None:
    case = make_rows(40, 5, 5, ignored=True)
    hostile = case.labels.clone()
    hostile[hostile == -100] = torch.tensor([-1, 5, 2**40, -(2**62), 2**31, -(2**31), 2**32, -7])
    sums = class_logits_triton(case.matrix.to(DEVICE), hostile.to(DEVICE), -100)
    compare(ClassLogits(*sums.cpu()), case)


@pytest.mark.usefixtures("way", "deterministic")
def test_a_class_can_be_ignored() -> None:
    case = make_rows(40, 5, 5)
    ignored = class_logits_triton(case.matrix.to(DEVICE), case.labels.to(DEVICE), 3).cpu()
    compare(ClassLogits(*ignored), Rows(case.matrix, case.labels.where(case.labels != 3, -100), 5, "class 3 ignored"))


@pytest.mark.usefixtures("deterministic")
def test_adding_equals_summing() -> None:
    case = make_rows(40, 5, 5, ignored=True)
    z, y = case.matrix.to(DEVICE), case.labels.to(DEVICE)
    once = class_logits_triton(z, y, -100)
    for sums in (torch.ones(8, 5, dtype=torch.float64), torch.ones(5, 8, dtype=torch.float64).t()):
        twice = sums.to(DEVICE)
        for _ in range(2):
            add_class_logits_triton(twice, z, y, -100)
        torch.testing.assert_close(twice, 1 + 2 * once, rtol=1e-14, atol=0)


@pytest.mark.usefixtures("deterministic")
def test_no_rows_add_nothing() -> None:
    sums = class_logits_triton(torch.zeros(0, 4, device=DEVICE), torch.zeros(0, dtype=torch.int64, device=DEVICE), -100)
    assert torch.equal(sums, torch.zeros_like(sums))


@pytest.mark.usefixtures("way")
@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter has one order")
def test_deterministic_sums_are_the_same_bits_every_time() -> None:
    case = make_rows(5000, 100, 100)
    z, y = case.matrix.to(DEVICE), case.labels.to(DEVICE)
    torch.use_deterministic_algorithms(True)
    try:
        first = class_logits_triton(z, y, -100)
        assert all(torch.equal(class_logits_triton(z, y, -100), first) for _ in range(20))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.skipif(DEVICE == "cpu", reason="graphs are captured on a GPU")
def test_a_captured_call_adds_at_every_replay() -> None:
    case = make_rows(64, 10, 10)
    z, y = case.matrix.to(DEVICE), case.labels.to(DEVICE)
    sums = class_logits_triton(z, y, -100)
    once = sums.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        add_class_logits_triton(sums, z, y, -100)
    graph.replay()
    graph.replay()
    torch.testing.assert_close(sums, 3 * once, rtol=1e-14, atol=0)


KERNELS = "imbdyn.ops.class_logits.triton"
ELEMENTS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
SHARED = 64 << 10  # what the warps of a program tell each other, and blocks of wide rows that are on their way


#: Pointers of each kernel beside logits, labels and sums.
KEPT = {
    "few_classes": (),
    "tiles_of_rows": ("rows", "columns"),
    "long_rows": ("rows", "columns"),
    "wide_rows": ("rows", "softmax"),
    "wide_columns": ("softmax", "columns"),
}


def kernel(name: str, num_classes: int, dtype: torch.dtype, tile: dict[str, int], warps: int) -> Kernel:
    """Return the kernel for contiguous logits; a tile's constants are those of the name."""
    pointers = {"logits": f"*{ELEMENTS[dtype]}", "labels": "*i64", "sums": "*fp64"}
    pointers |= {one: "*fp64" if one == "rows" else "*fp32" for one in KEPT[name.split(":")[1]]}
    constants: dict[str, object] = {"label_stride": 1, "NUM_CLASSES": num_classes, **tile}
    if "few" not in name:
        constants |= {"column_stride": 1, "ALIGN": alignment(dtype.itemsize, num_classes)}
    for one, flag in (("rows", "DETERMINISTIC"), ("columns", "PARTS")):
        if one in pointers and not tile[flag]:
            constants[one] = None
    numbers = dict.fromkeys(("num_rows", "rows_of_program", "row_stride", "column_stride", "ignore_index"), "i32")
    return Kernel(
        f"{KERNELS}_{name}",
        pointers | numbers,
        constants,
        {"num_warps": warps},
        tuple(p for p in pointers if p not in constants),
    )


def whole(num_classes: int, dtype: torch.dtype, *, deterministic: bool = False, parts: bool = True) -> Kernel:
    config = whole_config(1 << 20, num_classes, dtype.itemsize, 132)
    tile = {"CLASSES": config.classes, "GROUP": config.group, "DETERMINISTIC": deterministic, "PARTS": parts}
    tile["COPIES"] = 8 if parts and not deterministic else 1
    name = "kernels:tiles_of_rows" if num_classes <= implementation.TILES else "long:long_rows"
    return kernel(name, num_classes, dtype, tile, config.warps)


def few(num_classes: int, dtype: torch.dtype, *, deterministic: bool = True) -> Kernel:
    config = few_config(num_classes)
    piece = alignment(4, num_classes)
    tile = {"ROWS": config.group, "PIECE": piece, "column_stride": 1, "DETERMINISTIC": deterministic}
    return kernel("few:few_classes", num_classes, dtype, tile, config.warps)


def wide(num_classes: int, dtype: torch.dtype, *, deterministic: bool = False) -> list[Kernel]:
    rows, columns = wide_configs(num_classes)
    stages = implementation.STAGES
    along_rows = {"CLASSES": rows.classes, "STAGES": stages, "DETERMINISTIC": deterministic}
    along_columns = {"CLASSES": columns.classes, "ROWS": columns.group, "STAGES": stages, "PARTS": deterministic}
    return [
        kernel("wide:wide_rows", num_classes, dtype, along_rows, rows.warps),
        kernel("wide:wide_columns", num_classes, dtype, along_columns, columns.warps),
    ]


def assert_fit(kernels: list[Kernel], target: str) -> None:
    for kernel, compiled in zip(kernels, compile_kernels(kernels, target), strict=True):
        assert compiled.spills == 0, (kernel, compiled)
        assert compiled.shared <= min(SHARED, TARGETS[target][1]), (kernel, compiled)
        if "few" in kernel.name:  # a row is one thread's, so none tells another anything
            assert compiled.shared == 0, (kernel, compiled)


@pytest.mark.skipif(DEVICE != "cpu", reason="needs no GPU")
def test_kernels_fit_into_registers() -> None:
    assert_fit([few(10, torch.float32), whole(1000, torch.bfloat16), *wide(130_000, torch.bfloat16)], "sm_90")


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_fits_into_registers(target: str, dtype: torch.dtype) -> None:
    classes = (17, 100, 256, 1000, 1024, 2048, 4096, 8192)
    flags = (False, True)
    kernels = [
        whole(c, dtype, deterministic=d, parts=p)
        for c in classes
        for d, p in ((False, False), (False, True), (True, True))
    ]
    kernels += [few(c, dtype, deterministic=d) for c in (1, 2, 4, 5, 10, 12, 16) for d in flags]
    kernels += [one for d in flags for one in wide(130_000, dtype, deterministic=d)]
    sums = [
        Kernel(
            f"{KERNELS}_sums:sum_by_label",
            {"labels": "*i64", "rows": "*fp64", "parts": "*fp64"}
            | dict.fromkeys(("num_rows", "num_parts", "label_stride", "ignore_index"), "i32"),
            {"NUM_CLASSES": 1000, "CLASSES": 8, "ROWS": 128},
            {"num_warps": 4},
        ),
        Kernel(
            f"{KERNELS}_sums:sum_parts",
            {"sums": "*fp64", "parts": "*fp64", "num_parts": "i32"},
            {"FIRST": 0, "WIDTH": 7000, "PARTS": implementation.SUMMED, "BLOCK": 4},
            {"num_warps": 8},
        ),
    ]
    assert_fit([*kernels, *sums], target)
