"""Draw the README's picture from the traces of `imbdyn run`.

python docs/draw_default_run.py runs/default-seed0 docs/default-run.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import imbdyn

RARE, COMMON = "#c1440e", "#3b6ea5"  # told apart by colour-blind readers, and in grey


def recall(axes: Axes, trace: imbdyn.Trace, rare: list[int], split: str, style: str) -> None:
    classes = trace.classes[trace.classes.split == split]
    for group, colour in ((False, COMMON), (True, RARE)):
        rows = classes[classes.class_id.isin(rare) == group]
        mean = rows.groupby("epoch").accuracy.mean()
        where = "test" if split == "test" else "train"
        axes.plot(mean.index, mean, style, color=colour, lw=1.6, label=f"{'rare' if group else 'other'} five, {where}")


def gradient_norms(axes: Axes, trace: imbdyn.Trace, rare: list[int]) -> None:
    whole = trace.class_gradients[trace.class_gradients.parameter == "*"]
    epoch = trace.steps.query("split == 'train'").set_index("step").epoch
    whole = whole.assign(epoch=whole.step.map(epoch), rare=whole.class_id.isin(rare))
    for group, colour in ((False, COMMON), (True, RARE)):
        per_sample = whole[whole.rare == group]
        mean = (per_sample.grad_norm / per_sample["count"]).groupby(per_sample.epoch).mean()
        axes.plot(mean.index, mean, color=colour, lw=1.6)
    axes.set_yscale("log")


def main(folder: Path, picture: Path) -> None:
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 9.5, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 4, figsize=(12.5, 2.9), layout="constrained")
    titles = {
        "balanced": "balanced",
        "imbalanced": "imbalanced: rare five cut to 1/{ratio:g}",
        "scarce": "scarce: all ten cut to 1/{ratio:g}",
    }
    for name, axis in zip(titles, axes, strict=False):
        trace = imbdyn.open_trace(folder / name)
        rare = trace.run["config"]["rare_classes"]
        ratio = trace.run["config"]["experiment"]["imbalance"]["ratio"]
        recall(axis, trace, rare, "train_eval", "-")
        recall(axis, trace, rare, "test", ":")
        axis.set(title=titles[name].format(ratio=ratio), xlabel="epoch", ylim=(0, 1.03))
        if name == "imbalanced":
            gradient_norms(axes[3], trace, rare)
    axes[0].set_ylabel("recall (mean of five classes)")
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    axes[3].set(title="imbalanced: gradient norm / samples", xlabel="epoch", ylabel="class gradient / n (mean of five)")
    figure.savefig(picture, dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
