"""Gradient noise scale by class: how many samples of a class average out the noise of its gradient.

Definition. B_c = tr(S_c) / |m_c|^2, mean m_c and covariance S_c of the gradients of single samples of class c. Of each
sampled step with n >= 2 samples of the class, unbiased: tr(S) = (sum_i ||g_i||^2 - ||G||^2 / n) / (n - 1) and
|m|^2 = ||G||^2 / n^2 - tr(S) / n. Both are added up over the steps and then divided: the ratio of sums, never the mean
of ratios. Where the sum of |m|^2 is not positive the class has none; it is not clipped. The measure is the mean of the
rare classes. Steps with large gradients, mostly early ones, weigh most.

Source: McCandlish et al. 2018, arXiv 1812.06162; the estimate as in CerebrasResearch/nanoGNS, by class.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imbdyn.findings.contrast import DELTA, contrast, finite
from imbdyn.findings.finding import Finding
from imbdyn.findings.groups import groups
from imbdyn.findings.rows import network_gradients, span
from imbdyn.findings.words import told_p

if TYPE_CHECKING:
    from imbdyn.trace import Trace


def noise_scale(trace: Trace) -> Finding:
    """Measure the gradient noise scale of each class over the run."""
    group = groups(trace)
    found = Finding(
        name="noise_scale",
        claim="How many samples of a class average out the noise of its gradient, on average over the rare classes.",
        unit="samples",
        compared_with="the other classes",
        effect=DELTA,
    )
    rows = network_gradients(trace)
    rows = rows[rows["count"] >= 2]
    told_apart = rows["sample_norm_sq"].notna()
    if len(rows) and not told_apart.any():
        why = "no sampled step tells its samples' gradients apart (several batches a step, or soft labels)"
        return replace(found, sentence=f"No class has a noise scale: {why}.")
    rows = rows[told_apart]
    n, norm_sq = rows["count"], rows["grad_norm"] ** 2
    trace_s = (rows["sample_norm_sq"] - norm_sq / n) / (n - 1)
    sums = (
        rows.assign(noise=trace_s, mean_sq=norm_sq / n**2 - trace_s / n).groupby("class_id")[["noise", "mean_sq"]].sum()
    )
    by_class = finite(sums["noise"] / sums["mean_sq"].where(sums["mean_sq"] > 0))
    if not by_class:
        return replace(found, sentence="No class has a noise scale: no sampled step has two of its samples' gradients.")
    compared = contrast(by_class, group)
    if compared is None:
        low, high = min(by_class.values()), max(by_class.values())
        told = (
            f"{len(by_class)} classes have {low:.3g} to {high:.3g}" if len(by_class) > 1 else f"one class has {low:.3g}"
        )
        sentence = f"Not known of both rare and other classes; {told} samples."
        return replace(found, by_class=by_class, steps=span(rows["step"]), sentence=sentence)
    with_value = sum(c in by_class for c in group.rare)
    return replace(
        found,
        value=compared.rare,
        p_value=compared.p_value,
        effect_size=compared.delta,
        steps=span(rows["step"]),
        by_class=by_class,
        sentence=(
            f"The gradient noise scale of rare classes is {compared.rare:.3g} samples ({with_value} of "
            f"{len(group.rare)} have one), of others {compared.others:.3g}{told_p(compared.p_value)}."
        ),
    )
