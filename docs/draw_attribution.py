"""Draw docs/attribution.png: what a class is given by rows and by its loss, with BatchNorm and without.

    python docs/draw_attribution.py docs/attribution.png

Two networks that differ in their normalisation only are trained on long-tailed handwritten digits; then one batch is
read by `Monitor` (by rows) and by `imbdyn.reference.class_gradients` (by loss).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imbdyn
from imbdyn.experiments.data.digits import Digits
from imbdyn.reference import class_gradients

CLASSES, RATIO, EPOCHS = 10, 20, 6
BY_ROWS, BY_LOSS = "#3b6ea5", "#c1440e"


class ByBoth(NamedTuple):
    """||G_c|| of all parameters together and its cosine with the step's gradient, [C] each."""

    rows_norm: np.ndarray
    loss_norm: np.ndarray
    rows_cos: np.ndarray
    loss_cos: np.ndarray


def network(norm: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), norm(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), norm(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, CLASSES)),
    )


def long_tailed() -> tuple[Tensor, Tensor]:
    """Digits whose class counts fall exponentially, the last class having 1/RATIO of the first."""
    data = Digits().load(seed=0).train
    most = int(data.labels.bincount().min())
    kept = [(data.labels == c).nonzero()[: round(most * RATIO ** (-c / (CLASSES - 1))), 0] for c in range(CLASSES)]
    index = torch.cat(kept)
    return data.take(index), data.labels[index]


def read(norm: type[nn.Module]) -> ByBoth:
    images, labels = long_tailed()
    model = network(norm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    optimizer.zero_grad()

    losses = F.cross_entropy(model(images), labels, reduction="none") / len(labels)
    by_loss = class_gradients(losses, labels, CLASSES, model.named_parameters())
    g = torch.cat([each.flatten(1) for each in by_loss.values()], 1).double()
    with tempfile.TemporaryDirectory() as folder:
        with imbdyn.Monitor(model, optimizer, CLASSES, Path(folder) / "run", interval=1) as monitor:
            with monitor.batch(labels):
                F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        rows = imbdyn.open_trace(Path(folder) / "run").class_gradients.query("parameter == '*'")
    return ByBoth(
        rows.grad_norm.to_numpy(),
        g.norm(dim=1).numpy(),
        rows.grad_cos_total.to_numpy(),
        F.cosine_similarity(g, g.sum(0)[None]).numpy(),
    )


def main(picture: Path) -> None:
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 9.5, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    width, place = 0.38, np.arange(CLASSES)
    for axis, (title, norm) in zip(
        axes,
        {"GroupNorm: samples do not mix": lambda c: nn.GroupNorm(4, c), "BatchNorm": nn.BatchNorm2d}.items(),
        strict=False,
    ):
        both = read(norm)
        axis.bar(place - width / 2, both.rows_norm, width, color=BY_ROWS, label="by rows (Monitor)")
        axis.bar(place + width / 2, both.loss_norm, width, color=BY_LOSS, label="by loss (a backward a class)")
        apart = np.abs(both.rows_norm - both.loss_norm).max() / both.loss_norm.sum()
        axis.set(title=f"{title}: at most {apart:.0e} apart", xlabel="class, from many to few samples", xticks=place)
    axes[0].set_ylabel("norm of the class gradient")
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    axes[2].bar(place - width / 2, both.rows_cos, width, color=BY_ROWS)
    axes[2].bar(place + width / 2, both.loss_cos, width, color=BY_LOSS)
    axes[2].axhline(0, color="black", lw=0.6)
    axes[2].set(title="BatchNorm: cosine with the step's gradient", xlabel="class", xticks=place)
    figure.savefig(picture, dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
