"""Traces with rows in every table, written by hand: what figures and pages are tested on.

The numbers are smooth made-up curves; those that tests compare with are functions here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imbdyn.trace import Trace, TraceWriter, open_trace

PARAMETERS = ("conv.weight", "conv.bias", "head.weight")
SPLITS = ("train_eval", "test")


def recall(epoch: int, classes: int, split: str) -> np.ndarray:
    """Recall [classes]: later for later classes, and lower on held-out data."""
    fitted = 1 - np.exp(-epoch / (1 + np.arange(classes) / classes * 8))
    return fitted * (1.0 if split == "train_eval" else 0.6)


def grad_norm(step: int, classes: int) -> np.ndarray:
    """||G_c|| [classes] of the whole network; those of the parameters are half of it."""
    return (1 + np.arange(classes) / classes) / np.sqrt(step)


def grad_share(step: int, classes: int) -> np.ndarray:
    """Shares [classes] that sum to 1."""
    weights = 1.0 + (np.arange(classes) + step) % 3
    return weights / weights.sum()


def grad_cos(step: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines of pairs, negative for odd sums of class ids."""
    return np.where((first + second) % 2, -0.5, 0.25) + step * 1e-4


def write_full(
    path: Path,
    counts: Sequence[int],
    *,
    epochs: int = 5,
    steps_per_epoch: int = 10,
    sampled_every: int = 5,
    class_names: Sequence[str] | None = None,
    config: dict[str, Any] | None = None,
    test_factor: float = 1.0,
    present: int | None = None,
    says_epoch: bool = True,
    **run: Any,
) -> Trace:
    """Write a trace of `len(counts)` classes, of which `present` random ones are in a step (default: all)."""
    classes = len(counts)
    ids = np.arange(classes)
    generator = np.random.default_rng(0)
    writer = TraceWriter(path)
    sampled_steps = 0
    last = epochs * steps_per_epoch
    sampled, evaluated = (range(every, last + 1, every) for every in (sampled_every, steps_per_epoch))
    for step in sorted({*sampled, *evaluated}):
        epoch = (step - 1) // steps_per_epoch + 1 if says_epoch else None
        if step % sampled_every == 0:
            sampled_steps += 1
            seen = ids if present is None else np.sort(generator.choice(classes, present, replace=False))
            _append_step(writer, step, epoch, step - sampled_every, counts, seen)
        if step % steps_per_epoch == 0:
            for split in SPLITS:
                _append_evaluation(writer, step, epoch, split, counts, test_factor)
        writer.commit()
    writer.update_run(
        **{
            "num_classes": classes,
            "class_names": list(class_names or [f"c{c}" for c in ids]),
            "class_counts": list(counts),
            "config": config,
            "overhead": {"share": 0.01, "sampled_steps": sampled_steps, "steps": last},
            "versions": {"torch": "2"},
            "mixing_layers": [],
            "classifier": "head",
            "problems": {},
            "seed": 7,
            "coverage": {
                "share": 1.0,
                "parameters": {p: {"covered": True, "rule": "linear", "reason": None} for p in PARAMETERS},
            },
            **run,
        }
    )
    writer.close("finished")
    return open_trace(path)


def _append_step(
    writer: TraceWriter, step: int, epoch: int | None, since: int, counts: Sequence[int], seen: np.ndarray
) -> None:
    classes, moment = len(counts), {"step": step, "epoch": epoch, "since_step": since, "split": "train"}
    writer.append(
        "steps", **moment, count=8, loss=1 / step, accuracy=0.9, balanced_accuracy=0.5, sampled=True, lr=0.1
    )  # fmt: skip
    known = recall(epoch or 1, classes, "train_eval")[seen]
    writer.append("classes", **moment, class_id=seen, count=2, accuracy=known, loss=2 - known, margin=known - 0.5)
    for name, scale in (("*", 1.0), *((name, 0.5) for name in PARAMETERS)):
        writer.append(
            "class_gradients",
            step=step,
            parameter=name,
            class_id=seen,
            count=2,
            grad_norm=scale * grad_norm(step, classes)[seen],
            grad_cos_total=0.5,
            grad_share=grad_share(step, len(seen)),
            grad_noise=3.0,
        )
    first, second = np.triu_indices(len(seen), 1)
    first, second = seen[first], seen[second]
    for name in ("*", "head.weight"):
        writer.append(
            "class_gradient_pairs",
            step=step,
            parameter=name,
            class_a=first,
            class_b=second,
            grad_cos=grad_cos(step, first, second),
        )
    writer.append(
        "parameters",
        step=step,
        parameter=list(PARAMETERS),
        weight_norm=[1.0, 0.1, 2.0],
        grad_norm=0.5,
        update_norm=0.01,
        update_ratio=[0.01, 0.1, 0.005],
        residual=1e-7,
    )
    norms = _row_norm(counts, step)
    writer.append("classifier", step=step, split="train", class_id=np.arange(classes), row_norm=norms)


def _append_evaluation(
    writer: TraceWriter, step: int, epoch: int | None, split: str, counts: Sequence[int], factor: float
) -> None:
    classes, moment = len(counts), {"step": step, "epoch": epoch, "since_step": step, "split": split}
    known = recall(epoch or 1, classes, split) * (factor if split == "test" else 1.0)
    ids, mean = np.arange(classes), float(known.mean())
    writer.append("steps", **moment, count=100, loss=2 - mean, accuracy=mean, balanced_accuracy=mean)
    writer.append("classes", **moment, class_id=ids, count=20, accuracy=known, loss=2 - known, margin=known - 0.5)
    key = {"step": step, "split": split, "layer": "head"}
    writer.append("features", **key, count=100, nc1=1 / step, nc2_norm=0.5, nc2_angle=0.4, nc3=0.3, nc4=0.2)
    shift = None if split == "train_eval" else 1.0 + ids / classes
    writer.append("class_features", **key, class_id=ids, count=20, within_var=2.0 + known, train_test_shift=shift)
    norms = _row_norm(counts, step)
    writer.append("classifier", step=step, split=split, class_id=ids, row_norm=norms, cos_class_mean=known)


def _row_norm(counts: Sequence[int], step: int) -> np.ndarray:
    return np.log1p(np.asarray(counts, dtype=float)) * (1 + step / 1000)
