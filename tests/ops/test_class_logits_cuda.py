"""class_logits in CUDA C++ against the reference. Runs on a GPU alone; tests/csrc runs the same kernels without one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from op_cases import DTYPES, SETTINGS, Rows, make_rows, row_cases
from test_class_logits import compare

from imbdyn.ops import ClassLogits, _extension
from imbdyn.ops.class_logits.cuda import add_class_logits_cuda, class_logits_cuda, takes

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or _extension.kernels is None or not _extension.kernels.has_cuda,
    reason="no GPU, or built without CUDA",
)


def read(case: Rows) -> ClassLogits:
    return ClassLogits(*class_logits_cuda(case.matrix.cuda(), case.labels.cuda(), -100).cpu())


@settings(SETTINGS, max_examples=60)
@given(row_cases(columns=None, classes=(1, 2, 3, 10, 16, 17, 33, 100, 128, 129)))
def test_matches_reference(case: Rows) -> None:
    compare(read(case), case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_classes", [2, 10, 16, 31, 32, 64, 100, 101, 127, 128])
def test_many_rows_match_reference(num_classes: int, dtype: torch.dtype) -> None:
    case = make_rows(50_001, num_classes, num_classes, dtype, ignored=True)
    case.labels[:30_000].clamp_(max=0)  # one class has most rows
    compare(read(case), case)


@pytest.mark.parametrize("row", ["nan 0 0", "0 nan nan", "inf inf 0", "0 -inf -inf", "-inf -inf -inf", "inf -inf nan"])
def test_special_row_comes_out_as_in_the_reference(row: str) -> None:
    z = torch.tensor([[float(v) for v in row.split()]] * 3)
    for label in range(3):
        for labels in (torch.tensor([label]), torch.tensor([0, 1, label])):
            compare(read(case := Rows(z[: len(labels)], labels, 3, f"{row} {label}")), case)


def test_a_label_out_of_range_counts_nowhere() -> None:
    case = make_rows(40, 5, 5, ignored=True)
    hostile = case.labels.clone()
    hostile[hostile == -100] = torch.tensor([-1, 5, 2**40, -(2**62), 2**31, -(2**31), 2**32, -7])
    compare(ClassLogits(*class_logits_cuda(case.matrix.cuda(), hostile.cuda(), -100).cpu()), case)


@pytest.mark.parametrize("num_classes", [10, 100])
def test_sums_are_the_same_bits_every_time_and_in_a_graph(num_classes: int) -> None:
    case = make_rows(5000, num_classes, num_classes)
    z, y = case.matrix.cuda(), case.labels.cuda()
    assert takes(z)
    first = class_logits_cuda(z, y, -100)
    assert all(torch.equal(class_logits_cuda(z, y, -100), first) for _ in range(20))
    sums = torch.zeros_like(first)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        add_class_logits_cuda(sums, z, y, -100)
    graph.replay()
    assert torch.equal(sums, first)
