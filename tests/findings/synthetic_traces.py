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


def write_rows(
    path: Path,
    counts: Sequence[int],
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    rare: Sequence[int] | None = None,
    method: str | None = None,
) -> Trace:
    """Write a trace of what is given: rows of tables, as `TraceWriter.append` takes them."""
    config = {"rare_classes": rare, "method": method}
    writer = TraceWriter(path)
    writer.update_run(
        num_classes=len(counts),
        class_names=[str(c) for c in range(len(counts))],
        class_counts=list(counts),
        config={key: value for key, value in config.items() if value is not None},
    )
    for table, columns in rows:
        writer.append(table, **columns)
    writer.close("finished")
    return open_trace(path)


def class_rows(step: int, split: str = "train_eval", **columns: Any) -> tuple[str, dict[str, Any]]:
    """Rows of `classes`, one for each value of a column; a count of 1 unless given."""
    number = max(np.size(values) for values in columns.values())
    columns = {"since_step": step, "count": 1, **columns}
    return "classes", {"step": step, "split": split, "class_id": np.arange(number), **columns}


def gradient_rows(step: int, gradients: Sequence[Sequence[float]]) -> list[tuple[str, dict[str, Any]]]:
    """Rows of `class_gradients` and `class_gradient_pairs` of the whole network, from the class gradients [C, P]."""
    g = np.asarray(gradients, dtype=float)
    classes, norm, total = len(g), np.linalg.norm(g, axis=1), g.sum(0)
    with np.errstate(invalid="ignore"):
        along = np.ma.masked_invalid(g @ total / (norm * np.linalg.norm(total)))
    a, b = np.triu_indices(classes, 1)
    return [
        (
            "class_gradients",
            {
                "step": step,
                "parameter": "*",
                "class_id": np.arange(classes),
                "count": 1,
                "grad_norm": norm,
                "grad_cos_total": along,
            },
        ),
        (
            "class_gradient_pairs",
            {
                "step": step,
                "parameter": "*",
                "class_a": a,
                "class_b": b,
                "grad_cos": (g @ g.T)[a, b] / norm[a] / norm[b],
            },
        ),
    ]


def geometry_rows(rows: np.ndarray, means: np.ndarray, step: int = 10) -> list[tuple[str, dict[str, Any]]]:
    """What an evaluation says of the classifier's rows [C, D] and of the class means [C, D], centred here."""
    classes = len(rows)
    a, b = np.triu_indices(classes, 1)
    key = {"step": step, "split": "train_eval"}
    centred = means - means.mean(0)
    length, spread = np.linalg.norm(rows, axis=1), np.linalg.norm(centred, axis=1)
    cosines = {
        "row_cos": (rows @ rows.T)[a, b] / (length[a] * length[b]),
        "mean_cos": (centred @ centred.T)[a, b] / (spread[a] * spread[b]),
    }
    ids = np.arange(classes)
    return [
        ("features", {**key, "layer": "head", "count": [classes]}),
        ("class_features", {**key, "layer": "head", "class_id": ids, "count": 1, "centred_norm": spread}),
        ("class_feature_pairs", {**key, "layer": "head", "class_a": a, "class_b": b, **cosines}),
        ("classifier", {**key, "class_id": ids, "row_norm": length}),
    ]


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
