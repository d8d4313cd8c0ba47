"""Does class_gram choose the cheapest of its ways?

Every way that a shape admits is timed on this machine, one after the other, several times round; a way counts with its
fastest round, which other programs disturb least. `chosen / best` is the time of the way that the op chooses by itself
over that of the fastest way. A way that would need too long, or 20 times the multiply-adds of another, is not run:
its count alone excludes it. Linear layers: R rows, I inputs, O outputs, C classes, L rows in each sample.

    python benchmarks/class_gram_ways.py [--json benchmarks/results/class_gram_ways.json]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from imbdyn.bench.report import write_report
from imbdyn.ops.class_gram.cpu import WAYS, class_gram_conv_cpu, rows_gram, sliding_gram, unfolded_gram

#: Multiply-adds above which a way is not run: about half a second of two cores.
MOST = 2e10
#: Times as many rounds where the choice does not look like the best.
MORE_ROUNDS = 8
#: Elements above which a shape is left out: 1 GiB.
MOST_ELEMENTS = 1 << 28


class Case(NamedTuple):
    """One shape: the op's own choice, and each way with its count of multiply-adds."""

    name: str
    chosen: Callable[[], object]
    ways: dict[str, tuple[float, Callable[[], object]]]


def linear(rows: int, inputs: int, outputs: int, classes: int, length: int) -> Case:
    a, d = torch.randn(rows, inputs), torch.randn(rows, outputs)
    labels = torch.randint(0, classes, (rows // length,)).repeat_interleave(length)
    samples = None if length == 1 else torch.arange(rows) // length
    present, size = labels.unique().numel(), inputs * outputs
    products = rows * size + present**2 / 2 * size
    counts = {
        "gram": rows**2 / 2 * (inputs + outputs),
        "direct": products + rows * length / 2 * (inputs + outputs),
        "sample": products + rows // length * size * 8,  # a sample's gradient is squared and added
    }

    def force(way: str) -> Callable[[], object]:
        return lambda: rows_gram(a, d, labels, classes, samples, -100, True, bias=False, way=way)

    return Case(
        f"linear R {rows}, I {inputs}, O {outputs}, C {classes}, L {length}",
        force("cheapest"),
        {way: (counts[way], force(way)) for way in WAYS if way != "cheapest"},
    )


def convolution(images: int, inputs: int, outputs: int, size: int, kernel: int, stride: int, classes: int) -> Case:
    padding = kernel // 2
    out = (size + 2 * padding - kernel) // stride + 1
    x, d = torch.randn(images, inputs, size, size), torch.randn(images, outputs, out, out)
    labels = torch.randint(0, classes, (images,))
    rows, columns = images * out * out, inputs * kernel * kernel
    geometry = ([kernel] * 2, [stride] * 2, [padding] * 2, [1, 1])

    return Case(
        f"convolution N {images}, {inputs} to {outputs} channels, {size} x {size}, kernel {kernel}, stride {stride}, "
        f"C {classes}",
        lambda: class_gram_conv_cpu(x, d, labels, classes, *geometry, 1, -100),
        {
            "gram": (
                rows**2 / 2 * (columns + outputs),
                lambda: unfolded_gram(x, d, labels, classes, *geometry, -100, True),
            ),
            "sample": (
                (rows + labels.unique().numel() ** 2 / 2) * columns * outputs,
                lambda: sliding_gram(x, d, labels, classes, *geometry, 1, -100, True),
            ),
        },
    )


def resnet32(images: int, classes: int) -> Iterator[Case]:
    for inputs, outputs, size, kernel, stride in (
        (3, 16, 32, 3, 1), (16, 16, 32, 3, 1), (16, 32, 32, 3, 2), (32, 32, 16, 3, 1), (32, 64, 16, 3, 2),
        (64, 64, 8, 3, 1), (16, 32, 32, 1, 2), (32, 64, 16, 1, 2),
    ):  # fmt: skip
        yield convolution(images, inputs, outputs, size, kernel, stride, classes)


def resnet50(images: int, classes: int) -> Iterator[Case]:
    yield convolution(images, 3, 64, 224, 7, 2, classes)
    inputs, size = 64, 56
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        yield convolution(images, inputs, width, size, 1, 1, classes)
        yield convolution(images, width, width, size, 3, stride, classes)
        yield convolution(images, inputs, 4 * width, size, 1, stride, classes)
        inputs, size = 4 * width, size // stride
        yield convolution(images, width, inputs, size, 1, 1, classes)


def grid() -> Iterator[Case]:
    for rows in (32, 256, 4096, 65_536):
        for inputs, outputs in ((16, 16), (64, 512), (256, 256), (1024, 1024), (4096, 16), (4096, 4096)):
            for classes in (2, 10, 100, 1000):
                for length in (1, 128) if rows >= 256 else (1,):
                    if rows * (inputs + outputs) <= MOST_ELEMENTS:
                        yield linear(rows, inputs, outputs, classes, length)
    for images, classes in ((128, 10), (128, 100), (8, 10)):
        yield from resnet32(images, classes)
    for images, classes in ((4, 1000), (32, 1000)):
        yield from resnet50(images, classes)


def measure(case: Case, seconds: float) -> dict[str, object] | None:
    """Return milliseconds of the chosen way and of each that is run, and their ratio; None if none is run."""
    least = min(count for count, _ in case.ways.values())
    ways = {way: f for way, (count, f) in case.ways.items() if count <= min(MOST, 20 * least + 1e7)}
    if not ways:
        return None
    functions = {"chosen": case.chosen, **ways}
    fastest = dict.fromkeys(functions, float("inf"))
    begin, rounds, best = time.perf_counter(), 0, ""
    order = list(functions)
    while True:
        random.shuffle(order)  # whoever comes first finds the caches as the others have left them
        for name in order:
            start = time.perf_counter()
            functions[name]()
            fastest[name] = min(fastest[name], 1e3 * (time.perf_counter() - start))
        rounds += 1
        best = min(ways, key=fastest.__getitem__)
        # a disturbance passes, a wrong choice stays: what looks like one is given more rounds
        patience = 1 if fastest["chosen"] <= 1.1 * fastest[best] else MORE_ROUNDS
        if rounds >= 2 * patience and (time.perf_counter() > begin + patience * seconds or rounds >= 200 * patience):
            return {"ms": fastest, "best": best, "chosen_over_best": fastest["chosen"] / fastest[best]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.15, help="time for each shape (default: 0.15)")
    parser.add_argument("--every", type=int, default=1, help="take only every so many-th shape (default: all)")
    parser.add_argument("--json", type=Path, help="also write the times to this file")
    options = parser.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    results: dict[str, object] = {}
    ratios: list[float] = []
    for number, case in enumerate(grid()):
        if number % options.every:
            continue
        result = measure(case, options.seconds)
        if result is None:
            print(f"{case.name}: every way is too long to run", flush=True)
            continue
        results[case.name] = result
        ratios.append(float(str(result["chosen_over_best"])))
        print(f"{case.name:<84}{result['best']!s:<8}{ratios[-1]:>6.2f}x", flush=True)
    within = sum(r <= 1.2 for r in ratios)
    print(f"\nchosen / best: median {statistics.median(ratios):.2f}x, worst {max(ratios):.2f}x; "
          f"{within} of {len(ratios)} shapes within 1.2x")  # fmt: skip
    if options.json:
        write_report(options.json, ways=results, within_1_2=within, shapes=len(ratios))


if __name__ == "__main__":
    main()
