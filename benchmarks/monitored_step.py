"""What does a monitored training step cost beside the bare one?

Bare and monitored blocks of steps alternate in one process, so that the ratios hold on a noisy machine; medians over
the blocks are shown.

    every step   class gradients of all parameters at each step (interval=1)
    floor        the bare step and one weight-gradient product more of every layer (torch.mm, convolution_backward)
    logits       only the logits, at each step

benchmarks/budget.py asks what a whole training under a budget costs, benchmarks/peers.py what other tools do.

    python benchmarks/monitored_step.py [--json benchmarks/results/monitored_step.json]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from networks import CASES, TINY, Case
from report import write_report
from torch import Tensor, nn

import imbdyn


class Loop:
    """A training loop over one batch, monitored if it has a folder."""

    def __init__(self, case: Case, folder: Path | None = None, interval: int | None = None) -> None:
        self.model = case.model()
        self.x, self.y = case.batch()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.monitor = None
        if folder is not None:
            self.monitor = imbdyn.Monitor(self.model, self.optimizer, case.classes, folder, interval=interval)

    def step(self) -> None:
        if self.monitor is None:
            F.cross_entropy(self.model(self.x), self.y).backward()
        else:
            with self.monitor.batch(self.y):
                F.cross_entropy(self.model(self.x), self.y).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def close(self) -> None:
        if self.monitor is not None:
            self.monitor.close()

    def seconds(self, steps: int) -> float:
        """Train so many steps; return the seconds of one."""
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        return (time.perf_counter() - start) / steps


def weight_products(case: Case) -> Callable[[], None]:
    """Return what computes the weight gradient of every linear and convolutional layer once."""
    loop, layers = Loop(case), []

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0].detach()
        output.register_hook(lambda dy: layers.append((layer, x, dy)))

    for layer in loop.model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.register_forward_hook(keep)
    loop.step()

    def compute() -> None:
        for layer, x, dy in layers:
            if isinstance(layer, nn.Linear):
                _ = dy.flatten(0, -2).T @ x.flatten(0, -2)
            else:
                arguments = (layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups)
                torch.ops.aten.convolution_backward(dy, x, layer.weight, None, *arguments, (False, True, False))

    return compute


def timed(work: Callable[[], None], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def measure(case: Case, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    bare = Loop(case)
    ways = {"every step": Loop(case, folder / "every", 1), "logits": Loop(case, folder / "logits", 10**9)}
    products = weight_products(case)
    for loop in (bare, *ways.values()):
        loop.seconds(3)
    products()
    steps = 1 + int(options.block / bare.seconds(2))
    ratios: dict[str, list[float]] = {name: [] for name in (*ways, "floor")}
    bare_seconds = []
    for _ in range(options.blocks):
        bare_seconds.append(bare.seconds(steps))
        for name, loop in ways.items():
            ratios[name].append(loop.seconds(steps) / bare_seconds[-1])
        ratios["floor"].append(1 + timed(products, steps) / bare_seconds[-1])
    for loop in ways.values():
        loop.close()
    return {"bare_ms": 1e3 * statistics.median(bare_seconds)} | {
        name: statistics.median(values) for name, values in ratios.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--block", type=float, default=0.3, help="bare seconds of a block")
    parser.add_argument("--cases", default="", help="only those whose name contains this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    columns = ("every step", "floor", "logits")
    print(f"{'':<34}{'bare ms':>9}" + "".join(f"{column:>12}" for column in columns))
    results = {}
    for name, case in (CASES | TINY).items():
        if options.cases in name:
            with tempfile.TemporaryDirectory() as folder:
                r = results[name] = measure(case, Path(folder), options)
            print(f"{name:<34}{r['bare_ms']:>9.2f}" + "".join(f"{r[c]:>11.3f}x" for c in columns), flush=True)
    if options.json:
        write_report(options.json, cases=results)


if __name__ == "__main__":
    main()
