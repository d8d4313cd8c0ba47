"""Intervals and verdicts on numbers whose answer is known."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from imbdyn.experiments.study.bootstrap import mean_interval, student_quantile, tail_share
from imbdyn.experiments.study.results import SCHEMA
from imbdyn.experiments.study.summary import Summary, summarise
from imbdyn.report import report_console, show_study, study_records

RATIOS, SEEDS = (2, 10, 50), range(5)

#: What the experiments of a table have in common, as the results have it.
GROUPS = {name: json.dumps({"method": {"name": name}}) for name in ("focal", "ldam")}


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 9, 29, 30, 101])
def test_students_quantile_is_scipys(degrees: int) -> None:
    assert student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)


def test_the_interval_is_as_wide_as_students_where_the_bootstrap_is_normal() -> None:
    values = stats.norm.ppf((np.arange(200) + 0.5) / 200)
    value, lower, upper = mean_interval(values.tolist())
    half = stats.t.ppf(0.975, 199) * values.std(ddof=1) / 200**0.5
    assert value == pytest.approx(0.0, abs=1e-12)
    assert (lower, upper) == pytest.approx((-half, half), rel=0.03)


def test_equal_values_have_no_width_and_equal_calls_equal_limits() -> None:
    assert mean_interval([0.3] * 5) == pytest.approx((0.3, 0.3, 0.3))
    assert mean_interval([1.0, 2.0, 4.0]) == mean_interval([1.0, 2.0, 4.0])
    assert np.isnan(mean_interval([0.3])[1:]).all()
    assert np.isnan(mean_interval([])).all()


def test_of_few_values_the_interval_lies_within_their_range() -> None:
    for count in (2, 3, 5, 8):
        values = np.random.default_rng(count).normal(size=count)
        _, lower, upper = mean_interval(values.tolist())
        assert values.min() <= lower < values.mean() < upper <= values.max()
    assert tail_share(1000) == pytest.approx(0.025, rel=0.02)


@pytest.mark.parametrize(("count", "at_least"), [(5, 0.91), (8, 0.92)])
def test_the_interval_of_normal_values_holds_their_mean(count: int, at_least: float) -> None:
    samples = np.random.default_rng(0).normal(size=(500, count))
    held = [lower <= 0.0 <= upper for _, lower, upper in (mean_interval(sample) for sample in samples.tolist())]
    # 500 samples: the deviation of the share is 0.01; the percentile bootstrap holds it 0.83 and 0.88 of the time
    assert np.mean(held) >= at_least


def table(value: Callable[[str, int, int], float | None], **columns: object) -> pd.DataFrame:
    """Results whose value at a measure, ratio and seed is given."""
    rows = []
    for measure, threshold in (
        ("alike_when_balanced", 0.1),
        ("early_underfit", 1.0),
        ("late_overfit", 0.05),
        ("gap_beyond_scarcity", None),
    ):
        for ratio in RATIOS:
            for seed in SEEDS:
                row = {
                    "group": GROUPS["focal"], "data": "digits", "model": "mlp", "method": "focal", "profile": "step",
                    "imbalance": f"{ratio:03}", "seed": seed, "ir": float(ratio), "measure": measure,
                    "claim": f"The claim {measure}.", "unit": "recall", "threshold": threshold,
                    "rare_train_recall": 1.0, "rare_unlearned": 0,
                }  # fmt: skip
                row["value"] = value(measure, ratio, seed)
                row["lower"] = row["value"] if measure == "alike_when_balanced" else None
                rows.append({**dict.fromkeys(SCHEMA.names), **row, **columns})
    return pd.DataFrame(rows)


def found(frame: pd.DataFrame) -> dict[str, Summary]:
    return {summary.measure: summary for summary in summarise(frame)}


def growing(measure: str, ratio: int, seed: int) -> float:
    """Twice log10(ratio), and a seed's own offset; the balanced runs are alike."""
    offset = 0.01 * (seed - 2)
    return 0.03 + offset / 10 if measure == "alike_when_balanced" else 2.0 * np.log10(ratio) + offset


def test_effects_are_means_and_trends_slopes_over_the_logarithm_of_the_ratio() -> None:
    summary = found(table(growing))["late_overfit"]
    assert [effect.ir for effect in summary.effects] == [2.0, 10.0, 50.0]
    assert [effect.value for effect in summary.effects] == pytest.approx([2 * np.log10(r) for r in RATIOS])
    assert summary.effects[0].lower < summary.effects[0].value < summary.effects[0].upper
    assert (summary.trend.value, summary.trend.lower, summary.trend.upper) == pytest.approx((2.0, 2.0, 2.0))
    assert summary.trend.seeds == 5


@pytest.mark.parametrize("constant", [0.1, 0.3, 0.5, 0.7, 5.0])
def test_equal_values_have_no_trend(constant: float) -> None:
    summary = found(table(lambda *_: constant))["late_overfit"]
    assert (summary.trend.value, summary.trend.lower, summary.trend.upper) == (0.0, 0.0, 0.0)
    assert summary.verdict == "refuted"


def test_the_balanced_runs_of_all_ratios_are_one() -> None:
    summary = found(table(growing))["alike_when_balanced"]
    (effect,) = summary.effects
    assert (effect.ir, effect.seeds, summary.trend) == (1.0, 5, None)
    assert effect.value == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("value", "columns", "verdicts"),
    [
        (growing, {}, ("supported", "supported", "supported")),
        (lambda *_: 0.0, {}, ("supported", "refuted", "refuted")),
        (lambda *_: 5.0, {}, ("refuted", "refuted", "refuted")),  # an effect without a trend
        (lambda m, r, s: -growing(m, r, s) + 7, {}, ("refuted", "refuted", "refuted")),  # it shrinks
        (lambda m, r, s: growing(m, r, s) + 9 * (s - 2), {}, ("not decided", "not decided", "not decided")),
        (lambda m, r, s: None if s == 3 else growing(m, r, s), {}, ("not decided",) * 3),
        (growing, {"rare_train_recall": 0.89}, ("supported", "supported", "not decided")),
        (growing, {"rare_unlearned": 1}, ("supported", "supported", "supported")),
        (lambda *_: 0.0, {"rare_unlearned": 1}, ("supported", "not decided", "refuted")),
        # two of many equal classes differ by as much in every seed, by chance
        (lambda *_: 0.5, {"lower": 0.0}, ("not decided", "refuted", "refuted")),
    ],
)
def test_verdicts(value, columns, verdicts) -> None:
    summaries = found(table(value, **columns))
    assert (
        tuple(summaries[name].verdict for name in ("alike_when_balanced", "early_underfit", "late_overfit")) == verdicts
    )
    assert summaries["gap_beyond_scarcity"].verdict is None


def test_four_seeds_decide_nothing() -> None:
    frame = table(growing)
    assert {summary.verdict for summary in summarise(frame[frame["seed"] < 4])} == {"not decided", None}


def test_a_single_ratio_is_decided_by_its_effect() -> None:
    frame = table(growing)
    summary = found(frame[frame["ir"] == 10.0])["late_overfit"]
    assert (summary.trend, summary.verdict) == (None, "supported")


def test_groups_are_summarised_apart() -> None:
    frame = pd.concat([table(growing), table(lambda *_: 0.0, group=GROUPS["ldam"], method="ldam")])
    assert [(s.method, s.measure, s.verdict) for s in summarise(frame)][2::4] == [
        ("focal", "late_overfit", "supported"),
        ("ldam", "late_overfit", "refuted"),
    ]


def test_the_printed_table_is_80_columns_wide_and_says_it_all() -> None:
    buffer = io.StringIO()
    tiny = table(lambda *_: -1e-5, group=GROUPS["ldam"], method="ldam")
    show_study(report_console(buffer), "mine", summarise(pd.concat([table(growing), tiny])))
    text = buffer.getvalue()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "Study mine: digits, mlp, focal, step imbalance" in text
    assert "3. SUPPORTED: The claim late_overfit." in text
    assert "\nThe claim gap_beyond_scarcity." in text
    assert text.count("trend      5     2.000  [2.000, 2.000]") == 3
    assert "-0.000" not in text


def test_records_hold_no_nan() -> None:
    frame = table(lambda m, r, s: None if s else growing(m, r, s))
    assert study_records(summarise(frame))[1]["effects"][0]["lower"] is None


def test_tables_whose_method_has_other_options_say_which() -> None:
    groups = [
        json.dumps({"method": {"name": "ldam", "scale": 30.0, "reweight_after": after}, "train": {"lr": 0.1}})
        for after in (160, 200)
    ]
    frame = pd.concat([table(growing, group=group, method="ldam") for group in groups])
    buffer = io.StringIO()
    show_study(report_console(buffer), "mine", summarise(frame))
    headings = [line for line in buffer.getvalue().splitlines() if line.startswith("Study mine")]
    assert headings == [
        f"Study mine: digits, mlp, ldam, step imbalance, method.reweight_after {after}" for after in (160, 200)
    ]


def test_errors_at_the_last_and_at_the_best_epoch_stand_beside_the_claims() -> None:
    frame = table(growing).assign(test_error=0.3, best_test_error=0.25)
    frame.loc[frame["seed"] == 0, "test_error"] = 0.4
    summaries = found(frame)
    last, best = summaries["test_error"], summaries["best_test_error"]
    assert (last.verdict, last.threshold, last.unit) == (None, None, "share")
    assert [effect.value for effect in last.effects] == pytest.approx([0.32] * 3)
    assert [(effect.ir, effect.seeds, effect.value) for effect in best.effects] == [(r, 5, 0.25) for r in RATIOS]
    buffer = io.StringIO()
    show_study(report_console(buffer), "mine", list(summaries.values()))
    assert "at the last epoch.\n       2      5     0.320" in buffer.getvalue()
    assert "at its best epoch" in buffer.getvalue()
