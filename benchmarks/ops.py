"""What does each op cost on this machine, beside the floor and beside plain torch?

The floor is one read of the op's inputs by torch (`sum`); for class_gram it is the two products A A^T and D D^T that
its gram way needs. Plain torch yields the same numbers as the op, except for class_logits, which stands beside
F.cross_entropy: one of its eight outputs. The three are timed in turn, so that their ratios hold on a noisy machine;
medians are shown.

    python benchmarks/ops.py [--json benchmarks/results/ops.json]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from report import write_report
from torch import Tensor

from imbdyn import ops
from imbdyn.ops._library import IMPLEMENTATIONS, serving


class Case(NamedTuple):
    """Three functions of the same inputs."""

    floor: Callable[[], object]
    op: Callable[[], object]
    plain: Callable[[], object]


def moments(rows: int, columns: int, classes: int) -> Case:
    x, y = torch.randn(rows, columns), torch.randint(0, classes, (rows,))

    def plain() -> object:
        count = torch.bincount(y, minlength=classes)
        mean = x.new_zeros(classes, columns).index_add_(0, y, x) / count.clamp(min=1)[:, None]
        return count, mean, x.new_zeros(classes, columns).index_add_(0, y, (x - mean[y]).square_())

    return Case(x.sum, lambda: ops.class_moments(x, y, classes), plain)


def added_moments(rows: int, columns: int, classes: int) -> Case:
    fresh = moments(rows, columns, classes)
    x, y = torch.randn(rows, columns), torch.randint(0, classes, (rows,))
    so_far = ops.class_moments(x, y, classes)
    return fresh._replace(floor=x.sum, op=lambda: ops.add_class_moments(so_far, x, y))


def added_logits(rows: int, classes: int) -> Case:
    z, y = torch.randn(rows, classes), torch.randint(0, classes, (rows,))
    so_far = torch.zeros(8, classes, dtype=torch.float64)
    return Case(z.sum, lambda: ops.add_class_logits(so_far, z, y), lambda: F.cross_entropy(z, y))


def logits(rows: int, classes: int) -> Case:
    z, y = torch.randn(rows, classes), torch.randint(0, classes, (rows,))
    return Case(z.sum, lambda: ops.class_logits(z, y), lambda: F.cross_entropy(z, y))


def gram(rows: int, inputs: int, outputs: int, classes: int) -> Case:
    a, d, y = torch.randn(rows, inputs), torch.randn(rows, outputs), torch.randint(0, classes, (rows,))

    def plain() -> object:
        gradients = torch.stack([(d[y == c].T @ a[y == c]).flatten() for c in range(classes)])
        return gradients @ gradients.T, (a.square().sum(1) * d.square().sum(1))

    return Case(lambda: (a @ a.T, d @ d.T), lambda: ops.class_gram(a, d, y, classes), plain)


def resnet50_shapes() -> Iterator[tuple[int, ...]]:
    """Yield the shapes of the 161 parameters of ResNet-50 (He et al. 2016) for 1,000 classes."""

    def convolution(outputs: int, inputs: int, kernel: int) -> Iterator[tuple[int, ...]]:
        yield from ((outputs, inputs, kernel, kernel), (outputs,), (outputs,))  # and its BatchNorm

    yield from convolution(64, 3, 7)
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            yield from convolution(width, inputs, 1)
            yield from convolution(width, width, 3)
            yield from convolution(4 * width, width, 1)
            if block == 0:
                yield from convolution(4 * width, inputs, 1)
            inputs = 4 * width
    yield from ((1000, 2048), (1000,))


def norms() -> Case:
    params = [torch.randn(shape) for shape in resnet50_shapes()]
    grads = [torch.randn_like(w) for w in params]
    previous = [w - 1e-3 * g for w, g in zip(params, grads, strict=True)]
    classifier = len(params) - 2

    def four(w: list[Tensor], grad: list[Tensor], old: list[Tensor]) -> object:
        dw = torch._foreach_sub(w, old)
        return [torch._foreach_norm(t) for t in (w, grad, dw)], [t.sum() for t in torch._foreach_mul(w, dw)]

    def plain() -> object:
        rows = (list(tensors[classifier].unbind()) for tensors in (params, grads, previous))
        return four(params, grads, previous), four(*rows)

    return Case(
        lambda: [t.sum() for tensors in (params, grads, previous) for t in tensors],
        lambda: ops.parameter_norms(params, grads, previous, rows=classifier),
        plain,
    )


CASES: dict[str, Callable[[], Case]] = {
    "class_moments N 8192, D 2048, C 100": lambda: moments(8192, 2048, 100),
    "class_moments N 65536, D 512, C 10": lambda: moments(65536, 512, 10),
    "class_moments N 128, D 512, C 10": lambda: moments(128, 512, 10),
    "class_moments N 256, D 2048, C 1000": lambda: moments(256, 2048, 1000),
    "the same, added to moments that exist": lambda: added_moments(256, 2048, 1000),
    "class_logits N 4096, C 1000": lambda: logits(4096, 1000),
    "class_logits N 65536, C 10": lambda: logits(65536, 10),
    "class_logits N 128, C 10": lambda: logits(128, 10),
    "class_gram R 128, I 512, O 512, C 10": lambda: gram(128, 512, 512, 10),
    "class_gram R 256, I 1024, O 1024, C 100": lambda: gram(256, 1024, 1024, 100),
    "parameter_norms ResNet-50": norms,
    "class_moments of no rows (call alone)": lambda: moments(0, 1, 1),
    "class_logits of no rows (call alone)": lambda: logits(0, 1),
    "add_class_logits of no rows (call alone)": lambda: added_logits(0, 1),
}


def measure(case: Case, seconds: float) -> dict[str, float]:
    """Return median microseconds of the three, timed in turn for about `seconds`."""
    for function in case:
        function()
    times: dict[str, list[float]] = {name: [] for name in Case._fields}
    end = time.perf_counter() + seconds
    while len(times["op"]) < 5 or time.perf_counter() < end:
        for name, function in zip(Case._fields, case, strict=True):
            start = time.perf_counter()
            function()
            times[name].append(1e6 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each line (default: 2)")
    parser.add_argument("--json", type=Path, help="also write the medians to this file")
    options = parser.parse_args()
    torch.manual_seed(0)
    serves = {op: serving(op, "cpu").detail for op in sorted({i.op for i in IMPLEMENTATIONS})}
    for name, detail in serves.items():
        print(f"{name:<16}{detail}")
    results = {}
    print(f"\n{'':<42}{'op us':>10}{'/ floor':>10}{'/ plain':>10}")
    for name, make in CASES.items():
        r = results[name] = measure(make(), options.seconds)
        print(f"{name:<42}{r['op']:>10.0f}{r['op'] / r['floor']:>9.2f}x{r['op'] / r['plain']:>9.2f}x", flush=True)
    if options.json:
        write_report(options.json, serves=serves, median_us=results)


if __name__ == "__main__":
    main()
