"""How the compiled kernels run: repeatable, on any number of threads, after fork, on every instruction set."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_python import ForkedPython
from op_cases import DTYPES, Rows, make_rows
from torch import Tensor

from imbdyn import ops
from imbdyn.ops import _extension

pytestmark = pytest.mark.skipif(_extension.kernels is None, reason=_extension.why_missing)


def everything(case: Rows) -> list[Tensor]:
    """All kernels' results: moments of the matrix, its columns taken as logits, and its rows as weights."""
    labels = torch.where(case.labels < 0, case.labels, case.labels % case.matrix.shape[1])
    return [
        *ops.class_moments(case.matrix, case.labels, case.num_classes),
        *ops.class_logits(case.matrix, labels),
        *norms(case.matrix),
        *norms(case.matrix, (torch.float64, torch.bfloat16)),
        *norm_gradients(case.matrix),
    ]


def norm_gradients(matrix: Tensor) -> list[Tensor]:
    """Gradients of normalisations of units of ten rows, by channels, by places and by rows."""
    units = matrix[: len(matrix) // 10 * 10].unflatten(0, (-1, 10))
    dy = units.flip(0)
    return [
        *ops.norm_gradients(units, dy, 10, across_units=True),
        *ops.norm_gradients(units.mT, dy.mT, 1),
        *ops.norm_gradients_rows(units, dy),
    ]


def norms(matrix: Tensor, dtypes: tuple[torch.dtype, ...] = ()) -> ops.ParameterNorms:
    """Norms of the rows of `matrix`, each with the row before as gradient and as earlier value, in other `dtypes`."""
    grad, old = (matrix[:-1].to(dtype) for dtype in dtypes or (matrix.dtype,) * 2)
    return ops.parameter_norms([matrix[1:], matrix], [grad, None], [old, None], rows=0)


def large_cases() -> list[Rows]:
    """Inputs that several threads share, in both ways of the logits kernel and with a class of several segments."""
    return [
        make_rows(3000, 300, 7, ignored=True),
        make_rows(3000, 300, 7, torch.bfloat16, "transposed"),
        make_rows(40_000, 12, 2, torch.float16, "every other column"),
        make_rows(9000, 40, 3, special="nan inf"),  # moments of rows in order
        make_rows(3000, 200, 50, torch.float64, special="nan inf"),
    ]


def assert_bitwise(got: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def restore_threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", large_cases(), ids=str)
@pytest.mark.usefixtures("restore_threads")
def test_result_is_bitwise_the_same_on_1_2_3_and_again_2_threads(case: Rows) -> None:
    torch.set_num_threads(1)
    expected = everything(case)
    for threads in (2, 3, 2, 2):
        torch.set_num_threads(threads)
        assert_bitwise(everything(case), expected)


@pytest.mark.usefixtures("restore_threads")
def test_several_threads_may_call_at_once() -> None:
    torch.set_num_threads(2)
    cases = large_cases()
    expected = [everything(case) for case in cases]
    with ThreadPoolExecutor(4) as callers:
        runs = [(i, callers.submit(everything, cases[i])) for _ in range(5) for i in range(len(cases))]
        for i, run in runs:
            assert_bitwise(run.result(), expected[i])


def test_labels_that_change_during_a_call_are_no_place_to_write(python: ForkedPython) -> None:
    # As those of a copy to this memory that has not ended. In a process of its own, which would die.
    code = """
import sys, threading, time, torch
from imbdyn import ops
sys.setswitchinterval(1e-5)
labels, rows = torch.zeros(100_000, dtype=torch.int64), torch.ones(100_000, 1)
ended = False

def change(last=labels.numpy()[-1:]):
    while not ended:
        last[0] = 2**40
        last[0] = 0

changing = threading.Thread(target=change)
changing.start()
calls = named = 0
last_call = time.monotonic() + 60
# More than 300 only on a machine so busy that the other thread did not run meanwhile.
while calls < 300 or (named in (0, calls) and time.monotonic() < last_call):
    calls += 1
    try:
        assert ops.class_moments(rows, labels, 1).count == 100_000
    except ValueError as error:
        assert str(error).startswith("labels[99999] is ")
        named += 1
ended = True
changing.join()
assert 0 < named < calls, (named, calls)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts its threads in /proc")
def test_forked_child_computes_the_same_on_threads_of_its_own_and_exits(python: ForkedPython) -> None:
    # In a process of its own: a fork of the test process would copy whatever other tests left running.
    code = """
import os, torch, traceback
from test_cpu_kernels import assert_bitwise, make_rows, norms
from imbdyn.ops import class_moments
torch.set_num_threads(2)
case = make_rows(3000, 300, 7)

def compute():
    # No arithmetic of torch's here: its OpenMP threads do not survive a fork.
    return [*class_moments(case.matrix, case.labels, 7), *norms(case.matrix)]

expected = compute()

def in_child(then):
    child = os.fork()
    if child == 0:
        try:
            assert len(os.listdir("/proc/self/task")) == 1
            got = compute()
            assert len(os.listdir("/proc/self/task")) == 2
            assert_bitwise(got, expected)
            then()
            os._exit(7)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

for _ in range(3):
    in_child(lambda: in_child(lambda: None))
    assert_bitwise(compute(), expected)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr.decode()


def isa_cases() -> list[Rows]:
    small = [make_rows(70, 67, 5, dtype, ignored=True, special="-inf inf nan") for dtype in DTYPES]
    return [*large_cases(), *small, make_rows(70, 33, 3, layout="every other column")]


ISAS = _extension.kernels.available_isas() if _extension.kernels is not None else []


@pytest.mark.parametrize("isa", ISAS)
def test_forced_instruction_set_runs_and_agrees(python: ForkedPython, isa: str) -> None:
    code = """
import sys, torch
from imbdyn.ops import _extension
from imbdyn.ops._library import serving
from test_cpu_kernels import everything, isa_cases
results = [everything(case) for case in isa_cases()]
torch.save([_extension.kernels.active_isa(), serving("class_logits", "cpu").detail, results], sys.stdout.buffer)
"""
    done = python(code, environment={"IMBDYN_FORCE_ISA": isa})
    assert done.returncode == 0, done.stderr.decode()
    active, detail, results = torch.load(io.BytesIO(done.stdout))
    assert active == isa
    assert detail == f"C++, {isa}"
    for case, got in zip(isa_cases(), results, strict=True):
        # Only contracted multiply-adds differ: a few roundings in each of up to 3000 terms that partly cancel.
        tolerance = 1e-13 if case.matrix.dtype == torch.float64 else 1e-5
        for a, b in zip(got, everything(case), strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def test_unknown_instruction_set_is_an_error_that_lists_the_known_ones(python: ForkedPython) -> None:
    done = python("from imbdyn import _C; _C.active_isa()", environment={"IMBDYN_FORCE_ISA": "avx9"})
    assert done.returncode != 0
    last_line = done.stderr.decode().strip().splitlines()[-1]
    assert last_line.startswith("ValueError: IMBDYN_FORCE_ISA names 'avx9', which is none of the known")
    assert all(isa in last_line for isa in ISAS)


@pytest.mark.skipif(ISAS != ["avx2", "sse2"], reason="needs an x86-64 processor with AVX2 and without AVX-512")
def test_instruction_set_that_the_machine_lacks_is_an_error_that_lists_what_it_has(python: ForkedPython) -> None:
    done = python("from imbdyn import _C; _C.active_isa()", environment={"IMBDYN_FORCE_ISA": "avx512"})
    assert done.returncode != 0
    assert "names 'avx512', which needs AVX-512 F, BW, DQ and VL; this machine has: avx2, sse2" in done.stderr.decode()
