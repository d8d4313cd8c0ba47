"""Claim 1: on balanced data the classes are learned alike.

Definition. A_c = (1/T) sum_t r_c(t) is the mean over the T epochs of class c's recall on the training data: the area
under its learning curve. The measure is max_c A_c - min_c A_c, the largest area between the curves of two classes.

Interval. 95%, normal approximation: the variance of A_c is at most ((1/T) sum_t sqrt(r_c(t) (1 - r_c(t)) / n_c))^2, n_c
its samples, which is reached if all epochs are right or wrong together; those of two classes add. The lower limit is
the largest one of the K (K - 1) / 2 differences, of intervals that hold together (Bonferroni; Dunn 1961): the two of
many equal classes that happen to be furthest apart are no evidence. The upper one is the largest of their intervals
alone: the difference that is truly largest lies below its own. It holds for one seed: other weights may order the
classes otherwise.

Recall on the training data says nothing on what was learned where labels are only memorised. Where the mean recall on
held-out data is at the end not above chance, 1/K for whatever guesses without looking, nothing is decided.

Source: arXiv 2605.24908, claim 1. The measure and its threshold are ours; the paper's own could not be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imbdyn.findings.contrast import defined, finite
from imbdyn.findings.finding import ONE_SEED, Finding, by_interval
from imbdyn.findings.groups import UNTRAINED, class_counts, class_names, is_balanced
from imbdyn.findings.intervals import Z_95, combine, wilson
from imbdyn.findings.recall import LEARNED, NO_EPOCHS, epoch_ends, final, held_out_split, recall_curves, train_split

if TYPE_CHECKING:
    from imbdyn.trace import Trace

CLAIM = "On balanced data the classes are learned alike."
THRESHOLD = 0.1


def alike_when_balanced(trace: Trace, contrast: Mapping[str, Trace] | None = None) -> Finding:
    """Measure how far apart the classes' learning curves are.

    Args:
        trace: a run on balanced data.
        contrast: other runs by name, whose spread is told beside it; they do not change the verdict.
    """
    split = train_split(trace)
    curves, counts = recall_curves(trace, split)
    ends = epoch_ends(trace, split).values()
    value = lower = upper = None
    if not any(class_counts(trace)):
        sentence = UNTRAINED
    elif not is_balanced(trace):
        sentence = "The classes of this run have unequal counts, so it says nothing on balanced data."
    elif curves.empty:
        sentence = NO_EPOCHS
    elif float(curves.iloc[-1].mean()) < LEARNED:
        sentence = f"Too little was learned to compare classes: the mean train recall ends below {LEARNED:.0%}."
    elif (memorised := _only_memorised(trace)) is not None:
        sentence = memorised
    else:
        area = curves.mean()
        deviation = np.sqrt(curves * (1 - curves) / counts.where(counts > 0)).mean().to_numpy()
        slow, fast = int(area.argmin()), int(area.argmax())
        value = float(area.iloc[fast] - area.iloc[slow])
        lower, upper = _limits(area.to_numpy(), deviation)
        names = [class_names(trace)[int(class_id)] for class_id in area.index]
        sentence = (
            f"Over the run the mean train recall of two classes differs by {value:.2f} [{lower:.2f}, {upper:.2f}] "
            f"at most ({names[fast]} is learned fastest, {names[slow]} slowest)"
            f"{''.join(f'; {_spread(other):.2f} in the {name} run' for name, other in (contrast or {}).items())}."
        )
    verdict = (
        "not decided"
        if lower is None or upper is None
        else by_interval(lower, upper, THRESHOLD, above="refuted", below="supported")
    )
    return Finding(
        name="alike_when_balanced",
        kind="claim",
        claim=CLAIM,
        value=value,
        unit="recall",
        lower=lower,
        upper=upper,
        compared_with="the threshold",
        threshold=THRESHOLD,
        rule=f"supported if the whole interval is at most {THRESHOLD}, refuted if all of it is above; {ONE_SEED}",
        verdict=verdict,
        steps=(min(ends), max(ends)) if ends and value is not None else None,
        by_class=finite(curves.mean()) if value is not None else None,
        beside={name: defined(_spread(other)) for name, other in contrast.items()} if contrast else None,
        sentence=sentence,
    )


def _only_memorised(trace: Trace) -> str | None:
    """Say that recall on held-out data is that of chance, or return None if it is more, or not known."""
    split = held_out_split(trace)
    if split is None:
        return None
    curves, counts = recall_curves(trace, split)
    seen = [] if curves.empty else [int(c) for c in curves.columns if counts[c].iloc[-1] > 0]
    if len(seen) < 2:
        return None
    chance = 1 / len(seen)
    recall = combine([chance] * len(seen), [wilson(final(curves, c), int(final(counts, c))) for c in seen])
    if recall.lower > chance:
        return None
    return (
        f"Nothing was learned beyond the training samples: the mean recall on held-out data ends at {recall.value:.2f} "
        f"[{recall.lower:.2f}, {recall.upper:.2f}], that of chance is {chance:.2f}."
    )


def _limits(area: NDArray[np.float64], deviation: NDArray[np.float64]) -> tuple[float, float]:
    """Return the limits of the largest difference of two of K areas [K] with these standard deviations [K]."""
    classes = len(area)
    together = NormalDist().inv_cdf(1 - 0.05 / max(2, classes * (classes - 1)))
    lower = upper = 0.0
    for i in range(classes):  # a matrix of all pairs would not fit, of 100,000 classes
        others = np.arange(classes) != i
        difference, noise = area[i] - area[others], np.hypot(deviation[i], deviation[others])
        lower = max(lower, float(np.max(difference - together * noise, initial=0.0)))
        upper = max(upper, float(np.max(difference + Z_95 * noise, initial=0.0)))
    return lower, min(1.0, upper)


def _spread(trace: Trace) -> float:
    area = recall_curves(trace, train_split(trace))[0].mean()
    return float(area.max() - area.min())
