"""Claim 2: under imbalance the rare classes are underfitted in the early epochs while the others are learned.

Definition. t_c is the first epoch at which class c's recall on the training data is at least 0.5. The lag of a run is
mean_{c rare} t_c - mean_{c other} t_c, in epochs; the measure is the lag of the imbalanced run minus the lag of the
same classes in the balanced run (0 if there is none to compare with), which takes out that some classes are harder.

A rare class that never gets there counts as learned at the last epoch, which makes the lag "at least" so long. If one
of the others, or a class of the balanced run, never gets there, no lag is defined and nothing is decided.

Test. Fisher's randomisation test over which classes are rare, one-sided, against a lag of one epoch, the resolution of
t_c. It holds for one seed. Of few classes it is never significant (of one rare class in three p is 1/3 or more): the
sentence says so, and `imbdyn study` decides over seeds.

Control. A class with few samples is learned late without any imbalance. The scarce run (every class as small as the
rare ones) says when the same classes got there, in epochs, which is how often each sample was seen, and in steps.

Source: arXiv 2605.24908, claim 2; cf. the minority initial drop of Francazi et al. 2023, arXiv 2207.00391. The measure
and its threshold are ours; the paper's own could not be read.
"""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

from imbdyn.findings.contrast import DELTA, contrast
from imbdyn.findings.finding import ONE_SEED, Finding, Verdict
from imbdyn.findings.groups import Groups, groups, nothing_to_compare
from imbdyn.findings.randomisation import randomisation_p
from imbdyn.findings.recall import (
    LEARNED,
    NO_EPOCHS,
    area_between,
    epoch_ends,
    epoch_learned,
    recall_curves,
    train_split,
)
from imbdyn.findings.words import p_is

if TYPE_CHECKING:
    import pandas as pd

    from imbdyn.trace import Trace

CLAIM = "Under imbalance the rare classes are underfitted early, while the others are learned."
THRESHOLD = 1.0
_LEVEL = 0.05


def early_underfit(trace: Trace, balanced: Trace | None = None, scarce: Trace | None = None) -> Finding:
    """Measure by how many epochs the rare classes of `trace` lag, beyond what they lag in a `balanced` run."""
    group = groups(trace)
    split = train_split(trace)
    curves, _ = recall_curves(trace, split)
    reference, _ = recall_curves(balanced, train_split(balanced)) if balanced is not None else (None, None)
    value = p_value = effect_size = steps = by_class = None
    verdict: Verdict = "not decided"
    runs = {"balanced": balanced, "scarce": scarce}
    missing = nothing_to_compare(trace) or _missing(group, curves, reference)
    if missing is not None:
        sentence = missing
    else:
        times, censored = _times(curves, group)
        before, _ = _times(reference, group) if reference is not None else (dict.fromkeys(times, 0.0), False)
        delay = {c: times[c] - before[c] for c in times}
        rare, others = [delay[c] for c in group.rare], [delay[c] for c in group.others]
        value = _mean(rare) - _mean(others)
        ends = epoch_ends(trace, split)
        steps = ends[min(times[c] for c in group.others)], ends[max(times[c] for c in group.rare)]
        by_class, compared = times, contrast(delay, group)
        effect_size = None if compared is None else compared.delta
        more, less = randomisation_p([d - THRESHOLD for d in rare], others)
        # A lag that is only known to be "at least" so long can be refuted by nothing.
        p_value = more if value >= THRESHOLD else less
        if more <= _LEVEL:
            verdict = "supported"
        elif less <= _LEVEL and not censored:
            verdict = "refuted"
        sentence = _sentence(group, times, before, curves, reference, p_value, censored)
        if scarce is not None:
            sentence = f"{sentence} {_scarcity(trace, scarce, group)}"
    return Finding(
        name="early_underfit",
        kind="claim",
        claim=CLAIM,
        value=value,
        unit="epochs",
        p_value=p_value,
        null=0.0,
        compared_with="no lag" if balanced is None else "the lag of the same classes in the balanced run",
        threshold=THRESHOLD,
        rule=(
            f"with p <= {_LEVEL}: supported if the lag is above {THRESHOLD:g} epoch, refuted if it is below; {ONE_SEED}"
        ),
        verdict=verdict,
        effect_size=effect_size,
        effect=f"of the lags, {DELTA}",
        steps=steps,
        by_class=by_class,
        beside={name: _lag(run, group) for name, run in runs.items() if run is not None} or None,
        sentence=sentence,
    )


def _missing(group: Groups, curves: pd.DataFrame, reference: pd.DataFrame | None) -> str | None:
    """Say why no lag is defined, or return None if it is."""
    if curves.empty:
        return NO_EPOCHS
    unseen = [c for c in group.rare if c not in curves or curves[c].isna().all()]
    if unseen:
        return f"{len(unseen)} of the {len(group.rare)} rare classes have no train recall: no sample of them was read."
    late = [c for c in group.others if c not in curves or epoch_learned(curves[c]) is None]
    if late:
        return f"{len(late)} of the {len(group.others)} other classes never reached {LEARNED:.0%} train recall."
    if reference is not None:
        both = [*group.rare, *group.others]
        late = [c for c in both if c not in reference or epoch_learned(reference[c]) is None]
        if late:
            return f"{len(late)} classes of the balanced run never reached {LEARNED:.0%} train recall."
    return None


def _times(curves: pd.DataFrame, group: Groups) -> tuple[dict[int, float], bool]:
    """Return t_c of every class, and whether the last epoch had to stand for one that never came."""
    reached = {c: epoch_learned(curves[c]) if c in curves else None for c in [*group.rare, *group.others]}
    last = float(curves.index[-1])
    return {c: last if t is None else t for c, t in reached.items()}, None in reached.values()


def _lag(trace: Trace, group: Groups) -> float | None:
    """Return the lag of a run's rare classes; None if a class never got there."""
    curves, _ = recall_curves(trace, train_split(trace))
    times = {c: epoch_learned(curves[c]) if c in curves else None for c in [*group.rare, *group.others]}
    rare, others = ([t for c in chosen if (t := times[c]) is not None] for chosen in (group.rare, group.others))
    return _mean(rare) - _mean(others) if len(rare) + len(others) == len(times) and rare and others else None


def _scarcity(trace: Trace, scarce: Trace, group: Groups) -> str:
    """Say when the rare classes of the two runs got there."""
    told = []
    for run in (scarce, trace):
        split = train_split(run)
        curves, _ = recall_curves(run, split)
        ends = epoch_ends(run, split)
        reached = [epoch_learned(curves[c]) if c in curves else None for c in group.rare]
        if not ends:
            return "The scarce run has no recall."
        last = max(ends)
        at = [last if t is None else t for t in reached]
        bound = "at least " if None in reached else ""
        told.append(f"epoch {bound}{_mean(at):.1f} (step {bound}{_mean([ends[t] for t in at]):.0f})")
    return f"Scarcity alone: in the scarce run the same classes got there at {told[0]}, here at {told[1]}."


def _sentence(
    group: Groups,
    times: dict[int, float],
    before: dict[int, float],
    curves: pd.DataFrame,
    reference: pd.DataFrame | None,
    p_value: float,
    censored: bool,
) -> str:
    rare, others = _mean([times[c] for c in group.rare]), _mean([times[c] for c in group.others])
    area = f"area between the recall curves {_area(curves, group)}"
    against, bound = "", "at least " if censored else ""
    never = sum(c not in curves or epoch_learned(curves[c]) is None for c in group.rare)
    if reference is not None:
        lag = _mean([before[c] for c in group.rare]) - _mean([before[c] for c in group.others])
        against = f" against {lag:.1f} when balanced"
        area += f" against {_area(reference, group)}"
    least = 1 / comb(len(group.rare) + len(group.others), len(group.rare))
    undecidable = f", and never below {least:.3f} with so few classes: several seeds decide" if least > _LEVEL else ""
    some = f" ({never} of {len(group.rare)} never did)" if never else ""
    return (
        f"Rare classes reached {LEARNED:.0%} train recall at epoch {bound}{rare:.1f} on average{some}, the others at "
        f"{others:.1f}: a lag of {bound}{rare - others:.1f} epochs{against} "
        f"({area}; against a lag of {THRESHOLD:g} epoch {p_is(p_value)}{undecidable})."
    )


def _area(curves: pd.DataFrame, group: Groups) -> str:
    # + 0.0: no "-0.00"
    return f"{round(area_between(curves, group.rare, group.others), 2) + 0.0:.2f}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
