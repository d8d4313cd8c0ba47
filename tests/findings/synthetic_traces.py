"""Traces with known recalls, written by hand: what findings and reports are tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imbdyn.trace import Trace, TraceWriter, open_trace

TEST_COUNT = 100
STEPS_PER_EPOCH = 10


def curve_reaching(epoch: int | None, epochs: int) -> list[float]:
    """Recall 0 before `epoch` (counted from 1) and 1 from then on; always 0 for None."""
    return [float(epoch is not None and e >= epoch) for e in range(1, epochs + 1)]


def write_trace(
    path: Path,
    counts: Sequence[int],
    train: Sequence[Sequence[float]],
    test: Sequence[float] | None = None,
    *,
    split: str = "train_eval",
    held_out: str = "test",
    config: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    class_counts: Sequence[int] | None = (),
    status: str = "finished",
) -> Trace:
    """Write a trace whose class c has `counts[c]` training samples and train recall `train[c][e - 1]` at epoch e.

    Test recall is that of `test` at the last epoch and 0 before. `class_counts` other than () stand for `counts` in
    run.json.
    """
    classes, epochs = len(counts), len(train[0])
    writer = TraceWriter(path)
    writer.update_run(
        num_classes=classes,
        class_names=list(class_names or [str(c) for c in range(classes)]),
        class_counts=list(counts) if class_counts == () else class_counts,
        config=dict(config) if config is not None else None,
        overhead={"share": 0.125, "sampled_steps": epochs, "steps": epochs * STEPS_PER_EPOCH},
    )
    for epoch in range(1, epochs + 1):
        step = epoch * STEPS_PER_EPOCH
        key = {"step": step, "epoch": epoch, "class_id": np.arange(classes)}
        since = step - STEPS_PER_EPOCH if split == "train" else step
        recall = np.array([curve[epoch - 1] for curve in train])
        writer.append("classes", **key, split=split, since_step=since, count=list(counts), accuracy=recall)
        if test is not None:
            recall = np.array(test) if epoch == epochs else np.zeros(classes)
            writer.append("classes", **key, split=held_out, since_step=step, count=TEST_COUNT, accuracy=recall)
        writer.append(
            "class_gradients",
            step=step,
            parameter=np.repeat(["*", "head.weight"], classes),
            class_id=np.tile(np.arange(classes), 2),
            count=1,
            grad_norm=np.concatenate([np.full(classes, float(epoch)), np.full(classes, 99.0)]),
        )
        norms = np.arange(classes) + epoch / 100
        writer.append("classifier", step=step, split="train", class_id=np.arange(classes), row_norm=norms)
    writer.close(status)
    return open_trace(path)
