"""Initial guessing bias: an untrained network guesses some classes more often than others.

Definition. G_c = share of the samples with argmax z = c before the first optimizer step. Without bias G_c = 1/K. The
measure is the total variation distance from that, (1/2) sum_c |G_c - 1/K|: 0 if all classes are guessed alike, 1 - 1/K
if one class gets all guesses.

Null. The distance that n independent guesses have by chance: (K/2) E|X/n - 1/K|, X binomial (n, 1/K), with
E|X - np| = 2 v C(n, v) p^v (1-p)^(n-v+1), v = floor(np) + 1.

Read from an evaluation before the first step (epoch not set), of the training data if there is one; else from the first
step's own batch, whose logits come before its update.

The bias is a distribution over initialisations, of which one run shows one. A class that an untrained network already
guesses has a head start, and one that it never guesses starts at recall 0: both confound the minority initial drop.

Source: Francazi, Lucchi, Baity-Jesi 2024, arXiv 2306.00809.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp, floor, lgamma, log, log1p
from typing import TYPE_CHECKING

from imbdyn.findings.contrast import finite
from imbdyn.findings.finding import Finding
from imbdyn.findings.groups import class_names, groups
from imbdyn.findings.recall import held_out_split, train_split

if TYPE_CHECKING:
    import pandas as pd

    from imbdyn.trace import Trace


def initial_guess(trace: Trace) -> Finding:
    """Measure how unequally the untrained network guesses the classes."""
    group = groups(trace)
    found = Finding(
        name="initial_guess",
        claim="An untrained network guesses some classes more often than others.",
        unit="total variation distance from equal shares",
        compared_with="independent guesses of all classes alike",
        effect="largest share of guesses, times the number of classes",
    )
    predicted = _predicted(trace)
    total = int(predicted.sum())
    if not total:
        return replace(found, sentence="No logits of the untrained network: evaluate before the first step.")
    names = class_names(trace)
    classes = len(names)
    share = (predicted / total).reindex(range(classes), fill_value=0.0)
    most = int(share.to_numpy().argmax())
    rare = share[group.rare].sum()
    together = f", the rare classes {rare:.0%} ({len(group.rare) / classes:.0%})" if group.rare else ""
    return replace(
        found,
        value=float((share - 1 / classes).abs().sum() / 2),
        null=classes / 2 * binomial_deviation(total, 1 / classes) / total,
        effect_size=float(share[most] * classes),
        steps=(0, 0),
        by_class=finite(share),
        sentence=(
            f"Untrained, it guesses class {names[most]} for {share[most]:.0%} of samples (unbiased {1 / classes:.0%})"
            f"{together}."
        ),
    )


def _predicted(trace: Trace) -> pd.Series[int]:
    """Return how often each class was guessed before the first step; empty if that was not read."""
    rows = trace.classes
    first_batch = (rows["split"] == "train") & (rows["since_step"] == 0) & (rows["step"] == 1)
    for chosen in (
        (rows["step"] == 0) & (rows["split"] == train_split(trace)),
        (rows["step"] == 0) & (rows["split"] == held_out_split(trace)),
        first_batch,
    ):
        if chosen.any():
            return rows[chosen].groupby("class_id")["predicted"].sum()
    return rows[first_batch].groupby("class_id")["predicted"].sum()


def binomial_deviation(n: int, p: float) -> float:
    """Return E|X - np| of a binomial variable, exactly."""
    v = floor(n * p) + 1
    if v > n or p >= 1:
        return 0.0
    choose = lgamma(n + 1) - lgamma(v + 1) - lgamma(n - v + 1)
    return 2 * v * exp(choose + v * log(p) + (n - v + 1) * log1p(-p))
