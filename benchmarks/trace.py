"""What does the trace cost, beside TensorBoard's SummaryWriter and W&B offline?

One step's values are handed over again and again: those of a model with 10 classes and 8 layers that is read in full,
and 30,000 values (5,000 rows of six numbers). Timed is the training thread: from the first call of a step until the
last has returned, which for imbdyn means that the step is in the journal. TensorBoard and W&B get a scalar a value, the
only form in which they can be asked for one again. The ways are timed in turn, so that their ratios hold on a noisy
machine; medians are shown.

Then 2,000 steps of the model are written and closed, and the trace's bytes on disk are set against the raw values: 8
bytes a number, 4 a class, the UTF-8 of every name. The numbers are noise of float32 precision, as those of a training
are.

    python benchmarks/trace.py [--json benchmarks/results/trace.json]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from imbdyn.bench.report import write_report
from imbdyn.trace import Names, Nullable, TraceWriter

Step = dict[str, dict[str, Any]]
#: Writes the values of one step.
Write = Callable[[int], None]

CLASSES, LAYERS = 10, 8
STEPS_ON_DISK = 2_000


def step_of_a_model(random: np.random.Generator) -> Step:
    """The rows of a sampled step of 10 classes and 8 layers with weight and bias."""
    parameters = [f"layers.{layer}.{kind}" for layer in range(LAYERS) for kind in ("weight", "bias")]
    groups = [*parameters, "*"]
    pairs = np.array(np.triu_indices(CLASSES, 1), np.int32)

    def reals(n: int) -> Any:
        return random.normal(size=n)

    def some(n: int) -> Nullable:
        return Nullable(reals(n), random.random(n) < 0.9)

    every = CLASSES * len(groups)
    key = {"since_step": 0, "epoch": 1, "split": "train"}
    count = np.arange(CLASSES)
    return {
        "parameters": {
            "parameter": parameters,
            **{name: reals(len(parameters)) for name in ("weight_norm", "grad_norm", "update_norm")},
            **{name: some(len(parameters)) for name in ("update_ratio", "cos_weight_update", "rotation", "residual")},
        },
        "class_gradients": {
            "parameter": Names.repeat(groups, CLASSES),
            "class_id": np.tile(np.arange(CLASSES, dtype=np.int32), len(groups)),
            "count": np.tile(count, len(groups)),
            **{name: reals(every) for name in ("grad_norm", "sample_norm_sq")},
            **{name: some(every) for name in ("grad_cos_total", "grad_share", "grad_noise")},
        },
        "class_gradient_pairs": {
            "parameter": Names.repeat(groups, pairs.shape[1]),
            "class_a": np.tile(pairs[0], len(groups)),
            "class_b": np.tile(pairs[1], len(groups)),
            "grad_cos": some(pairs.shape[1] * len(groups)),
        },
        "classifier": {
            "split": "train",
            "class_id": np.arange(CLASSES, dtype=np.int32),
            **{name: reals(CLASSES) for name in ("row_norm", "bias", "row_update_norm", "row_rotation")},
        },
        "steps": {
            **key,
            "count": 128,
            **dict.fromkeys(("loss", "accuracy", "balanced_accuracy", "grad_norm", "lr"), 0.5),
            **dict.fromkeys(("step_seconds", "overhead_seconds", "grad_scale"), 0.5),
            "sampled": True,
            "batches": 1,
            "gradient_batches": 1,
        },
        "classes": {
            **key,
            "class_id": np.arange(CLASSES, dtype=np.int32),
            "count": count,
            "predicted": count,
            **{name: some(CLASSES) for name in ("loss", "accuracy", "precision", "margin", "confidence")},
            **{name: reals(CLASSES) for name in ("positive_grad", "negative_grad")},
        },
    }


def step_of_many_values(random: np.random.Generator) -> Step:
    """30,000 values: 5,000 rows of six numbers."""
    classes, parameters = 100, 50
    rows = classes * parameters
    names = ("grad_norm", "grad_cos_total", "grad_share", "sample_norm_sq", "grad_noise")
    return {
        "class_gradients": {
            "parameter": Names.repeat([f"layers.{i}.weight" for i in range(parameters)], classes),
            "class_id": np.tile(np.arange(classes, dtype=np.int32), parameters),
            "count": np.tile(np.arange(classes), parameters),
            **{name: random.normal(size=rows) for name in names},
        }
    }


STEPS = {
    "10 classes, 8 layers, one step": step_of_a_model,
    "30,000 values": step_of_many_values,
}


def scalars(step: Step) -> Iterator[tuple[str, float]]:
    """Yield tag and value of every number of a step that is no part of a key."""
    for table, columns in step.items():
        for name, value in columns.items():
            if name in ("parameter", "class_id", "class_a", "class_b", "split", "since_step", "epoch"):
                continue
            values = value.values if isinstance(value, Nullable) else np.atleast_1d(value)
            for row, number in enumerate(values.tolist()):
                yield f"{table}/{name}/{row}", float(number)


@contextmanager
def imbdyn_writer(step: Step, folder: Path) -> Iterator[Write]:
    writer = TraceWriter(folder / "imbdyn")

    def write(number: int) -> None:
        for table, columns in step.items():
            writer.append(table, step=number, **columns)
        writer.commit()

    yield write
    writer.close("finished")


@contextmanager
def tensorboard_writer(step: Step, folder: Path) -> Iterator[Write]:
    from torch.utils.tensorboard import SummaryWriter

    tagged = list(scalars(step))
    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def write(number: int) -> None:
            for tag, value in tagged:
                writer.add_scalar(tag, value, number)

        yield write


@contextmanager
def wandb_writer(step: Step, folder: Path) -> Iterator[Write]:
    import wandb

    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    values = dict(scalars(step))
    run = wandb.init(dir=str(folder), project="benchmark")
    yield lambda number: run.log(values, step=number)
    run.finish()


WAYS = {"imbdyn": imbdyn_writer, "tensorboard": tensorboard_writer, "wandb": wandb_writer}


def installed() -> list[str]:
    """Return the ways that can be timed here, and say which cannot."""
    found = []
    for way in WAYS:
        if way == "imbdyn" or importlib.util.find_spec(way) is not None:
            found.append(way)
        else:
            print(f"{way} is not installed: not timed")
    return found


def milliseconds(step: Step, ways: list[str], seconds: float) -> dict[str, dict[str, float]]:
    """Return median and 99th percentile of a step of each way, timed in turn for about `seconds`."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        writes = {way: stack.enter_context(WAYS[way](step, Path(folder))) for way in ways}
        for write in writes.values():
            write(0)
        end = time.perf_counter() + seconds
        number = 0
        while number < 5 or time.perf_counter() < end:
            for way, write in writes.items():
                for _ in range(100 if way == "imbdyn" else 1):  # the others take hundreds of times as long
                    number += 1
                    start = time.perf_counter()
                    write(number)
                    times[way].append(1e3 * (time.perf_counter() - start))
    return {
        way: {"median_ms": statistics.median(t), "p99_ms": float(np.percentile(t, 99)), "steps": len(t)}
        for way, t in times.items()
    }


def raw_bytes(step: Step) -> int:
    """Return the bytes of a step's values as they are: those of keys, numbers and names, absent ones included."""
    total = 0
    for columns in step.values():
        arrays = [v.values if isinstance(v, Nullable) else v for v in columns.values()]
        rows = max((len(v) for v in arrays if isinstance(v, np.ndarray)), default=1)
        total += 8 * rows  # the step
        for value in arrays:
            if isinstance(value, Names):
                total += len(value.cell.data)
            elif isinstance(value, np.ndarray):
                total += value.nbytes
            else:
                total += len("".join(value)) if isinstance(value, list) else 8 * rows
    return total


def on_disk(step: Step, seed: int) -> dict[str, float]:
    """Write STEPS_ON_DISK steps, new numbers in each, and compare the bytes of the closed trace with the raw ones."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        writer = TraceWriter(Path(folder) / "run")
        start = time.perf_counter()
        for number in range(STEPS_ON_DISK):
            for table, columns in step.items():
                fresh = {name: _anew(value, random) for name, value in columns.items()}
                writer.append(table, step=number, **fresh)
            writer.commit()
        writer.close("finished")
        seconds = time.perf_counter() - start
        files = [path for path in writer.path.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
    raw = raw_bytes(step) * STEPS_ON_DISK
    return {"raw_mb": raw / 1e6, "disk_mb": size / 1e6, "ratio": size / raw, "files": len(files), "seconds": seconds}


def _anew(value: Any, random: np.random.Generator) -> Any:
    """Return other numbers in the place of float64 ones, as noisy as those of a training: float32 precision."""
    if isinstance(value, Nullable):
        return Nullable(_anew(value.values, random), value.valid)
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return random.normal(size=len(value)).astype(np.float32).astype(np.float64)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each line (default: 10)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    ways = installed()
    results = {}
    print(f"\n{'':<34}{'way':<14}{'median ms':>10}{'p99 ms':>10}{'x imbdyn':>10}{'steps':>8}")
    for name, make in STEPS.items():
        found = results[name] = milliseconds(make(np.random.default_rng(0)), ways, options.seconds)
        for way, r in found.items():
            ratio = r["median_ms"] / found["imbdyn"]["median_ms"]
            print(f"{name:<34}{way:<14}{r['median_ms']:>10.3f}{r['p99_ms']:>10.3f}{ratio:>10.1f}{r['steps']:>8}")
    disk = on_disk(step_of_a_model(np.random.default_rng(0)), seed=1)
    print(
        f"\n{STEPS_ON_DISK} steps: {disk['disk_mb']:.1f} MB on disk in {disk['files']} files, "
        f"{disk['ratio']:.2f} of the raw {disk['raw_mb']:.1f} MB"
    )
    if options.json:
        write_report(options.json, ms_of_a_step=results, on_disk=disk)


if __name__ == "__main__":
    main()
