"""Each claim on traces with known answers; each verdict comes out each way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from findings.synthetic_traces import TEST_COUNT, class_rows, curve_reaching, write_rows, write_trace

import imbdyn.findings
from imbdyn.findings import Finding, alike_when_balanced, claims, early_underfit, findings, late_overfit
from imbdyn.findings.intervals import wilson
from imbdyn.trace import Trace

EPOCHS = 20
RARE = {"rare_classes": [0, 1, 2, 3, 4]}
LEARNED = [[1.0] * EPOCHS] * 10


def lagging(path: Path, rare: int | None, others: int | None, counts: list[int] | None = None) -> Trace:
    """Ten classes, of which the five rare ones reach recall 1 at one epoch and the others at another."""
    curves = [curve_reaching(rare, EPOCHS)] * 5 + [curve_reaching(others, EPOCHS)] * 5
    return write_trace(path, counts or [6] * 5 + [120] * 5, curves, config=RARE)


def overfitted(path: Path, rare: float, others: float, train: float = 1.0) -> Trace:
    """Ten classes with these test recalls in the end, and this train recall of the rare ones."""
    curves = [[train] * EPOCHS] * 5 + [[1.0] * EPOCHS] * 5
    return write_trace(path, [6] * 5 + [120] * 5, curves, [rare] * 5 + [others] * 5, config=RARE)


class TestAlikeWhenBalanced:
    def test_equal_curves_support_it(self, tmp_path: Path) -> None:
        found = alike_when_balanced(write_trace(tmp_path / "run", [500] * 10, LEARNED))
        assert (found.value, found.lower, found.upper, found.verdict) == (0.0, 0.0, 0.0, "supported")

    def test_a_class_that_lags_by_half_the_run_refutes_it(self, tmp_path: Path) -> None:
        curves = [*LEARNED[1:], curve_reaching(11, EPOCHS)]
        found = alike_when_balanced(write_trace(tmp_path / "run", [500] * 10, curves))
        assert (found.value, found.verdict) == (0.5, "refuted")
        assert "9 slowest" in found.sentence

    def test_few_samples_decide_nothing(self, tmp_path: Path) -> None:
        curves = [[0.9] * EPOCHS] * 9 + [[0.75] * EPOCHS]
        found = alike_when_balanced(write_trace(tmp_path / "few", [6] * 10, curves))
        assert found.value == pytest.approx(0.15)
        assert found.verdict == "not decided"
        assert alike_when_balanced(write_trace(tmp_path / "many", [6000] * 10, curves)).verdict == "refuted"

    def test_interval_is_the_normal_one_of_two_proportions(self, tmp_path: Path) -> None:
        found = alike_when_balanced(write_trace(tmp_path / "run", [100, 100], [[0.8] * EPOCHS, [0.9] * EPOCHS]))
        half = 1.959964 * (0.8 * 0.2 / 100 + 0.9 * 0.1 / 100) ** 0.5
        assert found.value == pytest.approx(0.1)
        assert found.upper == pytest.approx(0.1 + half)

    def test_many_classes_that_are_alike_do_not_refute_it(self, tmp_path: Path) -> None:
        recall = np.random.default_rng(0).binomial(20, 0.7, 100) / 20  # all of the same probability
        found = alike_when_balanced(write_trace(tmp_path / "run", [20] * 100, [[r] * EPOCHS for r in recall]))
        assert found.value == pytest.approx(0.95 - 0.4)
        assert found.verdict == "not decided"
        # Dunn (1961): alpha / 2 over the 4,950 differences of two of 100 classes, 1 - Phi(4.415) = 0.025 / 4,950
        half = 4.415 * ((0.95 * 0.05 + 0.4 * 0.6) / 20) ** 0.5
        assert found.lower == pytest.approx(0.55 - half, abs=1e-5)

    def test_many_classes_with_little_between_them_support_it(self, tmp_path: Path) -> None:
        curves = [[0.9] * EPOCHS] * 99 + [[0.87] * EPOCHS]
        found = alike_when_balanced(write_trace(tmp_path / "run", [200] * 100, curves))
        # the largest difference is at most what any of them may be by its own interval: there is no choice to pay for
        assert found.upper == pytest.approx(0.03 + 1.959964 * ((0.9 * 0.1 + 0.87 * 0.13) / 200) ** 0.5)
        assert (found.lower, found.verdict) == (0.0, "supported")

    def test_labels_that_are_only_memorised_do_not_support_it(self, tmp_path: Path) -> None:
        found = alike_when_balanced(write_trace(tmp_path / "chance", [500] * 10, LEARNED, [0.1] * 10))
        assert (found.value, found.verdict) == (None, "not decided")
        assert "mean recall on held-out data ends at 0.10" in found.sentence
        found = alike_when_balanced(write_trace(tmp_path / "above", [500] * 10, LEARNED, [0.2] * 10))
        assert (found.value, found.verdict) == (0.0, "supported")

    def test_unequal_counts_say_nothing(self, tmp_path: Path) -> None:
        found = alike_when_balanced(write_trace(tmp_path / "run", [6] * 5 + [120] * 5, LEARNED))
        assert (found.value, found.verdict) == (None, "not decided")

    def test_a_network_that_learned_nothing_does_not_support_it(self, tmp_path: Path) -> None:
        found = alike_when_balanced(write_trace(tmp_path / "run", [100] * 10, [[0.1] * EPOCHS] * 10))
        assert (found.value, found.verdict) == (None, "not decided")


class TestEarlyUnderfit:
    def test_a_long_lag_supports_it(self, tmp_path: Path) -> None:
        found = early_underfit(lagging(tmp_path / "imb", 9, 2), lagging(tmp_path / "bal", 3, 2, [120] * 10))
        assert found.value == (9 - 2) - (3 - 2)
        # one of the 252 ways to choose five of ten classes
        assert found.p_value == pytest.approx(1 / 252)
        assert found.verdict == "supported"
        assert "epoch 9.0 on average, the others at 2.0: a lag of 7.0 epochs against 1.0" in found.sentence

    def test_no_p_value_is_told_as_zero(self, tmp_path: Path) -> None:
        curves = [curve_reaching(9, EPOCHS)] * 20 + [curve_reaching(1, EPOCHS)] * 20
        found = early_underfit(write_trace(tmp_path / "run", [6] * 20 + [120] * 20, curves))
        assert found.p_value == pytest.approx(1 / 10_000)  # of 9,999 draws and the groups as they are
        assert "against a lag of 1 epoch p < 0.001)" in found.sentence

    def test_no_lag_refutes_it(self, tmp_path: Path) -> None:
        found = early_underfit(lagging(tmp_path / "imb", 2, 2), lagging(tmp_path / "bal", 2, 2, [120] * 10))
        assert (found.value, found.verdict) == (0.0, "refuted")

    def test_few_classes_are_told_that_one_run_decides_nothing(self, tmp_path: Path) -> None:
        curves = [curve_reaching(9, EPOCHS), curve_reaching(1, EPOCHS), curve_reaching(1, EPOCHS)]
        found = early_underfit(write_trace(tmp_path / "run", [6, 120, 120], curves, config={"rare_classes": [0]}))
        assert (found.value, found.verdict) == (8, "not decided")
        assert "p = 0.333, and never below 0.333 with so few classes: several seeds decide)." in found.sentence
        assert "never below" not in early_underfit(lagging(tmp_path / "many", 9, 2)).sentence

    def test_classes_that_never_got_there_are_counted(self, tmp_path: Path) -> None:
        found = early_underfit(lagging(tmp_path / "imb", None, 2))
        assert "at epoch at least 20.0 on average (5 of 5 never did), the others at 2.0" in found.sentence

    def test_a_lag_that_was_there_when_balanced_refutes_it(self, tmp_path: Path) -> None:
        found = early_underfit(lagging(tmp_path / "imb", 9, 2), lagging(tmp_path / "bal", 9, 2, [120] * 10))
        assert (found.value, found.verdict) == (0.0, "refuted")

    def test_without_a_balanced_run_the_lag_is_compared_with_none(self, tmp_path: Path) -> None:
        found = early_underfit(lagging(tmp_path / "imb", 9, 2))
        assert (found.value, found.compared_with, found.verdict) == (7.0, "no lag", "supported")

    def test_one_rare_class_of_ten_is_too_few_to_decide(self, tmp_path: Path) -> None:
        curves = [curve_reaching(15, EPOCHS)] + [curve_reaching(1, EPOCHS)] * 9
        found = early_underfit(write_trace(tmp_path / "run", [6] + [120] * 9, curves))
        assert (found.value, found.p_value, found.verdict) == (14.0, 1 / 10, "not decided")

    def test_rare_classes_that_never_got_there_lag_at_least_to_the_end(self, tmp_path: Path) -> None:
        found = early_underfit(lagging(tmp_path / "imb", None, 2))
        assert (found.value, found.verdict) == (EPOCHS - 2, "supported")
        assert "at least 18.0 epochs" in found.sentence

    def test_a_lag_cut_off_by_the_end_cannot_refute_it(self, tmp_path: Path) -> None:
        found = early_underfit(lagging(tmp_path / "imb", None, EPOCHS))
        assert (found.value, found.verdict) == (0.0, "not decided")

    def test_others_that_never_got_there_leave_no_lag(self, tmp_path: Path) -> None:
        found = early_underfit(lagging(tmp_path / "imb", 3, None))
        assert (found.value, found.verdict) == (None, "not decided")
        assert "5 of the 5 other classes never" in found.sentence

    def test_a_balanced_run_that_learned_nothing_leaves_no_lag(self, tmp_path: Path) -> None:
        found = early_underfit(lagging(tmp_path / "imb", 9, 2), lagging(tmp_path / "bal", None, 2, [120] * 10))
        assert (found.value, found.verdict) == (None, "not decided")


class TestLateOverfit:
    def test_an_excess_gap_supports_it(self, tmp_path: Path) -> None:
        found = late_overfit(overfitted(tmp_path / "imb", 0.7, 0.98), overfitted(tmp_path / "bal", 0.97, 0.99))
        assert found.value == pytest.approx((0.30 - 0.02) - (0.03 - 0.01))
        assert found.verdict == "supported"

    def test_equal_gaps_refute_it(self, tmp_path: Path) -> None:
        found = late_overfit(overfitted(tmp_path / "imb", 0.98, 0.98), overfitted(tmp_path / "bal", 0.98, 0.98))
        assert found.value == pytest.approx(0.0)
        assert found.verdict == "refuted"

    def test_a_gap_about_the_threshold_is_not_decided(self, tmp_path: Path) -> None:
        found = late_overfit(overfitted(tmp_path / "imb", 0.92, 0.98))
        assert found.value == pytest.approx(0.06)
        assert found.verdict == "not decided"

    def test_rare_classes_that_were_not_fitted_decide_nothing(self, tmp_path: Path) -> None:
        found = late_overfit(overfitted(tmp_path / "imb", 0.3, 0.98, train=0.85))
        assert found.value == pytest.approx(0.55 - 0.02)
        assert found.verdict == "not decided"
        assert "not fitted yet" in found.sentence

    def test_scarcity_is_taken_out_of_the_gap(self, tmp_path: Path) -> None:
        found = late_overfit(overfitted(tmp_path / "imb", 0.7, 0.98), None, overfitted(tmp_path / "few", 0.8, 0.8))
        assert "Scarcity alone gives the same classes a gap of 0.20" in found.sentence
        assert "; 0.10 [" in found.sentence

    def test_interval_is_that_of_the_test_samples_alone(self, tmp_path: Path) -> None:
        trace = write_trace(tmp_path / "run", [6, 120], [[1.0], [1.0]], [0.8, 0.9], config={"rare_classes": [0]})
        found = late_overfit(trace)
        rare, others = wilson(0.8, TEST_COUNT), wilson(0.9, TEST_COUNT)
        # Newcombe's limits of R_others - R_rare; recall on the training data is a census
        below = ((0.9 - others.lower) ** 2 + (rare.upper - 0.8) ** 2) ** 0.5
        assert found.lower == pytest.approx(0.1 - below)

    def test_without_held_out_data_there_is_no_gap(self, tmp_path: Path) -> None:
        found = late_overfit(lagging(tmp_path / "run", 2, 2))
        assert (found.value, found.verdict) == (None, "not decided")
        assert "No epoch has recall on training data and on held-out data" in found.sentence

    def test_the_gap_is_that_of_the_last_epoch_with_both_splits(self, tmp_path: Path) -> None:
        def evaluated(epoch: int, split: str, recall: list[float | None], count: int) -> tuple[str, dict[str, object]]:
            absent = [r is None for r in recall]
            accuracy = np.ma.masked_array([r or 0.0 for r in recall], absent)
            of_class = [0 if none else count for none in absent]
            return class_rows(10 * epoch, split, epoch=epoch, accuracy=accuracy, count=of_class)

        whole = [evaluated(1, "train", [1.0, 0.9], 50), evaluated(1, "test", [0.6, 0.8], 100)]
        cut_short = [*whole, evaluated(2, "train", [None, 1.0], 3)]  # interrupted before a rare sample came
        found = late_overfit(write_rows(tmp_path / "run", [6, 120], cut_short, rare=[0]))
        assert found.value == pytest.approx((1.0 - 0.6) - (0.9 - 0.8))
        assert found.steps == (10, 10)

    def test_what_has_no_recall_is_named(self, tmp_path: Path) -> None:
        rows = [class_rows(10, split, epoch=1, accuracy=[1.0, 0.5]) for split in ("train", "test")]
        found = late_overfit(write_rows(tmp_path / "run", [6, 120, 120], rows, rare=[0]))
        assert found.sentence == (
            "1 of 3 classes have no recall on training data in epoch 1, the last with both: no sample of them was read"
            '; evaluate "train_eval".'
        )

    def test_training_samples_that_were_not_read_widen_the_interval(self, tmp_path: Path) -> None:
        def of(read: list[int]) -> Finding:
            rows = [
                class_rows(10, "train", epoch=1, accuracy=[1.0, 1.0], count=read),
                class_rows(10, "test", epoch=1, accuracy=[0.7, 0.9], count=1000),
            ]
            return late_overfit(write_rows(tmp_path / str(read[0]), [6, 120], rows, rare=[0]))

        whole, budgeted = of([6, 120]), of([2, 120])
        assert (whole.verdict, budgeted.verdict) == ("supported", "not decided")
        assert whole.value == budgeted.value == pytest.approx(0.2)
        # Wilson's lower limit of n of n is n / (n + z^2); 2 of 6 without replacement count as 2 * 5 / 4 samples
        below = 1 - 2.5 / (2.5 + 1.959964**2)
        assert whole.lower is not None
        assert budgeted.lower == pytest.approx(0.2 - ((0.2 - whole.lower) ** 2 + below**2) ** 0.5)


def test_the_control_says_what_scarcity_alone_does(tmp_path: Path) -> None:
    imbalanced, balanced = lagging(tmp_path / "imb", 9, 2), lagging(tmp_path / "bal", 3, 2, [120] * 10)
    scarce = lagging(tmp_path / "few", 6, 5, [6] * 10)
    found = early_underfit(imbalanced, balanced, scarce)
    assert found.value == 6.0
    assert found.beside == {"balanced": 1.0, "scarce": 1.0}
    assert "in the scarce run the same classes got there at epoch 6.0 (step 60), here at epoch 9.0 (step 90)" in (
        found.sentence
    )
    never = early_underfit(imbalanced, balanced, lagging(tmp_path / "never", None, 5, [6] * 10))
    assert never.beside == {"balanced": 1.0, "scarce": None}
    assert "at epoch at least 20.0 (step at least 200), here" in never.sentence


def test_claims_say_where_and_how_strongly(tmp_path: Path) -> None:
    lag = early_underfit(lagging(tmp_path / "lag", 9, 2))
    assert (lag.effect_size, lag.steps) == (1.0, (20, 90))
    assert lag.by_class == dict.fromkeys(range(5), 9.0) | dict.fromkeys(range(5, 10), 2.0)
    gap = late_overfit(overfitted(tmp_path / "gap", 0.7, 0.98))
    assert (gap.effect_size, gap.steps) == (1.0, (200, 200))
    assert gap.by_class == pytest.approx(dict.fromkeys(range(5), 0.3) | dict.fromkeys(range(5, 10), 0.02))
    alike = alike_when_balanced(write_trace(tmp_path / "alike", [500] * 10, LEARNED))
    assert (alike.by_class, alike.steps) == (dict.fromkeys(range(10), 1.0), (10, 200))


def test_claims_compare_the_three_runs(tmp_path: Path) -> None:
    traces = {
        "balanced": write_trace(tmp_path / "b", [120] * 10, LEARNED, [0.99] * 10, config=RARE),
        "imbalanced": write_trace(
            tmp_path / "i",
            [6] * 5 + [120] * 5,
            [curve_reaching(8, EPOCHS)] * 5 + LEARNED[5:],
            [0.7] * 5 + [0.99] * 5,
            config=RARE,
        ),
        "scarce": write_trace(tmp_path / "s", [6] * 10, LEARNED, [0.8] * 10, config=RARE),
    }
    found = claims(traces)
    assert [finding.name for finding in found] == ["alike_when_balanced", "early_underfit", "late_overfit"]
    assert [finding.verdict for finding in found] == ["supported"] * 3
    assert all(finding.rule.endswith("; other seeds may differ") for finding in found), "they are of one training"
    assert [finding.value for finding in found] == pytest.approx([0.0, 7.0, 0.29])


@pytest.mark.parametrize("claim", [early_underfit, late_overfit])
def test_a_balanced_run_cannot_refute_what_imbalance_does(tmp_path: Path, claim: Callable[[Trace], Finding]) -> None:
    found = claim(write_trace(tmp_path / "run", [120] * 10, LEARNED, [0.99] * 10, config=RARE))
    assert (found.value, found.verdict) == (None, "not decided")
    assert "nothing on imbalance" in found.sentence


@pytest.mark.parametrize("claim", [early_underfit, late_overfit])
def test_a_run_without_rare_classes_says_so(tmp_path: Path, claim: Callable[[Trace], Finding]) -> None:
    found = claim(write_trace(tmp_path / "run", [5000, 500], LEARNED[:2], [0.9, 0.5]))
    assert (found.value, found.verdict) == (None, "not decided")
    assert "all are many-shot" in found.sentence


def test_findings_of_a_single_trace_are_a_frame_with_reasons(tmp_path: Path) -> None:
    frame = findings(overfitted(tmp_path / "run", 0.6, 0.98))
    assert frame["name"].tolist()[:3] == ["alike_when_balanced", "early_underfit", "late_overfit"]
    assert frame["verdict"].tolist()[:3] == ["not decided", "refuted", "supported"]
    assert frame["verdict"][3:].isna().all()
    assert frame["sentence"].str.endswith(".").all()
    assert frame.loc[2, "value"] == pytest.approx(0.38)


def test_trace_gives_its_findings(tmp_path: Path) -> None:
    trace = overfitted(tmp_path / "run", 0.6, 0.98)
    assert trace.findings().equals(findings(trace))


def test_exported_names_exist() -> None:
    assert all(hasattr(imbdyn.findings, name) for name in imbdyn.findings.__all__)


def test_rare_classes_without_a_training_sample_are_not_late(tmp_path: Path) -> None:
    trace = write_trace(
        tmp_path / "run", [200, 200, 0], [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]], config={"rare_classes": [2]}
    )
    found = early_underfit(trace)
    assert (found.value, found.verdict) == (None, "not decided")
    assert found.sentence == "1 of the 1 rare classes have no train recall: no sample of them was read."
