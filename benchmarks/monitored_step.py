"""What does a monitored training step cost beside the bare one?

Each case is trained bare and under a Monitor in turn, block by block in one process, so that the ratios hold on a noisy
machine; the median over blocks is shown. `every step` samples class gradients of all parameters at each step
(interval=1), `logits` reads the logits only, `1% budget` is the default, `per class` is one backward pass a class
(`imbdyn.reference.class_gradients`), which yields the same numbers.

    python benchmarks/monitored_step.py [--json benchmarks/results/monitored_step.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import imbdyn
from imbdyn.experiments.models import SmallConvNet
from imbdyn.reference import class_gradients

CLASSES = 10


def mlp(hidden: int, depth: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(784, hidden), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(hidden, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, CLASSES))


#: name -> (network, shape of one sample, batch size)
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "MLP 784-512x4-10, N 128": (lambda: mlp(512, 4), (784,), 128),
    "MLP 784-64-10, N 64": (lambda: mlp(64, 1), (784,), 64),
    "digits CNN, N 64": (lambda: SmallConvNet(CLASSES, channels=16, hidden=64), (1, 8, 8), 64),
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
        self.folder = folder
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

    def seconds(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        return (time.perf_counter() - start) / steps


def measure(case: str, folder: Path, blocks: int, steps: int) -> dict[str, float | dict[str, object]]:
    bare = Loop(case, None)
    ways = {
        "every step": Loop(case, folder / "every", 1),
        "logits": Loop(case, folder / "logits", 10**9),
        "1% budget": Loop(case, folder / "budget"),
        "per class": Loop(case, None, per_class=True),
    }
    for loop in (bare, *ways.values()):
        loop.seconds(10)
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    bare_seconds = []
    for _ in range(blocks):
        for name, loop in ways.items():
            beside = bare.seconds(steps)
            bare_seconds.append(beside)
            ratios[name].append(loop.seconds(steps) / beside)
    result: dict[str, float | dict[str, object]] = {"bare_ms": 1e3 * statistics.median(bare_seconds)}
    result.update({name: statistics.median(values) for name, values in ratios.items()})
    for name, loop in ways.items():
        if loop.monitor is not None and loop.folder is not None:
            loop.monitor.close()
            record = imbdyn.open_trace(loop.folder).run["overhead"]
            result[f"{name} recorded"] = {k: record[k] for k in ("steps", "sampled_steps", "logits_steps", "share")}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    columns = ("every step", "logits", "1% budget", "per class")
    print(f"{'':<26}{'bare ms':>8}" + "".join(f"{column:>11}" for column in columns))
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            r = results[case] = measure(case, Path(folder), options.blocks, options.steps)
        print(f"{case:<26}{r['bare_ms']:>8.2f}" + "".join(f"{r[column]:>10.3f}x" for column in columns))
    if options.json:
        machine = {"processor": _processor(), "threads": torch.get_num_threads(), "system": platform.platform()}
        versions = {"torch": torch.__version__, "imbdyn": imbdyn.__version__, "python": platform.python_version()}
        report = {"date": date.today().isoformat(), "machine": machine, "versions": versions, "cases": results}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
