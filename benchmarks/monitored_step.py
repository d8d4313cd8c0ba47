"""What does a monitored training step cost beside the bare one?

Bare and monitored blocks of steps alternate in one process, so that the ratios hold on a noisy machine; medians over
the blocks are shown.

    every step   class gradients of all parameters at each step (interval=1)
    logits       only the logits, at each step
    per class    one backward pass a class (imbdyn.reference.class_gradients), which yields the same numbers
    1% budget    the default, over a training of --training seconds; the Monitor's clock stands still while the bare
                 loop has its turn
    said         what run.json says that this training cost

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
from report import write_report
from torch import nn

import imbdyn
from imbdyn.experiments.models import SmallConvNet
from imbdyn.monitor import cadence
from imbdyn.reference import class_gradients

CLASSES = 10


def mlp(hidden: int, depth: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(784, hidden), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(hidden, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, CLASSES))


def cnn(*channels: int) -> nn.Module:
    """Return 3x3 convolutions on 32x32 images, with max pooling after each, and a classifier on the mean."""
    layers: list[nn.Module] = []
    for before, after in zip((3, *channels[:-1]), channels, strict=True):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], CLASSES))


#: name -> (network, shape of one sample, batch size)
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "MLP 784-512x4-10, N 128": (lambda: mlp(512, 4), (784,), 128),
    "MLP 784-64-10, N 64": (lambda: mlp(64, 1), (784,), 64),
    "digits CNN, N 64": (lambda: SmallConvNet(CLASSES, channels=16, hidden=64), (1, 8, 8), 64),
    "CNN 32-64-128, N 128": (lambda: cnn(32, 64, 128), (3, 32, 32), 128),
}


class Loop:
    """One way to train a case; `seconds()` trains a block of steps and returns the time of a step."""

    def __init__(self, case: str, folder: Path | None, interval: int | None = None, *, per_class: bool = False) -> None:
        make, shape, batch = CASES[case]
        torch.manual_seed(0)
        self.model = make()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.x, self.y = torch.randn(batch, *shape), torch.randint(0, CLASSES, (batch,))
        self.per_class = per_class
        self.monitor = None
        if folder is not None:
            self.monitor = imbdyn.Monitor(self.model, self.optimizer, CLASSES, folder, interval=interval)

    def step(self) -> None:
        if self.monitor is None:
            self._forward_backward()
        else:
            with self.monitor.batch(self.y):
                self._forward_backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _forward_backward(self) -> None:
        losses = F.cross_entropy(self.model(self.x), self.y, reduction="none") / len(self.y)
        if self.per_class:
            class_gradients(losses, self.y, CLASSES, self.model.named_parameters())
        losses.sum().backward()

    def close(self) -> None:
        if self.monitor is not None:
            self.monitor.close()

    def seconds(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        return (time.perf_counter() - start) / steps


def measure(case: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    bare = Loop(case, None)
    ways = {
        "every step": Loop(case, folder / "every", 1),
        "logits": Loop(case, folder / "logits", 10**9),
        "per class": Loop(case, None, per_class=True),
    }
    for loop in (bare, *ways.values()):
        loop.seconds(5)
    steps = 1 + int(options.block / bare.seconds(5))
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    bare_seconds = []
    for _ in range(options.blocks):
        bare_seconds.append(bare.seconds(steps))
        for name, loop in ways.items():
            ratios[name].append(loop.seconds(steps) / bare_seconds[-1])
    for loop in ways.values():
        loop.close()
    result = {"bare_ms": 1e3 * statistics.median(bare_seconds)}
    return (
        result
        | {name: statistics.median(values) for name, values in ratios.items()}
        | budget(case, folder, steps, options)
    )


class StoppableClock:
    """Seconds while it runs: the Monitor must not take the bare loop's turns for its own training time."""

    def __init__(self) -> None:
        self.stopped_for = 0.0

    def __call__(self) -> float:
        return time.perf_counter() - self.stopped_for


def budget(case: str, folder: Path, steps: int, options: argparse.Namespace) -> dict[str, float]:
    """Train under the default budget beside a bare training; compare the clock with what run.json says."""
    clock = cadence.perf_counter = StoppableClock()  # type: ignore[assignment]
    bare, monitored = Loop(case, None), Loop(case, folder / "budget")
    bare_seconds = monitored_seconds = 0.0
    while bare_seconds * steps < options.training:
        turn = bare.seconds(steps)
        clock.stopped_for += turn * steps
        bare_seconds += turn
        monitored_seconds += monitored.seconds(steps)
    monitored.close()
    cadence.perf_counter = time.perf_counter
    overhead = imbdyn.open_trace(folder / "budget").run["overhead"]
    return {
        "1% budget": monitored_seconds / bare_seconds,
        "said": 1 + overhead["share"],
        "sampled steps of 1000": 1000 * overhead["sampled_steps"] / overhead["steps"],
        "logits read of 1000": 1000 * overhead["logits_steps"] / overhead["steps"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--block", type=float, default=0.2, help="bare seconds of a block")
    parser.add_argument("--training", type=float, default=25, help="bare seconds of the training under the budget")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    columns = ("every step", "logits", "per class", "1% budget", "said")
    print(f"{'':<24}{'bare ms':>8}" + "".join(f"{column:>11}" for column in columns))
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            r = results[case] = measure(case, Path(folder), options)
        print(f"{case:<24}{r['bare_ms']:>7.2f}" + "".join(f"{r[column]:>10.3f}x" for column in columns))
    if options.json:
        write_report(options.json, cases=results)


if __name__ == "__main__":
    main()
