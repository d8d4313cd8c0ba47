"""What a monitored training step costs beside the bare one.

every step   class gradients of all parameters at each step (interval=1)
floor        the bare step and one weight-gradient product more of every layer (torch.mm, convolution_backward)
logits       only the logits, at each step
"""

from __future__ import annotations

import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbdyn.bench.networks import CASES, TINY, Case
from imbdyn.bench.suite import Measured, Suite, duration, ratio
from imbdyn.monitor import Monitor

#: The medians are of at least so many blocks.
LEAST_BLOCKS = 3
#: A block has bare steps for a twelfth of the time of a case, at most for so many seconds, at least one.
BLOCKS, LONGEST_BLOCK = 12, 0.3


class Loop:
    """A training loop over one batch; monitored if it has a folder: every `interval`-th step, or within the budget."""

    def __init__(self, case: Case, folder: Path | None = None, interval: int | None = None) -> None:
        self.model = case.model()
        self.x, self.y = case.batch()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.monitor: Monitor | None = None
        if folder is not None:
            self.monitor = Monitor(self.model, self.optimizer, case.classes, folder, interval=interval)

    def step(self) -> None:
        """Train one step."""
        if self.monitor is None:
            F.cross_entropy(self.model(self.x), self.y).backward()
        else:
            with self.monitor.batch(self.y):
                F.cross_entropy(self.model(self.x), self.y).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def close(self) -> None:
        """Close the Monitor, if there is one."""
        if self.monitor is not None:
            self.monitor.close()

    def seconds(self, steps: int) -> float:
        """Train so many steps; return the seconds of one."""
        return _seconds(self.step, steps)


def weight_products(case: Case) -> Callable[[], Iterator[Tensor]]:
    """Return what computes the weight gradients of a step's linear and convolutional layers again, last layer first."""
    loop = Loop(case)
    layers: list[tuple[nn.Linear | nn.Conv2d, Tensor, Tensor]] = []

    def keep(layer: nn.Linear | nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0].detach()
        output.register_hook(lambda dy: layers.append((layer, x, dy)))

    for layer in loop.model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.register_forward_hook(keep)
    loop.step()

    def compute() -> Iterator[Tensor]:
        for layer, x, dy in layers:
            if isinstance(layer, nn.Linear):
                yield dy.flatten(0, -2).T @ x.flatten(0, -2)
            else:
                geometry = (layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups)
                only_weight = (False, True, False)
                yield torch.ops.aten.convolution_backward(dy, x, layer.weight.detach(), None, *geometry, only_weight)[1]

    return compute


def measure(case: Case, seconds: float) -> Measured:
    """Return the milliseconds of a bare step, and the time of a step of the others as a ratio to it.

    Bare and monitored blocks of steps alternate for about `seconds`, so that the ratios hold on a noisy machine; all
    are medians over the blocks.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bare = Loop(case)
        ways = {
            "every step": stack.enter_context(closing(Loop(case, folder / "every", 1))),
            "logits": stack.enter_context(closing(Loop(case, folder / "logits", 10**9))),
        }
        products = weight_products(case)

        def floor() -> None:
            deque(products(), maxlen=0)  # none is kept: the next takes its memory

        floor()
        for loop in (bare, *ways.values()):
            loop.seconds(3)  # the first step learns the model, and fills caches
        steps = 1 + int(min(LONGEST_BLOCK, seconds / BLOCKS) / bare.seconds(2))
        bare_seconds: list[float] = []
        ratios: dict[str, list[float]] = {name: [] for name in (*ways, "floor")}
        end = perf_counter() + seconds
        while len(bare_seconds) < LEAST_BLOCKS or perf_counter() < end:
            bare_seconds.append(bare.seconds(steps))
            for name, loop in ways.items():
                ratios[name].append(loop.seconds(steps) / bare_seconds[-1])
            ratios["floor"].append(1 + _seconds(floor, steps) / bare_seconds[-1])
    return {"bare_ms": 1e3 * statistics.median(bare_seconds)} | {
        name: statistics.median(values) for name, values in ratios.items()
    }


def _seconds(work: Callable[[], object], times: int) -> float:
    """Do the work so many times; return the seconds of one."""
    start = perf_counter()
    for _ in range(times):
        work()
    return (perf_counter() - start) / times


def _measure(name: str, seconds: float) -> Measured:
    return measure((CASES | TINY)[name], seconds)


_WAYS = ("every step", "floor", "logits")


def _line(name: str, measured: Measured) -> str:
    return f"{name:<32}{duration(1e-3 * measured['bare_ms']):>12}" + "".join(f"{ratio(measured[w]):>12}" for w in _WAYS)


STEPS = Suite(
    names=tuple(CASES | TINY),
    measure=_measure,
    heading=f"{'training step':<32}{'bare':>12}" + "".join(f"{way:>12}" for way in _WAYS),
    line=_line,
    legend=(
        "bare: a step without imbdyn; the others are ratios to it. every step: class gradients of all parameters at "
        "each step. floor: the bare step and each layer's weight gradient once more. logits: per-class loss and "
        "accuracy at each step. Under the default budget most steps cost what logits does."
    ),
    as_json=lambda results: {"cases": results},
)
