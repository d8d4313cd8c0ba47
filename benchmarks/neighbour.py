"""Is a training step of torch slower beside imbdyn's ops, because their threads spin or sit on the cores?

Blocks of bare steps alternate, in one process, with blocks in which something is called after each step. Only the steps
are timed, never what is called, so that 1.00x means: nobody in the way. What is called:

    ops     class_moments and class_gram, of other data than the step's
    torch   torch's own sum and matrix products of the same data: what any work beside the step costs, for the caches
            are cold after it

Each is measured twice. Once on the OpenMP team of torch, where imbdyn's kernels run, and once on the pool that they
have for processes without such a team. A fork is one: the team's threads do not survive it, so imbdyn does not trust
the team there, while torch, which had not started its threads before, starts them in the child.

    python benchmarks/neighbour.py [--json benchmarks/results/neighbour.json]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from imbdyn import ops
from imbdyn.bench.networks import CASES, TINY
from imbdyn.bench.report import write_report
from imbdyn.bench.steps import Loop

WAYS = ("ops", "torch")


class Neighbour:
    """Work on data of its own, in each of WAYS: 3 MiB are read, and some 100 million multiply-adds done."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.features = torch.randn(1024, 512, generator=random)
        self.inputs, self.grads = torch.randn((2, 512, 256), generator=random)
        self.labels = torch.randint(0, 10, (1024,), generator=random)

    def ops(self) -> None:
        ops.class_moments(self.features, self.labels, 10)
        ops.class_gram(self.inputs, self.grads, self.labels[:512], 10)

    def torch(self) -> None:
        self.features.sum(0)
        _ = self.inputs @ self.inputs.T, self.grads @ self.grads.T


def seconds_of_a_step(loop: Loop, steps: int, between: Callable[[], None] | None) -> float:
    """Train so many steps with `between` called after each; return the mean seconds of a step alone."""
    seconds = 0.0
    for _ in range(steps):
        start = time.perf_counter()
        loop.step()
        seconds += time.perf_counter() - start
        if between is not None:
            between()
    return seconds / steps


def require_threads(neighbour: Neighbour, *, pool: bool) -> None:
    """Raise RuntimeError unless the ops run on the pool, or not on the pool: a pool has threads of its own."""

    def count() -> int:
        return sum(1 for _ in Path("/proc/self/task").iterdir())

    torch.ones(1 << 22).sin_()  # torch has started its threads after this
    before = count()
    neighbour.ops()
    if (count() > before) != pool:
        raise RuntimeError(f"{count() - before} threads were started by the ops, with {torch.get_num_threads()} wanted")


def measure(name: str, pool: bool, blocks: int, block: float) -> dict[str, object]:
    """Return the bare milliseconds of a step, and the ratios of each of WAYS: median and quartiles over blocks."""
    neighbour, loop = Neighbour(), Loop((CASES | TINY)[name])
    require_threads(neighbour, pool=pool)
    called = {way: getattr(neighbour, way) for way in WAYS}
    for between in called.values():
        seconds_of_a_step(loop, 3, between)
    steps = 1 + int(block / seconds_of_a_step(loop, 3, None))
    bare: list[float] = []
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(blocks):
        bare.append(seconds_of_a_step(loop, steps, None))
        for way, between in called.items():
            ratios[way].append(seconds_of_a_step(loop, steps, between) / bare[-1])
    return {"bare_ms": 1e3 * statistics.median(bare)} | {
        way: dict(zip(("low", "median", "high"), statistics.quantiles(values, n=4), strict=True))
        for way, values in ratios.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=25)
    parser.add_argument("--block", type=float, default=0.3, help="bare seconds of a block")
    parser.add_argument("--cases", default="", help="only those whose name contains this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if torch.get_num_threads() < 2:
        parser.error("torch has one thread here, and so has imbdyn: there is nothing to measure")
    print(f"{'':<34}{'':>6}{'bare ms':>9}" + "".join(f"{way + ' (quartiles)':>24}" for way in WAYS))
    results: dict[str, dict[str, object]] = {}
    for name in CASES | TINY:
        if options.cases not in name:
            continue
        for threads in ("team", "pool"):
            # A process for each: forked before torch has started a thread, or new.
            context = multiprocessing.get_context("fork" if threads == "pool" else "spawn")
            with ProcessPoolExecutor(1, mp_context=context) as child:
                arguments = (name, threads == "pool", options.blocks, options.block)
                r = results.setdefault(name, {})[threads] = child.submit(measure, *arguments).result()
            shown = [f"{r[way]['median']:.3f}x ({r[way]['low']:.3f} {r[way]['high']:.3f})" for way in WAYS]
            print(f"{name:<34}{threads:>6}{r['bare_ms']:>9.2f}" + "".join(f"{s:>24}" for s in shown), flush=True)
    if options.json:
        write_report(options.json, cases=results)


if __name__ == "__main__":
    main()
