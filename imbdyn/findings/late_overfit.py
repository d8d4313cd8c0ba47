"""Claim 3: the rare classes are fitted in the end, but what was learned of them does not generalise.

Definition. gap_c = r_c - R_c, class c's recall on the training data minus that on held-out data, at the last epoch that
has both. The excess of a run is mean_{c rare} gap_c - mean_{c other} gap_c; the measure is the excess of the imbalanced
run minus that of the same classes in the balanced run (0 if there is none to compare with).

Interval. 95%, Wilson's of each class's R_c, combined by MOVER. r_c of all training samples is a census: no uncertainty.
Where only n of the class's N were read ("train" under a budget, which skips the logits of some steps), it is an
estimate of variance r_c (1 - r_c) / n (N - n) / (N - 1), and has Wilson's interval of n (N - 1) / (N - n) samples.
The runs share their test samples, which makes it too wide. It holds for one seed and one draw of training samples.

Control. A class with few samples overfits without any imbalance. The scarce run (every class as small as the rare ones)
says how large the gap of the same classes is from that alone; what is left of the imbalanced run's is told beside it.

Source: arXiv 2605.24908, claim 3; the control after Ye et al. 2020, arXiv 2001.01385. The measure and its threshold are
ours; the paper's own could not be read.
"""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, NamedTuple

from imbdyn.findings.contrast import DELTA, contrast
from imbdyn.findings.finding import ONE_SEED, Finding, Verdict, by_interval
from imbdyn.findings.groups import Groups, class_counts, groups, nothing_to_compare
from imbdyn.findings.intervals import Interval, combine, of_some, wilson
from imbdyn.findings.recall import TRAIN_EVAL, epoch_ends, final, held_out_split, recall_curves, train_split
from imbdyn.findings.words import two

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from imbdyn.trace import Trace

CLAIM = "The rare classes are fitted in the end, but what was learned of them does not generalise."
THRESHOLD = 0.05

#: Train recall from which a group counts as fitted.
FITTED = 0.9


class _Gaps(NamedTuple):
    """The last epoch with both: recall of each class on the training data and on held-out data, with its interval."""

    train: dict[int, Interval]
    test: dict[int, Interval]
    step: int
    """The last one of that epoch."""

    def train_mean(self, classes: Sequence[int]) -> float:
        return sum(self.train[c].value for c in classes) / len(classes)

    def test_mean(self, classes: Sequence[int]) -> float:
        return sum(self.test[c].value for c in classes) / len(classes)

    def mean(self, classes: Sequence[int]) -> float:
        return self.train_mean(classes) - self.test_mean(classes)

    def excess(self, group: Groups) -> float:
        return self.mean(group.rare) - self.mean(group.others)

    def terms(self, classes: Sequence[int], weight: float) -> list[tuple[float, Interval]]:
        """Return weight * (mean gap of `classes`) as terms w * p of a linear combination."""
        share = weight / len(classes)
        return [(share, self.train[c]) for c in classes] + [(-share, self.test[c]) for c in classes]


def late_overfit(trace: Trace, balanced: Trace | None = None, scarce: Trace | None = None) -> Finding:
    """Measure how much more the rare classes of `trace` overfit than the others, beyond a `balanced` run."""
    group = groups(trace)
    measured = Interval(float("nan"), float("nan"), float("nan"))
    verdict: Verdict = "not decided"
    nothing = nothing_to_compare(trace)
    gaps = _gaps(trace, group)
    reference = _gaps(balanced, group) if balanced is not None else None
    control = _gaps(scarce, group) if scarce is not None else None
    if nothing is not None:
        sentence = nothing
    elif gaps is None or (balanced is not None and reference is None):
        sentence = _why_no_gaps(trace, group) or _why_no_gaps(balanced, group, " of the balanced run")
    else:
        terms = gaps.terms(group.rare, 1.0) + gaps.terms(group.others, -1.0)
        if reference is not None:
            terms += reference.terms(group.rare, -1.0) + reference.terms(group.others, 1.0)
        measured = _combined(terms)
        if gaps.train_mean(group.rare) >= FITTED:
            verdict = by_interval(measured.lower, measured.upper, THRESHOLD, above="supported", below="refuted")
        sentence = _sentence(group, gaps, measured, reference is not None, control)
    known = not isnan(measured.value)
    by_class = {c: recall.value - gaps.test[c].value for c, recall in gaps.train.items()} if known and gaps else {}
    compared = contrast(by_class, group)
    runs = {"balanced": reference, "scarce": control}
    beside: dict[str, float | None] = {name: run.excess(group) for name, run in runs.items() if run}
    return Finding(
        name="late_overfit",
        kind="claim",
        claim=CLAIM,
        value=measured.value if known else None,
        unit="recall",
        lower=measured.lower if known else None,
        upper=measured.upper if known else None,
        null=0.0,
        compared_with="no excess" if balanced is None else "the excess of the same classes in the balanced run",
        threshold=THRESHOLD,
        rule=(
            f"decided if the rare classes' train recall ends at {FITTED} or more: supported if the whole interval is "
            f"above {THRESHOLD}, refuted if all of it is below; {ONE_SEED}"
        ),
        verdict=verdict,
        effect_size=None if compared is None else compared.delta,
        effect=f"of the gaps, {DELTA}",
        steps=(gaps.step, gaps.step) if known and gaps else None,
        by_class=by_class or None,
        beside=beside if known and beside else None,
        sentence=sentence,
    )


def mean_gap(trace: Trace, classes: Sequence[int]) -> Interval | None:
    """Return the mean gap of some classes at the last epoch with both splits; None if one has no recall there."""
    gaps = _gaps(trace, Groups(list(classes), [], "")) if classes else None
    return None if gaps is None else _combined(gaps.terms(classes, 1.0))


def _gaps(trace: Trace, group: Groups) -> _Gaps | None:
    """Read the last epoch of a run that has both splits; None if there is none, or a class has no recall there."""
    (train, read), (test, counts) = _both(trace)
    classes = [*group.rare, *group.others]
    if train.empty or _without_recall(train, classes) or _without_recall(test, classes):
        return None
    there_are = class_counts(trace)
    seen = {c: of_some(final(train, c), int(final(read, c)), there_are[c]) for c in classes}
    unseen = {c: wilson(final(test, c), int(final(counts, c))) for c in classes}
    ends = epoch_ends(trace, train_split(trace))
    return _Gaps(seen, unseen, ends[float(train.index[-1])])


def _both(trace: Trace) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Return recall and counts on training data, and the same on held-out data, in the epochs that have both."""
    held_out = held_out_split(trace)
    train = recall_curves(trace, train_split(trace))
    test = train if held_out is None else recall_curves(trace, held_out)
    both = train[0].index[:0] if held_out is None else train[0].index.intersection(test[0].index)
    return [(curves.loc[both], counts.loc[both]) for curves, counts in (train, test)]


def _without_recall(curves: pd.DataFrame, classes: Sequence[int]) -> list[int]:
    return [c for c in classes if isnan(final(curves, c))]


def _why_no_gaps(trace: Trace | None, group: Groups, of: str = "") -> str:
    """Say why `_gaps` has found none; empty if it has."""
    if trace is None or _gaps(trace, group) is not None:
        return ""
    (train, _), (test, _) = _both(trace)
    if train.empty:
        return (
            f"No epoch{of} has recall on training data and on held-out data: evaluate a split such as 'test' in each, "
            "after monitor.epoch is set."
        )
    classes = [*group.rare, *group.others]
    missing, on = _without_recall(train, classes), "training"
    hint = "" if train_split(trace) == TRAIN_EVAL else f'; evaluate "{TRAIN_EVAL}"'
    if not missing:
        hint = ""
        missing, on = _without_recall(test, classes), "held-out"
    return (
        f"{len(missing)} of {len(classes)} classes{of} have no recall on {on} data in epoch {train.index[-1]:g}, the "
        f"last with both: no sample of them was read{hint}."
    )


def _combined(terms: list[tuple[float, Interval]]) -> Interval:
    return combine([weight for weight, _ in terms], [term for _, term in terms])


def _sentence(group: Groups, gaps: _Gaps, measured: Interval, compared: bool, control: _Gaps | None) -> str:
    train, test = gaps.train_mean(group.rare), gaps.test_mean(group.rare)
    unfitted = f"; below {FITTED} train recall they are not fitted yet" if train < FITTED else ""
    sentence = (
        f"In the end rare classes have train recall {train:.2f} and test recall {test:.2f}: a gap of "
        f"{two(train - test)} against {two(gaps.mean(group.others))} of the others, {_shown(measured)} in excess"
        f"{' of the balanced run' if compared else ''}{unfitted}."
    )
    if control is None:
        return sentence
    rest = _combined(gaps.terms(group.rare, 1.0) + control.terms(group.rare, -1.0))
    return (
        f"{sentence} Scarcity alone gives the same classes a gap of {two(control.mean(group.rare))} (train recall "
        f"{control.train_mean(group.rare):.2f}); {_shown(rest)} is left for imbalance."
    )


def _shown(interval: Interval) -> str:
    return f"{two(interval.value)} [{two(interval.lower)}, {two(interval.upper)}]"
