"""How the compiled kernels of class_gram run: repeatable, on any number of threads, on every instruction set."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from forked_python import ForkedPython
from op_cases import DTYPES, make_rows
from test_cpu_kernels import ISAS, assert_bitwise
from torch import Tensor

from imbdyn.ops import _extension, class_gram_conv
from imbdyn.ops.class_gram.cpu import WAYS, rows_gram

pytestmark = pytest.mark.skipif(_extension.kernels is None, reason=_extension.why_missing)


def results(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """All ways of a linear layer and convolutions of all kinds, large enough for several threads."""
    a, d = make_rows(700, 90, 7, dtype, ignored=True), make_rows(700, 45, 1, dtype, seed=1).matrix
    samples = torch.arange(700) // 7
    found = [
        t
        for way in WAYS
        for which in (None, samples)
        for t in rows_gram(a.matrix, d, a.labels, 7, which, -100, True, bias=True, way=way)
    ]
    random = torch.Generator().manual_seed(0)
    for channels, groups, layout in ((24, 1, 0), (24, 1, 1), (24, 4, 0), (40, 40, 0), (40, 40, 1)):
        x, g = (torch.randn(30, channels, 20, 17, generator=random, dtype=torch.float64).to(dtype) for _ in range(2))
        if layout:
            x, g = (t.to(memory_format=torch.channels_last) for t in (x, g))
        labels = torch.randint(0, 4, (30,), generator=random)
        found += class_gram_conv(x, g, labels, 4, (3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=groups)
    return found


@pytest.fixture
def restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def largest_difference(got: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(got, expected, strict=True))


@pytest.mark.usefixtures("restore_threads")
def test_result_is_bitwise_repeatable_and_depends_on_threads_by_rounding_only() -> None:
    torch.set_num_threads(1)
    alone = results()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        expected = results()
        for _ in range(3):
            assert_bitwise(results(), expected)
        # float32 sums in another order; entries are compared with the largest of their array
        assert largest_difference(expected, alone) < 1e-6


@pytest.mark.usefixtures("restore_threads")
def test_several_threads_may_call_at_once() -> None:
    torch.set_num_threads(2)
    expected = results()
    with ThreadPoolExecutor(3) as callers:
        for got in [callers.submit(results) for _ in range(6)]:
            # A caller that finds the pool taken works alone, with the same ranges.
            assert_bitwise(got.result(), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_forced_instruction_set_agrees(python: ForkedPython, isa: str) -> None:
    code = """
import sys, torch
from imbdyn.ops import _extension
from imbdyn.ops._library import serving
from op_cases import DTYPES
from test_class_gram_kernels import results
found = [_extension.kernels.active_isa(), serving("class_gram", "cpu").detail, [results(dtype) for dtype in DTYPES]]
torch.save(found, sys.stdout.buffer)
"""
    done = python(code, environment={"IMBDYN_FORCE_ISA": isa})
    assert done.returncode == 0, done.stderr.decode()
    active, detail, by_dtype = torch.load(io.BytesIO(done.stdout))
    assert active == isa
    assert detail == f"C++, {isa}"
    for dtype, got in zip(DTYPES, by_dtype, strict=True):
        # Other panels, another order of the sums.
        assert largest_difference(got, results(dtype)) < (1e-14 if dtype == torch.float64 else 1e-6)


def test_images_are_read_where_they_lie() -> None:
    x = torch.randn(4, 3, 50, 50)[:, :, ::2]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        class_gram_conv(x, x, torch.tensor([0, 1, 0, 1]), 2, (1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
    assert sum(event.count for event in profile.key_averages() if event.key == "aten::copy_") == 0


def test_every_dtype_has_a_kernel() -> None:
    for dtype in DTYPES:
        assert all(t.dtype == torch.float64 for t in results(dtype))
