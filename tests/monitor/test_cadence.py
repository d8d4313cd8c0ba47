"""Which steps are read: the budget, on a clock that the test winds."""

from __future__ import annotations

import pytest

from imbdyn.monitor import clocks
from imbdyn.monitor.cadence import Cadence


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(clocks, "perf_counter", clock)
    return clock


def simulate(
    cadence: Cadence, clock: Clock, steps: int, *, bare: float, logits: float, sample: float, hidden: float = 0.0
) -> list[int]:
    """Train with known costs in seconds; return the sampled steps."""
    cadence.start()
    sampled_steps = []
    for step in range(1, steps + 1):
        sampled, reads = cadence.gradients_due(), cadence.logits_due()
        ours = logits * reads + sample * sampled
        clock.now += bare + ours + hidden * sampled
        cadence.spend(ours)
        cadence.step_done(sampled=sampled, logits=reads)
        if sampled:
            sampled_steps.append(step)
    return sampled_steps


def test_the_budget_is_kept_and_used(clock: Clock) -> None:
    cadence = Cadence(0.01, None)
    steps = simulate(cadence, clock, 20_000, bare=0.01, logits=2e-5, sample=0.005)
    share = cadence.record()["share"]
    assert isinstance(share, float)
    assert 0.009 < share <= 0.0101
    assert len(steps) == pytest.approx(0.008 * 20_000 * 0.01 / 0.005, rel=0.1), "1% less the 0.2% of the logits"


def test_what_a_sampled_step_costs_beyond_our_own_code_is_paid_from_the_budget(clock: Clock) -> None:
    cadence = Cadence(0.01, None)
    steps = simulate(cadence, clock, 20_000, bare=0.01, logits=2e-5, sample=0.005, hidden=0.003)
    assert len(steps) == pytest.approx(0.008 * 20_000 * 0.01 / 0.008, rel=0.1)
    record = cadence.record()
    assert record["hidden_seconds"] == pytest.approx(0.003 * len(steps), rel=0.05)
    assert record["share"] == pytest.approx(0.01, rel=0.1)


def test_logits_that_cost_more_than_the_budget_are_sampled_too(clock: Clock) -> None:
    cadence = Cadence(0.01, None)
    simulate(cadence, clock, 20_000, bare=1e-3, logits=2.2e-5, sample=5e-3)
    assert cadence.record()["logits_steps"] == pytest.approx(20_000 / 5, rel=0.05), "2.2% where 0.5% is allowed"
    assert cadence.record()["share"] == pytest.approx(0.01, rel=0.1)


def test_logits_are_never_read_on_fewer_than_every_eighth_step(clock: Clock) -> None:
    cadence = Cadence(0.01, None)
    simulate(cadence, clock, 20_000, bare=1e-4, logits=2e-5, sample=1e-3)
    record = cadence.record()
    assert record["logits_steps"] == pytest.approx(20_000 / 8, rel=0.05)
    assert record["share"] == pytest.approx(0.025 + 15 * 1e-3 / 2, rel=0.1), "the record says what the minimum cost"


def test_the_stated_minimum_is_sampled_whatever_it_costs(clock: Clock) -> None:
    steps = simulate(Cadence(1e-9, None), clock, 100, bare=0.01, logits=0.0, sample=1.0)
    assert steps == [1, 2, 4, 8, 16, 32, 64]


def test_an_interval_samples_the_first_and_every_kth_step(clock: Clock) -> None:
    assert simulate(Cadence(0.01, 5), clock, 16, bare=0.01, logits=0.0, sample=1.0) == [1, 5, 10, 15]


def test_a_lap_is_the_mean_step_and_what_was_spent(clock: Clock) -> None:
    cadence = Cadence(0.01, 1)
    simulate(cadence, clock, 4, bare=0.01, logits=0.0, sample=0.01)
    lap = cadence.lap(4)
    assert (lap.step_seconds(), lap.overhead_seconds) == (pytest.approx(0.02), pytest.approx(0.04))
    clock.now += 100  # an evaluation
    cadence.skip()
    simulate(cadence, clock, 2, bare=0.01, logits=0.0, sample=0.0)
    lap = cadence.lap(2)
    assert (lap.step_seconds(), lap.overhead_seconds) == (pytest.approx(0.01), 0.0)


def test_a_training_that_becomes_faster_hides_no_cost(clock: Clock) -> None:
    cadence = Cadence(0.01, None)
    simulate(cadence, clock, 1500, bare=0.1, logits=0.0, sample=0.005)
    steps = simulate(cadence, clock, 4500, bare=0.05, logits=0.0, sample=0.005)
    record = cadence.record()
    assert record["hidden_seconds"] == pytest.approx(0, abs=0.1)
    assert record["share"] == pytest.approx(0.01, rel=0.1)
    assert len(steps) == pytest.approx(450, rel=0.1), "sampling goes on"


def test_a_pause_earns_nothing(clock: Clock) -> None:
    cadence = Cadence(0.01, None)
    simulate(cadence, clock, 1000, bare=0.1, logits=0.0, sample=0.01)
    clock.now += 3600
    steps = simulate(cadence, clock, 1000, bare=0.1, logits=0.0, sample=0.01)
    assert len(steps) == pytest.approx(100, rel=0.15)


def test_a_clock_that_stands_still_is_no_error(clock: Clock) -> None:
    cadence = Cadence(0.01, None)
    simulate(cadence, clock, 100, bare=0.0, logits=0.0, sample=0.0)
    assert cadence.record()["steps"] == 100
