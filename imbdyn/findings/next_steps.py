"""What a reader may try next: said only where the numbers of the run speak for it.

Each step has conditions, all of which must hold; a run that lacks one of the numbers gets no advice. If a run that
tried it is given beside (its configuration names it: `config={"method": "logit_adjustment"}`, or it is one of
`imbdyn run` with that method; with the same class counts, or with evaluations only), the step says what it changed:
recall of the rare classes on held-out data, with a 95% interval by MOVER from Wilson's of each class. The runs share
their test samples, which makes it too wide.

Sources. tau-normalisation: Kang et al. 2020, arXiv 1910.09217. Logit adjustment: Menon et al. 2021, arXiv 2007.07314.
Equal gradient norms of the classes (PCNGD) and oversampling against the initial drop: Francazi, Baity-Jesi, Lucchi
2023, arXiv 2207.00391.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from imbdyn.findings.contrast import contrast
from imbdyn.findings.finding import Finding
from imbdyn.findings.first_order import rare_product
from imbdyn.findings.groups import Groups, class_counts, configuration, groups
from imbdyn.findings.intervals import Interval, combine, wilson
from imbdyn.findings.late_overfit import FITTED
from imbdyn.findings.minority_initial_drop import steps_of_rise
from imbdyn.findings.recall import final, held_out_split, recall_curves, train_split
from imbdyn.findings.rows import last_rows

if TYPE_CHECKING:
    from imbdyn.trace import Trace

#: A p-value up to this counts as evidence, a gap from this on as one.
_LEVEL, _GAP = 0.05, 0.05

#: Rows are short up to this share of the others' norm.
_SHORT = 0.9

#: From this share on of the steps that were read while their loss rose, rare classes are said to be outvoted.
_MOST = 0.5


class Given(NamedTuple):
    """What advice is drawn from: a run, its findings by name, and the runs beside it, by what they are."""

    trace: Trace
    found: Mapping[str, Finding]
    beside: Mapping[str, Trace]
    group: Groups


def next_steps(
    trace: Trace, found: Sequence[Finding], beside: Mapping[str, Trace] | None = None, tried: Sequence[Trace] = ()
) -> list[Finding]:
    """Return the steps that a run speaks for; none, as a rule, for a balanced run.

    Args:
        found: the claims and phenomena of the run.
        beside: "balanced" and "scarce", the runs of the same experiment, as far as there are.
        tried: runs whose configuration names a method.
    """
    given = Given(trace, {finding.name: finding for finding in found}, beside or {}, groups(trace))
    steps = [adjust_logits(given), equalise_gradients(given), more_samples(given)]
    return [_with_change(step, given, tried) for step in steps if step is not None]


def adjust_logits(given: Given) -> Finding | None:
    """Rare classes are fitted, yet their rows are short and their held-out margins negative."""
    norms = given.found["classifier_norms"]
    train = _mean_final(given.trace, train_split(given.trace), given.group.rare)
    margin = _held_out_margin(given.trace, given.group)
    compared = contrast(norms.by_class or {}, given.group)
    if norms.value is None or norms.p_value is None or compared is None or margin is None:
        return None
    short = norms.value > 0 and norms.p_value <= _LEVEL and compared.rare <= _SHORT * compared.others
    if not (train >= FITTED and short and margin < 0):
        return None
    return _step(
        "adjust_logits",
        "Rare classes are fitted with short rows: shift or rescale the logits.",
        f"Rare classes are fitted (train recall {train:.2f}) with short rows (norm {compared.rare:.2f} against "
        f"{compared.others:.2f}) and held-out margins of {margin:.1f}: try tau-normalisation or logit adjustment.",
    )


def equalise_gradients(given: Given) -> Finding | None:
    """The loss of the rare classes rises at first, while in most steps the others' gradients outvote theirs."""
    rise = steps_of_rise(given.trace)
    if rise is None:
        return None
    product = rare_product(given.trace, given.group)
    outvoted = product[(product.index >= rise[0]) & (product.index <= rise[1])] < 0
    if outvoted.empty or outvoted.mean() < _MOST:
        return None
    return _step(
        "equalise_gradients",
        "Rare classes are outvoted in the first steps: give the classes equal weight there.",
        f"-cos > norm ratio in {int(outvoted.sum())} of the {len(outvoted)} steps read while the rare classes' loss "
        f"rose, until step {rise[1]}: try oversampling, or equal gradient norms by class (PCNGD).",
    )


def more_samples(given: Given) -> Finding | None:
    """Scarcity alone leaves most of the gap, and the same classes with more samples have little of it."""
    late = given.found["late_overfit"]
    scarce, balanced = given.beside.get("scarce"), given.beside.get("balanced")
    if scarce is None or balanced is None or late.by_class is None:
        return None
    here, alone, many = (_gap(trace, given.group.rare) for trace in (given.trace, scarce, balanced))
    if not (here >= _GAP and alone >= here / 2 and many < alone / 2):
        return None
    few, enough = (np.mean([class_counts(trace)[c] for c in given.group.rare]) for trace in (scarce, balanced))
    return _step(
        "more_samples",
        "Scarcity alone leaves most of the gap: more samples rather than other weights.",
        f"Of the rare classes' gap of {here:.2f}, scarcity alone leaves {alone:.2f} (balanced, {few:.0f} samples a "
        f"class), {enough:.0f} samples a class leave {many:.2f}: try more, or augmented, samples of them before other "
        "weights.",
    )


#: Names of methods in a configuration, by the step that they try.
_METHODS = {
    "adjust_logits": ("tau_normalisation", "logit_adjustment"),
    "equalise_gradients": ("oversampling", "pcngd", "pcnsgd"),
    "more_samples": ("augmentation",),
}


def method(trace: Trace) -> str | None:
    """Return what a run's configuration calls its method, its own or its experiment's; None if it names none."""
    found = configuration(trace)
    for key in ("method",), ("experiment", "method", "name"):
        named: Any = found
        for name in key:
            named = named.get(name) if isinstance(named, dict) else None
        if isinstance(named, str):
            return named
    return None


def _step(name: str, claim: str, sentence: str) -> Finding:
    return Finding(name=name, kind="next step", claim=claim, unit="recall", compared_with="this run", sentence=sentence)


def _with_change(step: Finding, given: Given, tried: Sequence[Trace]) -> Finding:
    """Add what the first run that tried the step has changed in held-out recall of the rare classes."""
    named = [run for run in tried if method(run) in _METHODS[step.name]]
    alike = [run for run in named if _has_counts_of(run, given.trace)]
    if not alike:
        if not named:
            return step
        other = f"{named[0].path.name} ({method(named[0])}) has other class counts: what it changed is not told."
        return replace(step, sentence=f"{step.sentence} {other}")
    run = alike[0]
    before, after = (_held_out_recall(trace, given.group.rare) for trace in (given.trace, run))
    if before is None or after is None:
        return step
    share = 1 / len(given.group.rare)
    change = combine([share] * len(after) + [-share] * len(before), [*after, *before])
    others = [_mean_final(trace, held_out_split(trace), given.group.others) for trace in (given.trace, run)]
    return replace(
        step,
        value=change.value,
        lower=change.lower,
        upper=change.upper,
        null=0.0,
        sentence=(
            f"{step.sentence} In {run.path.name} ({method(run)}) their test recall changed by {change.value:+.2f} "
            f"[{change.lower:+.2f}, {change.upper:+.2f}], that of the others by {others[1] - others[0]:+.2f}."
        ),
    )


def _has_counts_of(run: Trace, trace: Trace) -> bool:
    """Whether a run has the class counts of `trace`; one that evaluates only, after a post hoc change, has none."""
    counts, expected = class_counts(run), class_counts(trace)
    return counts == expected or (len(counts) == len(expected) and not any(counts))


def _held_out_recall(trace: Trace, classes: Sequence[int]) -> list[Interval] | None:
    split = held_out_split(trace)
    if split is None:
        return None
    curves, counts = recall_curves(trace, split)
    recalls = {c: final(curves, c) for c in classes}
    if not np.isfinite(list(recalls.values())).all():
        return None
    return [wilson(recall, int(final(counts, c))) for c, recall in recalls.items()]


def _mean_final(trace: Trace, split: str | None, classes: Sequence[int]) -> float:
    """Return the mean recall of some classes at the last epoch, NaN if one has none."""
    if split is None or not classes:
        return float("nan")
    curves, _ = recall_curves(trace, split)
    return float(np.mean([final(curves, c) for c in classes]))


def _gap(trace: Trace, classes: Sequence[int]) -> float:
    return _mean_final(trace, train_split(trace), classes) - _mean_final(trace, held_out_split(trace), classes)


def _held_out_margin(trace: Trace, group: Groups) -> float | None:
    """Return the mean margin of the rare classes on held-out data, every class weighing alike."""
    rows = last_rows(trace.classes, held_out_split(trace))
    margin = rows.loc[rows["class_id"].isin(group.rare), "margin"].dropna()
    return float(margin.mean()) if len(margin) else None
