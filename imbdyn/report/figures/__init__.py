"""The figures of a run, one file each: which columns, in which units, what stands out and what is thinned.

The page and matplotlib draw the same `Chart` of the same figure. A new one is a file here, and its name in `SECTIONS`.
"""

from __future__ import annotations

from imbdyn.report.figures import (
    classifier_alignment,
    classifier_norms,
    feature_drift,
    feature_spread,
    gap,
    gradient_cosines,
    gradient_noise,
    gradient_norms,
    gradient_per_sample,
    gradient_shares,
    loss,
    margin,
    neural_collapse,
    norms_and_counts,
    progress,
    recall,
    residual,
    train_test,
    update_ratios,
    weight_norms,
)
from imbdyn.report.figures.chart import Chart, Lines, Matrix, NothingToDrawError, Spans
from imbdyn.report.figures.figure import Figure
from imbdyn.report.figures.source import Source

#: The figures in the order in which they are shown, by the heading that they stand under.
SECTIONS: dict[str, tuple[Figure, ...]] = {
    "Learning": (progress.FIGURE, recall.FIGURE, train_test.FIGURE, gap.FIGURE, loss.FIGURE, margin.FIGURE),
    "Gradients": (
        gradient_norms.FIGURE,
        gradient_per_sample.FIGURE,
        gradient_shares.FIGURE,
        gradient_cosines.FIGURE,
        gradient_noise.FIGURE,
    ),
    "Features": (neural_collapse.FIGURE, feature_spread.FIGURE, feature_drift.FIGURE),
    "Classifier": (classifier_norms.FIGURE, norms_and_counts.FIGURE, classifier_alignment.FIGURE),
    "Weights": (weight_norms.FIGURE, update_ratios.FIGURE),
    "Exactness": (residual.FIGURE,),
}

FIGURES: dict[str, Figure] = {figure.name: figure for section in SECTIONS.values() for figure in section}

__all__ = ["FIGURES", "SECTIONS", "Chart", "Figure", "Lines", "Matrix", "NothingToDrawError", "Source", "Spans"]
