"""A kernel that is launched at once gets what Triton's own way to it would give it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from imbdyn.ops._triton import Launch


class _Kernel:
    """Writes down how it was launched; `compiled` is what Triton returns, None from its interpreter."""

    def __init__(self, compiled: dict[tuple[int, ...], Callable[..., None]] | None) -> None:
        self.compiled, self.launched = compiled, 0

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]:
        def launch(*_: object, num_warps: int) -> object:
            assert (grid, num_warps) == ((7, 1, 1), 4)
            self.launched += 1
            return self.compiled

        return launch


def test_compiled_kernel_is_launched_at_once_by_addresses() -> None:
    got: list[tuple[object, ...]] = []
    kernel = _Kernel({(7, 1, 1): lambda *arguments: got.append(arguments)})
    launch = Launch(kernel, (7,), (3, True), num_warps=4)
    t = torch.zeros(8)
    assert t.data_ptr() % 16 == 0
    launch(t, None)
    assert (kernel.launched, got) == (1, [])
    launch(t, None)
    assert (kernel.launched, got) == (1, [(t.data_ptr(), 0, 3, True)])


def test_address_that_is_no_multiple_of_16_goes_all_the_way() -> None:
    kernel = _Kernel({})
    launch = Launch(kernel, (7,), (), num_warps=4)
    for _ in range(3):
        launch(torch.zeros(8)[1:])
    assert kernel.launched == 3


def test_nothing_is_kept_of_the_interpreter() -> None:
    kernel = _Kernel(None)
    launch = Launch(kernel, (7,), (), num_warps=4)
    for _ in range(3):
        launch(torch.zeros(8))
    assert kernel.launched == 3


#: Launches write down what a compiled kernel is run with; nothing is compiled, and no GPU is needed.
_SCRIPT = """
import torch
import triton
from triton.backends.compiler import GPUTarget

RUNS = {}

class Compiled:
    function, packed_metadata = 0, ()
    def launch_metadata(self, *_):
        return None
    def run(self, *arguments):
        RUNS.setdefault(self, []).append(arguments)
    def __getitem__(self, grid):
        return lambda *arguments: self.run(*grid, 0, 0, (), None, None, None, *arguments)

class Driver:
    def get_current_device(self):
        return 0
    def get_current_stream(self, device):
        return 0
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

def do_not_compile(kernel, key, signature, device, *_, **__):
    kernel.device_caches[device][0][key] = compiled = Compiled()
    return compiled

triton.runtime.driver.set_active(Driver())
triton.runtime.jit.JITFunction._do_compile = do_not_compile
from imbdyn.ops.class_gram.triton import class_gram_conv_triton, rows_gram
from imbdyn.ops.class_gram.triton_choice import Forced, Norms
from imbdyn.ops.norm_gradients.triton import norm_gradients_rows_triton, norm_gradients_triton

y = torch.arange(12) % 3
x, d = torch.randn(12, 5, 16), torch.randn(12, 5, 8)
samples = torch.arange(12) // 2
image, back = (torch.randn(12, c, 6, 6).to(memory_format=torch.channels_last) for c in (16, 8))
C = torch.ones(16)
calls = [
    *(lambda f=f: rows_gram(x, d, y, 3, None, -100, True, bias=True, forced=f)
      for f in (Forced("gram"), *(Forced("direct", by) for by in (Norms.BY_SLOT, Norms.IN_LOOP, Norms.WITHIN)))),
    lambda: rows_gram(x[:, 0], d[:, 0], y, 3, None, -100, True, bias=True, forced=Forced("direct")),
    lambda: rows_gram(x[:, 0], d[:, 0], y, 3, samples, -100, True, bias=True, forced=Forced("direct")),
    *(lambda k=k: class_gram_conv_triton(image, back, y, 3, [k, k], [1, 1], [k // 2] * 2, [1, 1], 1, -100, True,
                                         forced=Forced("direct")) for k in (1, 3)),
    *(lambda m=m, g=g, a=a: norm_gradients_triton(image.flatten(2), image.flatten(2), g, a, m, m, 1e-5)
      for m, g, a in ((None, 16, True), (None, 4, False), (None, 16, False), (C, 16, True))),
    lambda: norm_gradients_triton(image.contiguous().flatten(2), image.flatten(2), 16, True, None, None, 1e-5),
    lambda: norm_gradients_rows_triton(x, x, True, 1e-5),
]
compared = 0
for call in calls:
    RUNS.clear()
    call()
    first = {compiled: list(runs) for compiled, runs in RUNS.items()}
    RUNS.clear()
    call()
    assert RUNS.keys() == first.keys() and RUNS
    for compiled, runs in RUNS.items():
        for by_triton, at_once in zip(first[compiled], runs, strict=True):
            assert by_triton[:3] == at_once[:3]
            for a, b in zip(by_triton[9:], at_once[9:], strict=True):
                if a is None or isinstance(a, torch.Tensor):
                    assert type(b) is int and b % 16 == 0 and (b == 0) == (a is None)
                    compared += a is not None
                else:
                    assert type(a) is type(b) and a == b
print(compared)
"""


def test_arguments_are_those_of_triton() -> None:
    pytest.importorskip("triton")
    # a process of its own, in which Triton does not interpret (tests/conftest.py)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
