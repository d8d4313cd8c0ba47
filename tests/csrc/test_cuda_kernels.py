"""The CUDA kernels themselves, run without a GPU: threads are fibers (cuda_on_host.h), memory lies between guards."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pytest
import torch
from ops.op_cases import Rows, make_rows
from test_csrc import CXX, ROOT

from imbdyn.ops import ClassLogits, _extension
from imbdyn.ops.class_logits.reference import class_logits_reference
from imbdyn.ops.class_moments.reference import class_moments_reference
from imbdyn.ops.parameter_norms.layout import lay_out_alike
from imbdyn.ops.parameter_norms.reference import parameter_norms_reference
from imbdyn.ops.parameter_norms.table import make_work

pytestmark = pytest.mark.skipif(CXX is None, reason="no C++ compiler")

FOLDER = Path(__file__).parent
LAUNCH = re.compile(r"(\w+(?:<[\w, ]+>)?)<<<(.*?)>>>\((.*?)\);", re.DOTALL)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("cuda")
    sources = [FOLDER / "cuda_kernels_on_host.cpp"]
    (folder / "cuda_runtime.h").write_text('#include "cuda_on_host.h"\n')
    for path in sorted((ROOT / "csrc" / "cuda").glob("*.cu")):
        text = LAUNCH.sub(r"on_host::launch(\2, [&] { \1(\3); });", path.read_text())
        text = re.sub(r"extern __shared__ (\w+) (\w+)\[\];", r"static \1 \2[1 << 13];", text)
        assert "<<<" not in text
        sources.append(folder / f"{path.stem}.cpp")
        sources[-1].write_text(text)
    library = folder / "kernels.so"
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", f"-I{folder}", f"-I{FOLDER}", f"-I{ROOT / 'csrc'}"]
    subprocess.run([str(CXX), *flags, *map(str, sources), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.moments_bytes.restype = ctypes.c_int64
    loaded.logits_bytes.restype = ctypes.c_int64
    return loaded


def number(n: int) -> ctypes.c_int64:
    return ctypes.c_int64(n)


def at(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


Moments = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def add(
    kernels: ctypes.CDLL, x: torch.Tensor, y: torch.Tensor, moments: Moments, *, fresh: bool, ignore: int = -100
) -> None:
    """Call the kernels in memory full of ones (-1, NaN), with guards on both sides of it."""
    count, mean, m2 = moments
    kind = _extension.ELEMENT_TYPES[x.dtype]
    size = kernels.moments_bytes(number(x.shape[0]), number(x.shape[1]), number(len(count)), kind)
    memory = torch.full((size + 1024,), 255, dtype=torch.uint8)
    begin = -memory.data_ptr() % 256 + 256
    kernels.moments(
        *(at(x), kind, number(x.shape[0]), number(x.shape[1]), number(x.stride(0)), number(x.stride(1))),
        *(at(y), number(y.stride(0)), number(len(count)), number(ignore), at(count), at(mean), at(m2)),
        *(fresh, ctypes.c_void_p(memory.data_ptr() + begin)),
    )
    assert bool((memory[:begin] == 255).all() & (memory[begin + size :] == 255).all())


def fresh_moments(
    kernels: ctypes.CDLL, x: torch.Tensor, y: torch.Tensor, num_classes: int, ignore: int = -100
) -> Moments:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    guarded = torch.full((2, num_classes + 2, x.shape[1]), torch.nan, dtype=dtype)
    counts = torch.full((num_classes + 2,), -1)
    got = (counts[1:-1], guarded[0, 1:-1], guarded[1, 1:-1])
    add(kernels, x, y, got, fresh=True, ignore=ignore)
    assert bool((counts[[0, -1]] == -1).all() & guarded[:, [0, -1]].isnan().all())
    return got


def assert_same(got: Moments, expected: Moments) -> None:
    assert torch.equal(got[0], expected[0])
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if got[1].dtype == torch.float64 else {"rtol": 3e-6, "atol": 1e-5}
    for a, b in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(a.double(), b.to(a.dtype).double(), equal_nan=True, **tolerance)


#: Rows, columns, classes: pairs and digits (one and two of them), lines by class and by place, with and without chunks,
#: and the way of few classes.
SHAPES = [(33, 8, 5), (700, 264, 7), (3000, 5, 70), (4200, 40, 5)]
MORE_SHAPES = [
    (8300, 3, 9000),  # two digits, which the moments that are added have with every commit
    *((1, 1, 1), (64, 300, 40), (5, 4, 700), (1500, 8, 2), (2048, 3, 33), (1100, 4, 1200), (2049, 8, 1), (5000, 8, 3)),
    *(
        (2100, 4, 200),
        (2100, 4, 2047),
        (2100, 2, 2048),
        (8200, 2, 3000),
        (8192, 1, 9000),
        (130, 528, 3),
        (100, 1032, 30),
    ),
    # few classes: as many as fit, and one more in bf16
    *((4096, 8, 10), (4099, 520, 1), (4100, 8, 21), (4200, 264, 5), (5000, 16, 10)),
    *((2600, 6656, 3), (2700, 6600, 400)),  # enough blocks for panels of 1 KB
]


@pytest.mark.parametrize(
    "shape", [*SHAPES, *(pytest.param(s, marks=pytest.mark.nightly) for s in MORE_SHAPES)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_class_moments_match_reference(kernels: ctypes.CDLL, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    rows, columns, num_classes = shape
    case = make_rows(rows, columns, num_classes, dtype, ignored=True, mean=2.0)
    case.labels[: rows // 2] = case.labels[: rows // 2].clamp(max=0)  # one class has most rows
    got = fresh_moments(kernels, case.matrix, case.labels, num_classes)
    assert_same(got, class_moments_reference(case.matrix, case.labels, num_classes))


@pytest.mark.parametrize("layout", ["transposed", "every other column", "every other row", "expanded rows"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("special", ["", "-inf inf nan"])
def test_class_moments_of_any_strides_and_values(
    kernels: ctypes.CDLL, special: str, dtype: torch.dtype, layout: str
) -> None:
    case = make_rows(70, 40, 4, dtype, layout, special=special)
    got = fresh_moments(kernels, case.matrix, case.labels, 4)
    assert_same(got, class_moments_reference(case.matrix, case.labels, 4))


@pytest.mark.parametrize("rows", [2500, 4500])
def test_class_moments_of_chunks_that_are_not_finite(kernels: ctypes.CDLL, rows: int) -> None:
    x = make_rows(rows, 8, 1, mean=3.0).matrix
    x[:, :3] = 1.0
    x[-1, 0], x[0, 1], x[1500, 2] = torch.inf, -torch.inf, torch.nan
    x[::2, 3], x[1::2, 3] = 3e38, -3e38
    y = torch.zeros(rows, dtype=torch.int64)
    got = fresh_moments(kernels, x, y, 1)
    assert abs(got[1][0, 3].item()) < 1e32
    assert got[2][0, 3].item() == torch.inf
    got[1][0, 3] = 0
    _, mean, m2 = class_moments_reference(x, y, 1)
    mean[0, 3] = 0
    assert_same(got, (got[0], mean, m2))


@pytest.mark.parametrize("rows", [60, 3000, 4200])
@pytest.mark.parametrize("num_classes", [4, 5000])
def test_labels_that_are_no_class_are_ignored(kernels: ctypes.CDLL, num_classes: int, rows: int) -> None:
    case = make_rows(rows, 4, 4)
    case.labels[[0, 7, 8, 20, 39, 50]] = torch.tensor([-1, num_classes, 2**62, -(2**63), 2**32, 7])
    got = fresh_moments(kernels, case.matrix, case.labels, num_classes, ignore=7)
    valid = (case.labels >= 0) & (case.labels < num_classes) & (case.labels != 7)
    assert_same(got, class_moments_reference(case.matrix, case.labels.where(valid, -100), num_classes))


@pytest.mark.parametrize(
    ("rows", "columns", "num_classes"),
    [(0, 7, 5), (0, 7, 7000), (90, 7, 5), (90, 7, 7000), (3000, 7, 5), (8300, 1, 8500), (4200, 8, 5)],
    ids=str,
)
def test_moments_are_added_to_present_classes_alone(
    kernels: ctypes.CDLL, rows: int, columns: int, num_classes: int
) -> None:
    case = make_rows(rows + 60, columns, 4, mean=10.0)
    strided = case.labels.repeat_interleave(2)[::2]
    got = fresh_moments(kernels, case.matrix[:60], strided[:60], num_classes)
    got[1][4:], got[2][4:] = torch.nan, torch.nan
    add(kernels, case.matrix[60:], strided[60:], got, fresh=False)
    count, mean, m2 = class_moments_reference(case.matrix, case.labels, num_classes)
    mean[4:], m2[4:] = torch.nan, torch.nan
    assert_same(got, (count, mean, m2))


def test_no_columns_are_counted_all_the_same(kernels: ctypes.CDLL) -> None:
    got = fresh_moments(kernels, torch.zeros(5, 0), torch.tensor([0, 2, 2, 1, 0]), 4)
    assert got[0].tolist() == [2, 1, 2, 0]


@pytest.mark.parametrize("rows", [-1, 1, 3])
def test_parameter_norms_match_reference(kernels: ctypes.CDLL, rows: int) -> None:
    random = torch.Generator().manual_seed(0)
    shapes = [(5, 4), (3, 8200), (), (70, 16), (0,), (20_000,)]
    params, grads, previous = ([torch.randn(s, generator=random) for s in shapes] for _ in range(3))
    params[0], grads[3] = params[0].bfloat16(), grads[3].double()
    given = [None if i == 1 else g for i, g in enumerate(grads)]
    lists, types = lay_out_alike((params, given, previous), rows)
    num_rows = params[rows].shape[0] if rows >= 0 else 0
    addresses = [[0 if t is None else t.data_ptr() for t in tensors] for tensors in lists]
    work = make_work(addresses, types, [w.numel() for w in params], rows, num_rows)
    partial = torch.full((work.chunks, 4), torch.nan, dtype=torch.float64)
    out, rows_out = (torch.full((n, 4), 7.0, dtype=torch.float64) for n in (len(shapes), num_rows))
    table = torch.from_numpy(work.numbers)
    sizes = (number(work.chunks), number(len(shapes)), number(num_rows))
    kernels.norms(at(table), *sizes, at(partial), at(out), at(rows_out))
    expected = parameter_norms_reference(params, given, previous, rows)
    for a, b in zip((out, rows_out), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-12, equal_nan=True)


def logits_sums(
    kernels: ctypes.CDLL, case: Rows, *, processors: int = 3, shared: int = 80_000, ignore: int = -100
) -> torch.Tensor:
    """Return the sums, added to ones, of kernels in memory full of NaN, with guards on both sides of all they write."""
    z, y = case.matrix, case.labels
    kind = _extension.ELEMENT_TYPES[z.dtype]
    sizes = number(z.shape[0]), number(z.shape[1]), number(processors), number(shared)
    size = kernels.logits_bytes(sizes[0], sizes[1], kind, *sizes[2:])
    memory = torch.full((size // 8 + 64,), torch.nan, dtype=torch.float64)
    memory[:32] = memory[-32:] = 7
    guarded = torch.full((10, z.shape[1]), 7.0, dtype=torch.float64)
    sums = guarded[1:-1].fill_(1)
    kernels.add_logits(
        *(at(sums), at(z), kind, sizes[0], at(y), number(y.stride(0)), sizes[1], number(ignore), *sizes[2:]),
        ctypes.c_void_p(memory.data_ptr() + 256),
    )
    assert bool((guarded[[0, -1]] == 7).all() & (memory[:32] == 7).all() & (memory[-32:] == 7).all())
    return sums - 1


def assert_same_logits(got: torch.Tensor, case: Rows) -> None:
    expected = class_logits_reference(case.matrix, case.labels)
    for name, a, b in zip(ClassLogits._fields, got, expected, strict=True):
        if name in ("count", "correct", "predicted"):
            assert torch.equal(a, b), name
        torch.testing.assert_close(a, b, rtol=3e-6, atol=1e-5, equal_nan=True, msg=lambda m, name=name: f"{name}: {m}")


#: Pieces of every size, rows apart and not, groups of threads and several columns a thread.
LOGITS = (2, 10, 17, 33, 101, 128)
MORE_LOGITS = (3, 16, 31, 32, 64, 100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_classes", [*LOGITS, *(pytest.param(c, marks=pytest.mark.nightly) for c in MORE_LOGITS)])
def test_class_logits_match_reference(kernels: ctypes.CDLL, num_classes: int, dtype: torch.dtype) -> None:
    for rows in (1, 31, 64, 451):
        case = make_rows(rows, num_classes, num_classes, dtype, ignored=True, mean=2.0)
        case.labels[: rows // 3] = case.labels[: rows // 3].clamp(max=0)  # one class has most rows
        got = logits_sums(kernels, case)
        assert_same_logits(got, case)
        assert torch.equal(got, logits_sums(kernels, case))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("row", ["nan 0 0", "0 nan nan", "inf inf 0", "0 -inf -inf", "-inf -inf -inf", "inf -inf nan"])
def test_special_logits_come_out_as_in_the_reference(kernels: ctypes.CDLL, row: str, dtype: torch.dtype) -> None:
    z = torch.tensor([[float(v) for v in row.split()]] * 3, dtype=dtype)
    for label in (-100, 0, 1, 2):
        for labels in (torch.tensor([label]), torch.tensor([0, 1, label])):
            case = Rows(z[: len(labels)].clone(), labels, 3, f"{row} {label}")
            assert_same_logits(logits_sums(kernels, case), case)


def test_class_logits_of_labels_that_are_no_class_count_nowhere(kernels: ctypes.CDLL) -> None:
    case = make_rows(90, 20, 20)
    case.labels[[0, 7, 8, 20, 39, 50]] = torch.tensor([-1, 20, 2**62, -(2**63), 2**32, 7])
    valid = (case.labels >= 0) & (case.labels < 20) & (case.labels != 7)
    strided = case.labels.repeat_interleave(2)[::2]
    got = logits_sums(kernels, Rows(case.matrix, strided, 20, case.text), ignore=7)
    assert_same_logits(got, Rows(case.matrix, case.labels.where(valid, -100), 20, case.text))
