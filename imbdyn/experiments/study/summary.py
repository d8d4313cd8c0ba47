"""What a study says of the claims: over seeds, at each imbalance ratio, and as a trend over the ratios.

Effect. The mean over seeds of a claim's measure, with a 95% interval by bootstrap over seeds (`bootstrap`), each alone.

Trend. Of every seed the least-squares slope of its values over log10(IR); the mean slope over seeds, and its interval
in the same way. A seed's experiments share their data split and weights at the start, so they are resampled together.

Verdict at one ratio. By the whole interval, as in imbdyn.findings: on one side of the claim's threshold or the other.

Verdict on a claim.
- 1, alike when balanced: that of the balanced run, which is the same at all ratios. The largest difference of two of
  many classes is above 0 by chance in every seed, so that it is refuted by the lower limits of the runs, which account
  for that: the whole interval of their mean must be above the threshold.
- 2, early underfit, and 3, late overfit: supported if, at the largest ratio, the whole interval of the effect is above
  the threshold, and the whole interval of the trend above 0. Refuted if, at the largest ratio, the whole interval of
  the effect is at most the threshold; or if it is above, and the whole interval of the trend at most 0. Otherwise not
  decided. With a single ratio there is no trend, and the effect decides alone.

Nothing is decided with fewer than 5 seeds (of fewer values no bootstrap interval has 95%), where a seed has no value,
for claim 3 where the rare classes' mean train recall is below 0.9 (they are not fitted), nor is claim 2 refuted where a
rare class was never learned (then the lag is only known to be at least so long).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

import numpy as np
import pandas as pd

from imbdyn.experiments.study.bootstrap import mean_interval
from imbdyn.findings.finding import Verdict, by_interval
from imbdyn.findings.intervals import Interval
from imbdyn.findings.late_overfit import FITTED

#: Seeds from which on anything is decided.
LEAST_SEEDS = 5

_BALANCED, _EARLY, _LATE = "alike_when_balanced", "early_underfit", "late_overfit"


@dataclass(frozen=True)
class Effect:
    """A mean over seeds."""

    ir: float | None
    """Mean imbalance ratio of the experiments; None for a trend."""
    seeds: int
    """How many have a value."""
    value: float | None
    lower: float | None
    upper: float | None
    verdict: Verdict | None
    """None for a trend, and for what is no claim."""


@dataclass(frozen=True)
class Summary:
    """One measure in one group of experiments, which differ in seed and imbalance only."""

    group: str
    """JSON of what they have in common."""
    data: str
    model: str
    method: str
    profile: str
    measure: str
    claim: str
    unit: str
    threshold: float | None
    effects: list[Effect]
    """By ascending imbalance ratio."""
    trend: Effect | None
    """In `unit` per factor of 10 in the ratio; None where there is one ratio."""
    verdict: Verdict | None


#: Columns of the results that are summarised beside the claims: what published tables have.
_ERRORS = {
    "test_error": "Test error of the imbalanced run at the last epoch.",
    "best_test_error": "Test error of the imbalanced run at its best epoch, which is chosen on test data.",
}


def summarise(table: pd.DataFrame) -> list[Summary]:
    """Return a summary for each group and measure of a table of results, then the group's errors."""
    summaries = []
    for _, group in table.groupby("group", sort=False):
        summaries += [_summary(rows) for _, rows in group.groupby("measure", sort=False)]
        once = group.drop_duplicates(["imbalance", "seed"])
        for column, words in _ERRORS.items():
            errors = pd.to_numeric(once[column])
            if errors.notna().any():
                made = once.assign(measure=column, claim=words, value=errors, unit="share", threshold=np.nan)
                summaries.append(_summary(made))
    return summaries


def _summary(rows: pd.DataFrame) -> Summary:
    first = rows.iloc[0]
    measure, threshold = str(first["measure"]), None if pd.isna(first["threshold"]) else float(first["threshold"])
    if measure == _BALANCED:  # the runs of all ratios are one run
        rows = rows.drop_duplicates("seed").assign(imbalance="", ir=1.0)
    levels = sorted((level for _, level in rows.groupby("imbalance")), key=lambda level: float(level["ir"].mean()))
    effects = [_effect(level, measure, threshold) for level in levels]
    trend = _trend(rows) if len(levels) > 1 else None
    return Summary(
        group=str(first["group"]),
        data=str(first["data"]),
        model=str(first["model"]),
        method=str(first["method"]),
        profile=str(first["profile"]),
        measure=measure,
        claim=str(first["claim"]),
        unit=str(first["unit"]),
        threshold=threshold,
        effects=effects,
        trend=trend,
        verdict=_verdict(effects[-1], trend) if threshold is not None else None,
    )


def _effect(level: pd.DataFrame, measure: str, threshold: float | None) -> Effect:
    interval = mean_interval(level["value"].dropna().tolist())
    verdict: Verdict | None = None
    if threshold is not None:
        verdict = _judged(level, interval, measure, threshold)
    return _made(float(level["ir"].mean()), int(level["value"].count()), interval, verdict)


def _judged(level: pd.DataFrame, interval: Interval, measure: str, threshold: float) -> Verdict:
    if len(level) < LEAST_SEEDS or level["value"].isna().any():
        return "not decided"
    if measure == _BALANCED:
        least = mean_interval(level["lower"].dropna().tolist())
        return by_interval(least.lower, interval.upper, threshold, above="refuted", below="supported")
    if measure == _LATE and not level["rare_train_recall"].mean() >= FITTED:
        return "not decided"
    verdict = by_interval(interval.lower, interval.upper, threshold, above="supported", below="refuted")
    at_least = measure == _EARLY and bool(level["rare_unlearned"].any())
    return "not decided" if at_least and verdict == "refuted" else verdict


def _trend(rows: pd.DataFrame) -> Effect:
    slopes = []
    for _, seed in rows.groupby("seed"):
        x, y = np.log10(seed["ir"].to_numpy(float)), seed["value"].to_numpy(float)
        if not np.isnan(y).any() and np.ptp(x) > 0:
            from_mean = x - x.mean()
            # from the first value, not from the mean: of equal ones the slope is 0, not the sign of a rounding error
            slopes.append(float(from_mean @ (y - y[0]) / (from_mean @ from_mean)))
    return _made(None, len(slopes), mean_interval(slopes), None)


def _verdict(largest: Effect, trend: Effect | None) -> Verdict:
    """Join the verdict at the largest ratio with the sign of the trend."""
    if trend is None or largest.verdict == "refuted":
        return largest.verdict or "not decided"
    if trend.seeds < LEAST_SEEDS or trend.lower is None or trend.upper is None or largest.verdict == "not decided":
        return "not decided"
    return by_interval(trend.lower, trend.upper, 0.0, above="supported", below="refuted")


def _made(ir: float | None, seeds: int, interval: Interval, verdict: Verdict | None) -> Effect:
    value, lower, upper = (None if isnan(number) else number for number in interval)
    return Effect(ir, seeds, value, lower, upper, verdict)
