"""parameter_norms in Triton against the reference, and the table that its launch reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compiled_kernels import TARGETS, Kernel, compile_kernels
from hypothesis import given, settings
from op_cases import SETTINGS, assert_accurate
from test_parameter_norms import Case, tensors
from torch import Tensor
from triton_device import DEVICE, EXAMPLES

from imbdyn.ops.parameter_norms import table as tables
from imbdyn.ops.parameter_norms.reference import parameter_norms_reference
from imbdyn.ops.parameter_norms.table import COLUMNS, make_work, table_of
from imbdyn.ops.parameter_norms.triton import parameter_norms_triton

# the interpreter computes with NumPy, which warns where a GPU does not
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


def to_device(tensor: Tensor | None) -> Tensor | None:
    """Return a tensor with its strides and offset on the device, also where elements share memory."""
    if tensor is None:
        return None
    memory = tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0).to(DEVICE)
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def on_device(case: Case) -> Case:
    params, grads, previous = ([to_device(t) for t in each] for each in case)
    return [w for w in params if w is not None], grads, previous


def assert_as_reference(case: Case, rows: int) -> None:
    got = parameter_norms_triton(*on_device(case), rows)
    for name, one, expected in zip(("tensors", "rows"), got, parameter_norms_reference(*case, rows=rows), strict=True):
        assert one.shape == expected.shape
        size = torch.cat([expected[:, :3], expected[:, :1] * expected[:, 2:3]], 1).nan_to_num(posinf=0)
        assert_accurate(name, one.cpu(), expected, expected, size, torch.float64)


@settings(SETTINGS, max_examples=min(EXAMPLES, 50))
@given(tensors())
def test_matches_reference(case: Case) -> None:
    for rows in (-1, *(i for i, w in enumerate(case[0]) if w.dim() > 0)):
        assert_as_reference(case, rows)


#: The edges of a block (1024 elements) and of a chunk (8192), rows that are aligned to 16 bytes and rows that are not.
LARGE_SHAPES = [(1023,), (1025,), (8191,), (8193,), (3, 8200), (2, 1024), (3, 1025), (33, 17), (4, 4000)]


@pytest.mark.parametrize("dtypes", [(torch.float32,) * 3, (torch.float32, torch.bfloat16, torch.float64)], ids=str)
@pytest.mark.parametrize("shape", LARGE_SHAPES, ids=str)
def test_large_tensors_match_reference(shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    w, grad, old = (torch.randn(shape, generator=random).to(dtype) for dtype in dtypes)
    case: Case = [old, w], [None, grad], [w, old]
    rows = 1 if len(shape) > 1 else -1  # not a program for each element
    got = parameter_norms_triton(*on_device(case), rows)
    for one, oracle in zip(got, parameter_norms_reference(*case, rows), strict=True):
        torch.testing.assert_close(one.cpu(), oracle, rtol=4096 * 2**-53, atol=1e-13, equal_nan=True)


def test_addresses_that_are_not_aligned_are_read_too() -> None:
    memory = torch.randn(3, 5001)
    w, grad, old = memory[:, 1:]
    assert w.data_ptr() % 16 != 0
    assert_as_reference(([w], [grad], [old]), -1)


def test_no_tensors_give_no_numbers() -> None:
    tensors_out, rows_out = parameter_norms_triton([], [], [], -1)
    assert tensors_out.shape == rows_out.shape == (0, 4)


def test_result_is_bitwise_the_same_each_time() -> None:
    case = on_device(([torch.randn(50_000)], [torch.randn(50_000)], [torch.randn(50_000)]))
    first, again = (parameter_norms_triton(*case, -1)[0] for _ in range(2))
    assert torch.equal(first, again)


def test_table_is_made_again_only_for_other_addresses() -> None:
    w, grad = torch.randn(40, device=DEVICE), torch.randn(40, device=DEVICE)
    first, _ = table_of([w], [grad], [None], -1)
    assert table_of([w], [grad], [None], -1)[0] is first
    assert table_of([w], [None], [None], -1)[0] is not first
    assert table_of([w[:20]], [grad[:20]], [None], -1)[0] is not first
    for size in range(1, 20):
        table_of([w[:size]], [None], [None], -1)
    assert len(tables._KEPT) <= 8
    assert table_of([w], [grad], [None], -1)[0] is not first


def test_every_element_is_in_one_chunk_of_its_kind() -> None:
    sizes = [20_000, 5, 0, 24_576, 70_000]
    types = [[1, 1, 1, 2, 1], [1, -1, 1, 2, 2], [1, 1, 1, -1, 1]]
    addresses = [[4096 * (10 * i + j) for j in range(5)] for i in range(3)]
    addresses[1][4] += 2  # not aligned
    work = make_work(addresses, types, sizes, 3, 3)
    chunks = work.numbers[: COLUMNS * work.chunks].reshape(-1, COLUMNS)
    about, chunks[:, 3] = chunks[:, 3] >> 32, chunks[:, 3] & 0xFFFFFFFF
    ends = work.numbers[COLUMNS * work.chunks :].reshape(-1, 2)
    assert len(ends) == len(sizes) + 3
    for i, (first, last) in enumerate(ends[: len(sizes)]):
        assert chunks[first:last, 3].sum() == sizes[i]
        group = next(g for g in work.groups if g.first <= first < g.first + g.chunks)
        assert last <= group.first + group.chunks
        assert group.types == tuple(column[i] for column in types)
        assert group.aligned == (i != 4)
        assert (
            about[first:last] == sum((column[i] + 1) << 4 * k for k, column in enumerate(types)) + (i != 4) * 4096
        ).all()
        for j in range(3):
            item = {1: 4, 2: 2, -1: 0}[types[j][i]]
            starts = np.concatenate([[0], chunks[first:last, 3].cumsum()[:-1]])
            assert (chunks[first:last, j] == addresses[j][i] + starts * item).all()
    # the three rows of the fourth are 8192 elements each
    assert (ends[len(sizes) :, 1] - ends[len(sizes) :, 0] == 1).all()
    assert ends[len(sizes), 0] == ends[3, 0]
    assert ends[-1, 1] == ends[3, 1]
    assert sum(g.chunks for g in work.groups) == work.chunks


def sums(w: int, grad: int, old: int, *, aligned: bool) -> Kernel:
    return Kernel(
        "imbdyn.ops.parameter_norms.triton:sum_chunks",
        {"table": "*i64", "first": "i32", "partial": "*fp64"},
        {"W": w, "GRAD": grad, "OLD": old, "ALIGNED": aligned, "BLOCK": 1024},
        {"num_warps": 8},
        ("table", "partial"),
    )


ADD = Kernel(
    "imbdyn.ops.parameter_norms.triton:add_chunks",
    {
        **{"table": "*i64", "partial": "*fp64", "chunks": "i32", "num_tensors": "i32", "num_rows": "i32"},
        **{"tensors": "*fp64", "rows": "*fp64"},
    },
    {"LONG": 256, "SHORT": 32},
    {"num_warps": 4},
)
SOME = [sums(1, 1, 1, aligned=True), ADD]
ALL = [
    *SOME,
    *(sums(*types, aligned=a) for types in [(2, 2, 2), (1, 2, 0), (0, 0, 0), (3, -1, 3), (1, 1, -1)] for a in (0, 1)),
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
        assert compiled.shared <= 4 << 10, kernel
