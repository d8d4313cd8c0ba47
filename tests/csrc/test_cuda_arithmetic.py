"""The CUDA kernels' arithmetic, of their indices and of their sums, compiled and run here without a GPU."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import pytest
import torch
from ops.op_cases import DTYPES
from test_csrc import CXX, compile_cpp

from imbdyn.ops import _extension
from imbdyn.ops.parameter_norms.table import COLUMNS, make_work

pytestmark = pytest.mark.skipif(CXX is None, reason="no C++ compiler")

PARTS = ("lines", "totals", "histogram", "order", "other_order", "partial")


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    source = Path(__file__).with_name("probes.cpp")
    library = ctypes.CDLL(str(compile_cpp(source, tmp_path_factory.mktemp("csrc") / "probes.so", "-shared")))
    for function in (library.chunk_line_on_host, library.rows_before_chunk_on_host):
        function.argtypes, function.restype = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64], ctypes.c_int64
    return library


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


@pytest.mark.parametrize("two_passes", [False, True])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("warps", [2, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 33, 300])
def test_moments_of_rows_match_float64(
    probes: ctypes.CDLL, count: int, warps: int, *, wide: bool, two_passes: bool
) -> None:
    random = torch.Generator().manual_seed(count)
    x = torch.randn(400, 132, generator=random) + 100
    if not wide:
        x = x[:, :131].t().contiguous().t()
    rows = torch.randperm(400, generator=random)[:count].to(torch.int32)
    mean, m2 = torch.full((2, x.shape[1]), torch.nan, dtype=torch.float64)
    probes.moments_on_host(
        *(pointer(x), ctypes.c_int64(x.shape[1]), ctypes.c_int64(x.stride(0)), ctypes.c_int64(x.stride(1))),
        *(pointer(rows), count, warps, wide, two_passes, pointer(mean), pointer(m2)),
    )
    taken = x[rows.long()].double()
    # d is rounded like x where x is close to the shift, and there are few rows in a sum
    torch.testing.assert_close(mean, taken.mean(0), rtol=2**-23, atol=0)
    torch.testing.assert_close(m2, (taken - taken.mean(0)).square().sum(0), rtol=2e-6, atol=1e-9)


def test_moments_are_merged_as_if_they_were_of_one_pass(probes: ctypes.CDLL) -> None:
    x = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 10

    def moments(t: torch.Tensor) -> list[float]:
        return [len(t), t.mean().item(), (t - t.mean()).square().sum().item()]

    six = torch.tensor([*moments(x[:20]), *moments(x[20:])], dtype=torch.float64)
    probes.merge_on_host(pointer(six))
    torch.testing.assert_close(six[:3], torch.tensor(moments(x), dtype=torch.float64), rtol=1e-14, atol=0)
    for mean in (math.inf, -math.inf, math.nan):
        six = torch.tensor([3, mean, math.nan, 4, 1, 0], dtype=torch.float64)
        probes.merge_on_host(pointer(six))
        assert six[1].item() == mean or math.isnan(mean)
        assert math.isnan(six[2].item())


@pytest.mark.parametrize("columns", [0, 2048])
@pytest.mark.parametrize("num_classes", [1, 2047, 2048, 2**31 - 2])
@pytest.mark.parametrize("rows", [512, 513, 2048, 2049, 8192, 8193, 262_144])
def test_plan_has_room_for_everything(probes: ctypes.CDLL, rows: int, num_classes: int, columns: int) -> None:
    out = torch.zeros(13, dtype=torch.int64)
    probes.plan_on_host(ctypes.c_int64(rows), ctypes.c_int64(columns), ctypes.c_int64(num_classes), pointer(out))
    chunk_bits, windows, lines, by_class, passes, bits, *at, size = out.tolist()
    chunk_rows = 2**chunk_bits
    assert 128 <= chunk_rows <= 1024
    assert windows == (math.ceil(rows / chunk_rows) if rows > chunk_rows else 0)
    assert lines == 2 * windows + (num_classes if by_class else rows)
    assert bool(by_class) == (num_classes <= rows)
    # enough digits for every class and for rows that count nowhere, in shared memory
    assert (passes == 0) == (rows <= (2048 if num_classes < 2048 else 8192))
    assert passes == 0 or (num_classes < 2 ** (passes * bits) and bits <= 11)
    assert passes != 1 or by_class
    blocks = math.ceil(rows / 512) if passes else 0
    needs = [lines * 32, passes * 2**bits * 4, blocks * 2**bits * 4, rows * 4, (passes > 1) * rows * 4]
    needs = [*needs[:1], *(n if passes else 0 for n in needs[1:3]), *needs[3:], 2 * windows * 3 * columns * 4]
    for part, begin, end, need in zip(PARTS, at, [*at[1:], size], needs, strict=True):
        assert begin % 256 == 0, part
        assert need <= end - begin < need + 256, part


@pytest.mark.parametrize("bits", [0, 3, 10])
@pytest.mark.parametrize("seed", range(3))
def test_no_two_chunks_have_one_line_and_each_finds_its_rows(probes: ctypes.CDLL, seed: int, bits: int) -> None:
    random, chunk_rows = torch.Generator().manual_seed(seed), 2**bits
    sizes = (torch.rand(40, generator=random) ** 4 * 9 * chunk_rows).long()
    sizes += torch.tensor([chunk_rows, chunk_rows + 1] * 20)
    starts = sizes.cumsum(0) - sizes
    windows = math.ceil(int(sizes.sum()) / chunk_rows)
    seen = set()
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        for done in range(0, size if size > chunk_rows else 0, chunk_rows):
            line = probes.chunk_line_on_host(bits, start, start + done)
            assert line not in seen
            assert 0 <= line < 2 * windows
            assert probes.rows_before_chunk_on_host(bits, line, start) == done
            seen.add(line)
    assert seen


MIXED = (torch.float32, torch.bfloat16, torch.float64)


@pytest.mark.parametrize("dtypes", [*((dtype,) * 3 for dtype in DTYPES), MIXED], ids=str)
@pytest.mark.parametrize("size", [0, 1, 7, 33, 2049, 8192])
@pytest.mark.parametrize("offset", [0, 1])
def test_sums_of_a_chunk_match_float64(
    probes: ctypes.CDLL, offset: int, size: int, dtypes: tuple[torch.dtype, ...]
) -> None:
    random = torch.Generator().manual_seed(size)
    arrays = [torch.randn(size + 9, generator=random).to(dtype) for dtype in dtypes]
    for given in ((True, True, True), (True, False, True), (True, True, False)):
        w, grad, old = (a[offset : offset + size] if g else None for a, g in zip(arrays, given, strict=True))
        three = (w, grad, old)
        work = make_work(
            [[0 if t is None else t.data_ptr()] for t in three],
            [[-1 if t is None else _extension.ELEMENT_TYPES[t.dtype]] for t in three],
            [size],
            -1,
            0,
        )
        assert work.chunks == 1
        line, four = torch.from_numpy(work.numbers[:COLUMNS].copy()), torch.zeros(4, dtype=torch.float64)
        probes.chunk_on_host(pointer(line), 256, pointer(four))
        assert w is not None
        zero = torch.zeros(size, dtype=torch.float64)
        dw = w.double() - (zero if old is None else old.double())
        expected = [w.double().square().sum(), (zero if grad is None else grad.double()).square().sum()]
        expected += [dw.square().sum(), (w.double() * dw).sum()]
        torch.testing.assert_close(four, torch.stack(expected), rtol=1e-13, atol=1e-12)
