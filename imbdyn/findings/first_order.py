"""Does a step raise the loss of the rare classes to first order, and did the loss do so?

Definition. R and O are the gradients of the rare classes' and of the others' part of the loss, g = R + O. A small step
along -g raises the loss of the rare classes iff <R, g> < 0, which is -cos(R, O) > ||R|| / ||O||: the other classes
outvote them. Of the sampled steps <R, g> = sum_{c rare} <G_c, g> is read.

What then happened. From the window of training that a sampled step closes to the next one the rare classes' loss rises
or falls. The measure is how often it rose after steps in which -cos > norm ratio; the null is how often it rose after
the others. Interval: Wilson's. Test: Fisher's exact one, one-sided, that it rose more often.

Limits. G_c is of the step's own batch, so <R, g> has the squared noise of the batch in it and is too large on average;
windows are of other samples each time; momentum, adaptive optimizers and steps that were not sampled are not in it.

Source: the condition follows from <R, R + O> = ||R|| (||R|| + ||O|| cos(R, O)); it is the first-order form of the
minority initial drop of Francazi, Baity-Jesi, Lucchi 2023, arXiv 2207.00391.
"""

from __future__ import annotations

from dataclasses import replace
from math import comb
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from imbdyn.findings.finding import Finding
from imbdyn.findings.group_loss import loss_readings
from imbdyn.findings.groups import Groups, groups, one_group
from imbdyn.findings.intervals import wilson
from imbdyn.findings.rows import longest_run, network_gradients
from imbdyn.findings.words import told_p

if TYPE_CHECKING:
    from imbdyn.trace import Trace


def first_order_rise(trace: Trace) -> Finding:
    """Compare what the gradients say of the rare classes' loss with what it did."""
    group = groups(trace)
    found = Finding(
        name="first_order_rise",
        claim="The rare classes' loss rises after steps in which -cos > norm ratio of their gradient and the others'.",
        unit="share of such steps after which it rose",
        compared_with="the other steps",
        effect="share of such steps after which it rose minus that of the others",
    )
    missing = one_group(group)
    if missing is not None:
        return replace(found, sentence=missing)
    product = rare_product(trace, group)
    if product.empty:
        return replace(found, sentence="No sampled step has class gradients of rare classes.")
    outvoted = product < 0
    run = longest_run(outvoted)
    longest = f", longest {run[0]} to {run[1]}" if run else ""
    told = f"-cos > norm ratio in {int(outvoted.sum())} of {len(product)} steps{longest}"
    rose = after(product, loss_readings(trace, group, "train"))
    such, others = rose[outvoted.reindex(rose.index)], rose[~outvoted.reindex(rose.index)]
    found = replace(found, steps=run)
    if such.empty or others.empty:
        return replace(found, sentence=f"{told}; nothing to compare: the rare loss is known after {len(rose)} steps.")
    share = wilson(float(such.mean()), len(such))
    p_value = fisher(int(such.sum()), len(such), int(rose.sum()), len(rose))
    return replace(
        found,
        value=share.value,
        lower=share.lower,
        upper=share.upper,
        p_value=p_value,
        null=float(others.mean()),
        effect_size=share.value - float(others.mean()),
        sentence=(
            f"{told}; the loss then rose in {such.sum()} of {len(such)}, else in {others.sum()} of {len(others)}"
            f"{told_p(p_value)}."
        ),
    )


def rare_product(trace: Trace, group: Groups) -> pd.Series[float]:
    """Return <R, g> by sampled step, of the steps that had samples of a rare class.

    ||g|| = sum_c <G_c, g> / ||g|| = sum_c ||G_c|| cos(G_c, g).
    """
    rows = network_gradients(trace)
    # a class whose gradient is 0 has no cosine; what is not a number leaves its step out
    along = (rows["grad_norm"] * rows["grad_cos_total"]).where(rows["grad_norm"] != 0, 0.0).fillna(np.inf)
    rows = rows.assign(along=along)
    norm = rows.groupby("step")["along"].sum()
    rare = rows[rows["class_id"].isin(group.rare)].groupby("step")["along"].sum()
    product: pd.Series[float] = rare * norm.reindex(rare.index)
    return product[np.isfinite(product)]


def after(product: pd.Series[float], windows: pd.DataFrame) -> pd.Series[bool]:
    """Return whether the rare loss rose from the window that a sampled step closed to the next, by that step.

    The logits of that step came before its update: they are the last of the window.
    """
    change = windows["rare"].shift(-1) - windows["rare"]
    rose: pd.Series[bool] = change[change.index.isin(product.index)].dropna() > 0
    return rose


def fisher(both: int, such: int, rose: int, n: int) -> float:
    """Return the probability that at least `both` of `such` steps are among `rose` of `n`, if they are independent."""
    ways = sum(comb(such, k) * comb(n - such, rose - k) for k in range(both, min(such, rose) + 1))
    return ways / comb(n, rose)
