"""A run of four classes that is written epoch by epoch, with recalls and shares that are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imbdyn.trace import TraceWriter

COUNTS = (120, 120, 6, 6)
#: Sampled steps of an epoch.
STEPS = 2


class GrowingRun:
    def __init__(self, path: Path, counts: Sequence[int] = COUNTS) -> None:
        self.classes, self.epochs = len(counts), 0
        self.writer = TraceWriter(path, flush_seconds=1000)
        self.writer.update_run(
            num_classes=self.classes,
            class_names=[f"c{c}" for c in range(self.classes)],
            class_counts=list(counts),
            config=None,
            overhead={"share": None, "sampled_steps": 0, "steps": 0},
        )
        self.writer.flush()  # run.json too

    def epoch(self, recall: Sequence[float], shares: Sequence[float], absent: Sequence[int] = ()) -> None:
        """Write an epoch: train recall, half of it on the test data, and shares in each sampled step."""
        self.epochs += 1
        ids = np.arange(self.classes)
        seen = np.setdiff1d(ids, absent)
        for step in (STEPS * self.epochs - 1, STEPS * self.epochs):
            key = {"step": step, "parameter": "*", "class_id": seen, "count": 1}
            self.writer.append("class_gradients", **key, grad_norm=1.0, grad_share=np.asarray(shares)[seen])
            self.writer.commit()
        for split, factor in (("train_eval", 1.0), ("test", 0.5)):
            key = {"step": step, "since_step": step, "epoch": self.epochs, "split": split, "class_id": ids}
            self.writer.append("classes", **key, count=100, accuracy=np.asarray(recall) * factor)
        self.writer.commit()
