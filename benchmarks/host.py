"""What does a sampled step cost the host, and which calls does it make?

The Triton implementations run on CPU tensors, with everything that a GPU's host does, Triton's own way to a launch
too; but nothing is compiled, and a launch only counts itself. Networks have all their layers and few channels, so
that torch's own operators cost little but their calls. What a sampled step takes beside the bare one is the Monitor,
the taps, the rules, the ops' wrappers and their calls of torch. Not in it: the driver's part of a launch, and what a
call of torch takes longer on a GPU. Times are processor time of the thread, the fastest of many: other programs take
the caches away, but no time. Needs timm and triton; no GPU.

    python benchmarks/host.py [--json benchmarks/results/host.json]
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget

import imbdyn
from imbdyn.bench.report import write_report
from imbdyn.ops import (
    class_gram_conv,
    class_gram_linear,
    class_gram_samples,
    norm_gradients,
    norm_gradients_rows,
    parameter_norms,
)

CLASSES, IMAGES, SIZE = 10, 4, 64
STEPS, ROUNDS, CALLS = 25, 20, 20
PARTS = ("enter", "forward", "backward", "leave", "step")

#: As many layers as the originals, and few channels: what is measured is that calls are made.
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet50": {"channels": (16, 32, 64, 128)},
    "vit_base_patch16_224": {"img_size": SIZE, "embed_dim": 48},
}

LAUNCHES: Counter[str] = Counter()
#: Ops to the functions that compute them here.
SERVED: dict[str, Callable[..., Any]] = {}


class NullKernel:
    """Stands for a compiled kernel; what its launch takes on the host is Triton's own way to it."""

    function, packed_metadata = 0, ()

    def __init__(self, name: str) -> None:
        self.name = name

    def launch_metadata(self, *_: object) -> None:
        return None

    def run(self, *_: object) -> None:
        LAUNCHES[self.name] += 1

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
        def runner(*args: object) -> None:
            stream = triton.runtime.driver.active.get_current_stream(triton.runtime.driver.active.get_current_device())
            self.run(*grid, stream, self.function, self.packed_metadata, self.launch_metadata(grid, stream), *args)

        return runner


class NullDriver:
    """Tells Triton of a GPU that is not there."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def run_triton_on_cpu() -> torch.library.Library:
    """Let the Triton implementations serve CPU tensors, without kernels; return what keeps it so while it lives."""

    def do_not_compile(kernel: Any, key: str, _: object, device: int, *__: object, **___: object) -> NullKernel:
        compiled = kernel.device_caches[device][0][key] = NullKernel(kernel.__name__)
        return compiled

    triton.runtime.driver.set_active(NullDriver())
    triton.runtime.jit.JITFunction._do_compile = do_not_compile
    serving = torch.library.Library("imbdyn", "IMPL")
    for op, file, function in (
        ("class_gram", "class_gram.triton", "class_gram_triton"),
        ("class_gram_linear", "class_gram.triton", "class_gram_linear_triton"),
        ("class_gram_conv", "class_gram.triton", "class_gram_conv_triton"),
        ("class_gram_samples", "class_gram.triton_samples", "class_gram_samples_triton"),
        ("norm_gradients", "norm_gradients.triton", "norm_gradients_triton"),
        ("norm_gradients_rows", "norm_gradients.triton", "norm_gradients_rows_triton"),
        ("parameter_norms", "parameter_norms.triton", "parameter_norms_triton"),
    ):
        found = getattr(importlib.import_module(f"imbdyn.ops.{file}"), function)
        serving.impl(op, found, "CPU", allow_override=True)
        SERVED[op] = found
    importlib.import_module("imbdyn.monitor.parts")
    # as on an H100, and for the shapes of a real step: rows are more than samples, but for the classifier
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(("imbdyn.ops", "imbdyn.monitor")):
            for name, replaced in (
                ("multiprocessors", lambda _: 132),
                ("has_large_blocks", lambda _: True),
                ("_FEW_PLACES", 0),
                ("gram_is_cheaper", lambda _samples, length, *_: length == 1),
            ):
                if hasattr(module, name):
                    setattr(module, name, replaced)
    return serving


class Counted(TorchDispatchMode):
    """Counts the operators that reach a backend."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators[str(func)] += 1
        own = SERVED.get(func.overloadpacket.__name__) if func.namespace == "imbdyn" else None
        if own is None:
            return func(*args, **(kwargs or {}))
        given = [*args, *(a.default_value for a in func._schema.arguments[len(args) :])]
        with self:
            return own(*given, **(kwargs or {}))


def python_calls(run: Callable[[], object]) -> int:
    """Return how many functions of Python `run` calls."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


class Loop:
    """A training on one batch; monitored where it has a folder."""

    def __init__(self, name: str, folder: Path | None) -> None:
        import timm

        torch.manual_seed(0)
        self.model: nn.Module = timm.create_model(name, num_classes=CLASSES, **NETWORKS[name]).train()
        self.model.to(memory_format=torch.channels_last)
        self.x = torch.randn(IMAGES, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
        self.y = torch.arange(IMAGES) % CLASSES
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.monitor = None
        if folder is not None:
            self.monitor = imbdyn.Monitor(self.model, self.optimizer, CLASSES, folder, interval=1)

    def step(self) -> list[float]:
        """Train a step; return the seconds of its parts."""
        batch: AbstractContextManager[None] = nullcontext() if self.monitor is None else self.monitor.batch(self.y)
        moments = [time.thread_time()]
        with batch:
            moments.append(time.thread_time())
            loss = F.cross_entropy(self.model(self.x), self.y)
            moments.append(time.thread_time())
            loss.backward()
            moments.append(time.thread_time())
        moments.append(time.thread_time())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        moments.append(time.thread_time())
        return [after - before for before, after in pairwise(moments)]


def measure(name: str) -> dict[str, Any]:
    """Return milliseconds of the bare step, what a sampled one adds by part, and what it calls."""
    with tempfile.TemporaryDirectory() as folder:
        loops = {"bare": Loop(name, None), "sampled": Loop(name, Path(folder) / "run")}
        seconds: dict[str, list[list[float]]] = {which: [] for which in loops}
        for loop in loops.values():
            for _ in range(4):  # learns the model
                loop.step()
        for _ in range(STEPS):
            for which, loop in loops.items():
                seconds[which].append(loop.step())
        found: dict[str, Any] = {}
        counts = {}
        for which, loop in loops.items():
            LAUNCHES.clear()
            with Counted() as counted:
                loop.step()
            counts[which], found["launches"] = counted.operators, dict(LAUNCHES)
            found[f"{which}_python_calls"] = python_calls(loop.step)
        loops["sampled"].monitor.close()
    bare, sampled = ([1e3 * min(part) for part in zip(*seconds[which], strict=True)] for which in loops)
    added = counts["sampled"] - counts["bare"]
    return {
        "bare_ms": sum(bare),
        "added_ms": {part: s - b for part, s, b in zip(PARTS, sampled, bare, strict=True)},
        "operators": dict(added.most_common()),
        **found,
    }


def calls() -> dict[str, Callable[[], object]]:
    """Return a call of each wrapper as a sampled step makes it, but for few channels."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(8) % CLASSES

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    def image(channels: int) -> Tensor:
        return normal(8, channels, 14, 14).to(memory_format=torch.channels_last)

    x, d, places = image(16), image(32), image(32).flatten(2)
    rows, grads = normal(8, 197, 16), normal(8, 197, 32)
    resnet = Loop("resnet50", None).model
    weights = [p.detach() for p in resnet.parameters()]
    small = [normal(8, p.numel()) for p in weights if p.dim() == 1]
    ones = {"stride": (1, 1), "dilation": (1, 1)}
    return {
        "class_gram_conv, 1x1": lambda: class_gram_conv(x, d, labels, CLASSES, (1, 1), padding=(0, 0), **ones),
        "class_gram_conv, 3x3": lambda: class_gram_conv(x, d, labels, CLASSES, (3, 3), padding=(1, 1), **ones),
        "class_gram_linear, tokens": lambda: class_gram_linear(rows, grads, labels, CLASSES),
        "class_gram_linear, samples": lambda: class_gram_linear(rows[:, :1], grads[:, :1], labels, CLASSES),
        "norm_gradients, BatchNorm": lambda: norm_gradients(places, places, 32, across_units=True),
        "norm_gradients_rows, LayerNorm": lambda: norm_gradients_rows(rows, rows),
        f"class_gram_samples, {len(small)} parameters": lambda: class_gram_samples(small, labels, CLASSES),
        f"parameter_norms, {len(weights)} parameters": lambda: parameter_norms(
            weights, weights, weights, rows=len(weights) - 2
        ),
    }


def measure_call(call: Callable[[], object]) -> dict[str, float]:
    """Return microseconds, launches, operators and calls of Python functions of one call."""
    call()
    LAUNCHES.clear()
    with Counted() as counted:
        call()
    launches = sum(LAUNCHES.values())
    fastest = min(timed(call) for _ in range(ROUNDS))
    return {
        "us": 1e6 * fastest / CALLS,
        "launches": launches,
        "operators": sum(counted.operators.values()) - 1,
        "python_calls": python_calls(call),
    }


def timed(call: Callable[[], object]) -> float:
    started = time.thread_time()
    for _ in range(CALLS):
        call()
    return time.thread_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    serving = run_triton_on_cpu()
    steps = {}
    for name in NETWORKS:
        found = steps[name] = measure(name)
        parts = ", ".join(f"{part} {ms:.2f}" for part, ms in found["added_ms"].items())
        print(f"{name}: bare {found['bare_ms']:.1f} ms, added {sum(found['added_ms'].values()):.1f} ms ({parts})")
        for what in ("launches", "operators"):
            print(f"  {sum(found[what].values())} {what}: {found[what]}")
        print(f"  {found['sampled_python_calls'] - found['bare_python_calls']} calls of Python functions")
    ops = {name: measure_call(call) for name, call in calls().items()}
    for name, numbers in ops.items():
        print(f"{name}: " + ", ".join(f"{value:.0f} {what}" for what, value in numbers.items()))
    del serving
    if options.json:
        write_report(options.json, steps=steps, ops=ops)


if __name__ == "__main__":
    main()
