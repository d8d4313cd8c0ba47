"""Advice is there where every condition holds, and gone where one does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from findings.synthetic_traces import class_rows, gradient_rows, write_rows, write_trace

from imbdyn.findings import Finding, findings, method, next_steps, phenomena, single
from imbdyn.findings.intervals import combine, wilson
from imbdyn.trace import Trace

COUNTS = [6] * 5 + [120] * 5
RARE = [0, 1, 2, 3, 4]


def run(
    path: Path,
    *,
    counts: Sequence[int] = COUNTS,
    train: float = 1.0,
    test: float = 0.5,
    margin: float = -1.0,
    rare_norm: float = 1.0,
    method: str | None = None,
    more: Sequence[tuple[str, dict[str, Any]]] = (),
) -> Trace:
    """Rare classes with these recalls, this held-out margin and these row norms; the others' are 1, 1 and 2."""
    key = {"epoch": 1, "since_step": 20}
    rows = [
        class_rows(20, "train_eval", **key, accuracy=[train] * 5 + [1.0] * 5, count=counts),
        class_rows(20, "test", **key, accuracy=[test] * 5 + [1.0] * 5, margin=[margin] * 5 + [4.0] * 5, count=100),
        (
            "classifier",
            {
                "step": 20,
                "split": "test",
                "class_id": np.arange(10),
                "row_norm": np.array([rare_norm] * 5 + [2.0] * 5) + np.arange(10) / 100,
            },
        ),
        *more,
    ]
    return write_rows(path, counts, rows, rare=RARE, method=method)


def steps_of(trace: Trace, **beside: Any) -> dict[str, Finding]:
    return {step.name: step for step in next_steps(trace, [*single(trace), *phenomena(trace)], **beside)}


def test_short_rows_and_negative_margins_of_fitted_classes(tmp_path: Path) -> None:
    step = steps_of(run(tmp_path / "run"))["adjust_logits"]
    assert step.kind == "next step"
    assert (step.value, step.verdict) == (None, None)
    assert "train recall 1.00" in step.sentence
    assert "norm 1.02 against 2.07" in step.sentence
    assert "held-out margins of -1.0: try tau-normalisation or logit adjustment." in step.sentence


@pytest.mark.parametrize(
    "change", [{"train": 0.85}, {"margin": 0.5}, {"rare_norm": 2.0}, {"rare_norm": 3.0}], ids=lambda c: next(iter(c))
)
def test_one_condition_less_and_nothing_is_said(tmp_path: Path, change: dict[str, float]) -> None:
    assert steps_of(run(tmp_path / "run", **change)) == {}


def test_a_run_that_tried_it_says_what_it_changed(tmp_path: Path) -> None:
    trace = run(tmp_path / "plain")
    tried = run(tmp_path / "adjusted", test=0.7, method="logit_adjustment")
    step = steps_of(trace, tried=[run(tmp_path / "other", method="focal"), tried])["adjust_logits"]
    change = combine([0.2] * 5 + [-0.2] * 5, [wilson(0.7, 100)] * 5 + [wilson(0.5, 100)] * 5)
    assert (step.value, step.lower, step.upper) == pytest.approx(change)
    assert step.value == pytest.approx(0.2)
    assert "In adjusted (logit_adjustment) their test recall changed by +0.20 [" in step.sentence
    assert "that of the others by +0.00" in step.sentence


def test_a_run_on_other_counts_or_with_another_method_says_nothing(tmp_path: Path) -> None:
    tried = [
        run(tmp_path / "counts", counts=[7] * 5 + [120] * 5, method="logit_adjustment"),
        run(tmp_path / "method", method="augmentation"),
    ]
    step = steps_of(run(tmp_path / "run"), tried=tried)["adjust_logits"]
    assert step.value is None
    assert step.sentence.endswith(" counts (logit_adjustment) has other class counts: what it changed is not told.")


def test_a_run_that_only_evaluates_says_what_a_post_hoc_change_did(tmp_path: Path) -> None:
    post_hoc = run(tmp_path / "tau", counts=[0] * 10, test=0.7, method="tau_normalisation")
    step = steps_of(run(tmp_path / "run"), tried=[post_hoc])["adjust_logits"]
    assert step.value == pytest.approx(0.2)
    assert "In tau (tau_normalisation) their test recall changed by +0.20 [" in step.sentence
    claims = single(post_hoc)
    assert {claim.sentence for claim in claims} == {
        "No training sample was seen in this run, so it says nothing on (im)balance."
    }
    assert {claim.verdict for claim in claims} == {"not decided"}


def test_scarcity_that_leaves_most_of_the_gap_asks_for_samples(tmp_path: Path) -> None:
    trace = run(tmp_path / "imbalanced", margin=1.0)
    scarce, balanced = (
        run(tmp_path / name, counts=[count] * 10, test=test, margin=1.0)
        for name, count, test in (("scarce", 6, 0.7), ("balanced", 120, 0.98))
    )
    step = steps_of(trace, beside={"balanced": balanced, "scarce": scarce})["more_samples"]
    assert "gap of 0.50, scarcity alone leaves 0.30 (balanced, 6 samples a class), 120 samples a class leave 0.02" in (
        step.sentence
    )
    mild = run(tmp_path / "mild", counts=[6] * 10, test=0.8, margin=1.0)
    assert steps_of(trace, beside={"balanced": balanced, "scarce": mild}) == {}, "most of the gap is not scarcity's"
    assert steps_of(trace, beside={"balanced": scarce, "scarce": scarce}) == {}, "more samples would not help"
    assert steps_of(trace, beside={"scarce": scarce}) == {}


OUTVOTED, HEARD = [[1.0, 0.1]] * 5 + [[-2.0, 0.1]] * 5, [[1.0, 0.1]] * 10


@pytest.mark.parametrize(
    ("peak", "gradients", "advised"),
    [
        (3.0, [OUTVOTED], "in 1 of the 1 steps read while the rare classes' loss rose, until step 10"),
        (3.0, [OUTVOTED, HEARD], "in 1 of the 2 steps"),
        (3.0, [OUTVOTED, HEARD, HEARD], ""),
        (3.0, [], ""),
        (1.0, [OUTVOTED], ""),
    ],
    ids=["always", "half the time", "once in three", "not read", "no drop"],
)
def test_an_initial_drop_while_outvoted_asks_for_equal_gradients(
    tmp_path: Path, peak: float, gradients: list[list[list[float]]], advised: str
) -> None:
    losses = {0: [2.0] * 10, 10: [peak] * 5 + [1.0] * 5, 20: [0.5] * 10}
    more = [class_rows(step, "train_eval", loss=loss, count=COUNTS) for step, loss in losses.items() if step < 20]
    for step, rows in [*enumerate(gradients, 5), (15, OUTVOTED)]:  # the last is later than the drop
        more += gradient_rows(step, rows)
    steps = steps_of(run(tmp_path / "run", margin=1.0, more=more))
    assert set(steps) == ({"equalise_gradients"} if advised else set())
    assert not advised or advised in steps["equalise_gradients"].sentence


def test_the_frame_has_the_steps_and_what_they_changed(tmp_path: Path) -> None:
    trace = run(tmp_path / "plain")
    frame = findings(trace, tried=[run(tmp_path / "tau", test=0.6, method="tau_normalisation")])
    assert frame["kind"].tolist()[-1] == "next step"
    assert frame["value"].iloc[-1] == pytest.approx(0.1)
    assert trace.findings()["name"].iloc[-1] == "adjust_logits"


def test_runs_of_the_built_in_experiment_name_their_method(tmp_path: Path) -> None:
    config = {"experiment": {"method": {"name": "logit_adjustment"}}, "run": "imbalanced"}
    assert method(write_trace(tmp_path / "built-in", [9, 9], [[1.0]] * 2, config=config)) == "logit_adjustment"
    named = {**config, "method": "tau_normalisation"}
    assert method(write_trace(tmp_path / "own", [9, 9], [[1.0]] * 2, config=named)) == "tau_normalisation"
    odd = {"experiment": {"method": 3}, "method": ["focal"]}
    assert method(write_trace(tmp_path / "odd", [9, 9], [[1.0]] * 2, config=odd)) is None
