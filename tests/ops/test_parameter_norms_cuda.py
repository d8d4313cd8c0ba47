"""parameter_norms in CUDA C++ against the reference. Runs on a GPU alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from op_cases import SETTINGS, assert_accurate
from test_parameter_norms import Case, tensors
from test_parameter_norms_triton import LARGE_SHAPES, on_device

from imbdyn.ops import _extension
from imbdyn.ops.parameter_norms.cuda import parameter_norms_cuda
from imbdyn.ops.parameter_norms.reference import parameter_norms_reference
from imbdyn.ops.parameter_norms.triton import parameter_norms_triton

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or _extension.kernels is None or not _extension.kernels.has_cuda,
    reason="no GPU, or built without CUDA",
)


def assert_as_reference(case: Case, rows: int) -> None:
    got = parameter_norms_cuda(*on_device(case), rows)
    for name, one, expected in zip(("tensors", "rows"), got, parameter_norms_reference(*case, rows=rows), strict=True):
        assert one.shape == expected.shape
        size = torch.cat([expected[:, :3], expected[:, :1] * expected[:, 2:3]], 1).nan_to_num(posinf=0)
        assert_accurate(name, one.cpu(), expected, expected, size, torch.float64)


@settings(SETTINGS, max_examples=80)
@given(tensors())
def test_matches_reference(case: Case) -> None:
    for rows in (-1, *(i for i, w in enumerate(case[0]) if w.dim() > 0)):
        assert_as_reference(case, rows)


@pytest.mark.parametrize("dtypes", [(torch.float32,) * 3, (torch.bfloat16,) * 3, (torch.float16,) * 3], ids=str)
@pytest.mark.parametrize("shape", [*LARGE_SHAPES, (2_000_003,), (70_000, 3)], ids=str)
def test_large_tensors_match_reference(shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    w, grad, old = (torch.randn(shape, generator=random).to(dtype) for dtype in dtypes)
    case: Case = [old, w], [None, grad], [w, old]
    got = parameter_norms_cuda(*on_device(case), 1)
    for one, oracle in zip(got, parameter_norms_reference(*case, 1), strict=True):
        torch.testing.assert_close(one.cpu(), oracle, rtol=4096 * 2**-53, atol=1e-13, equal_nan=True)


def test_addresses_that_are_not_aligned_are_read_too() -> None:
    w, grad, old = torch.randn(3, 5001)[:, 1:]
    assert_as_reference(([w], [grad], [old]), -1)


def test_no_tensors_give_no_numbers() -> None:
    tensors_out, rows_out = parameter_norms_cuda([], [], [], -1)
    assert tensors_out.shape == rows_out.shape == (0, 4)


@pytest.mark.parametrize("function", [parameter_norms_cuda, parameter_norms_triton])
def test_runs_in_a_cuda_graph_and_on_another_stream(function: object) -> None:
    assert callable(function)
    w, grad, old = torch.randn(3, 100_000, device="cuda")
    expected = function([w], [grad], [old], -1)[0]
    again = function([w], [grad], [old], -1)[0]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = function([w], [grad], [old], -1)[0]
    graph.replay()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        beside = function([w], [grad], [old], -1)[0]
    torch.cuda.synchronize()
    for other in (again, got, beside):
        assert torch.equal(expected, other)
