"""The budget on a clock that runs behind the host, as a GPU's does."""

from __future__ import annotations

import pytest

from imbdyn.monitor.cadence import Cadence


class DeviceClock:
    """A GPU that works behind the host: moments pass when the host has gone on for `lag` seconds."""

    runs_behind = True

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.work = 0.0
        self.told = 0

    def now(self) -> tuple[int, float]:
        self.told += 1
        return self.told, self.work

    def has_passed(self, moment: tuple[int, float]) -> bool:
        return self.told - moment[0] >= self.lag

    def seconds(self, earlier: tuple[int, float], later: tuple[int, float]) -> float:
        return later[1] - earlier[1]


@pytest.mark.parametrize("lag", [0, 3, 20])
@pytest.mark.parametrize("ours", [1e-4, 4e-3])
def test_the_budget_is_kept_on_a_clock_that_runs_behind(lag: int, ours: float) -> None:
    """A sampled step takes 5 ms more of the GPU's time, whatever the host took for it meanwhile."""
    clock = DeviceClock(lag)
    cadence = Cadence(0.01, None)
    cadence.start(clock)
    sampled_steps = 0
    for _ in range(20_000):
        sampled = cadence.gradients_due()
        clock.work += 0.01 + 0.005 * sampled
        cadence.spend(ours if sampled else 1e-5)
        cadence.step_done(sampled=sampled, logits=True)
        sampled_steps += sampled
    assert sampled_steps == pytest.approx(0.009 * 20_000 * 0.01 / 0.005, rel=0.1), "1% less the 0.1% of the logits"
    record = cadence.record()
    spent = record["seconds"]
    assert spent == pytest.approx(0.01 * 20_000 * 0.01, rel=0.05), "what it cost, not what the host took"
    assert record["hidden_seconds"] == pytest.approx(sampled_steps * (0.005 - ours + 1e-5), rel=0.05)


def test_a_lap_on_the_device_is_known_later() -> None:
    clock = DeviceClock(1000)
    cadence = Cadence(0.01, 1)
    cadence.start(clock)
    for _ in range(4):
        clock.work += 0.02
        cadence.spend(0.001)
        cadence.step_done(sampled=False, logits=True)
    lap = cadence.lap(4)
    clock.work += 5.0
    assert lap.step_seconds() == pytest.approx(0.02)
    assert lap.overhead_seconds == pytest.approx(0.004)
