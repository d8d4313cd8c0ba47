"""Which steps are read, and what reading has cost: the budget."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from imbdyn.monitor.clocks import Clock, HostClock

#: Steps whose times are remembered to tell what a sampled step costs beyond the time spent in our own code.
_REMEMBERED = 64
#: The logits may take at most this part of the budget; past it they too are read on some steps only.
_LOGITS_PART = 0.5
#: But never on fewer than every so many: a class must be seen in every epoch, whatever that costs on a tiny model.
_LOGITS_AT_LEAST = 8
#: A step longer than so many usual ones holds a pause (an idle notebook), which is no training that earns a budget.
_PAUSE = 8
#: Medians are taken anew after every sampled step and every so many others: they too cost time.
_ESTIMATE_EVERY = 16
#: What `record` says that is added up over the processes of a run that was resumed.
_ADDED_UP = ("sampled_steps", "logits_steps", "seconds", "hidden_seconds", "training_seconds")


@dataclass(frozen=True)
class Lap:
    """Some steps, and what the instrument took in them."""

    steps: int
    overhead_seconds: float
    clock: Clock
    began: Any
    ended: Any

    def step_seconds(self) -> float:
        """Return the mean seconds of a step; on a GPU this waits for the last one, if it has not passed."""
        return self.clock.seconds(self.began, self.ended) / self.steps


@dataclass(frozen=True)
class _Step:
    """A step that is done as the host sees it; when its clock has passed its end, its seconds are known."""

    began: Any
    ended: Any
    ours: float
    sampled: bool
    logits: bool
    number: int


class Cadence:
    """Spends a budget on sampled steps.

    Training steps earn `budget` x their own time; what the instrument takes in them is spent, and a step is sampled
    when what was earned pays for it. Evaluations neither earn nor spend: they are read in full. Steps 1, 2, 4, 8, ...
    are sampled in any case, and the logits of every 8th step are read: the stated minimum for short trainings and for
    tiny models, whose true cost the record shows. With `interval=k` every k-th step is sampled instead.

    What the instrument takes is the host's time in it, and what sampled steps take longer beside. On a GPU steps are
    timed there, when they have passed: the host's time is then an upper bound of what an unsampled step costs, and a
    sampled step costs what it takes longer than others, which may be less than the host's time, since it runs ahead.

    Args:
        budget: share of training time, above 0.
        interval: None, or at least 1.
    """

    def __init__(self, budget: float, interval: int | None) -> None:
        if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 < budget <= 1:
            raise ValueError(f"budget must be a share of training time above 0 and at most 1, got {budget!r}")
        if interval is not None and (isinstance(interval, bool) or not isinstance(interval, int) or interval < 1):
            raise ValueError(f"interval must be an int of at least 1, got {interval!r}")
        self._budget = budget
        self._interval = interval
        self.steps = 0
        self.sampled_steps = 0
        self.logits_steps = 0
        self._wall = HostClock()
        self._clock: Clock = self._wall
        self._started: float | None = None
        self._spent = 0.0
        self._spent_before_step = 0.0
        self._spent_before_lap = 0.0
        self._step_began: Any = 0.0
        self._lap_began: Any = 0.0
        self._not_passed: deque[_Step] = deque()
        self._sampled_cost: deque[float] = deque(maxlen=_REMEMBERED)
        self._logits_cost: deque[float] = deque(maxlen=_REMEMBERED)
        self._bare: deque[float] = deque(maxlen=_REMEMBERED)
        self._hidden: deque[float] = deque(maxlen=_REMEMBERED)
        self._bare_step = 0.0
        self._trained = 0.0
        self._spent_in_steps = 0.0
        self._hidden_per_sample = 0.0
        self._cost_of_sample = 0.0
        self._logits_interval = 1
        self._earlier: dict[str, float] = {}

    @property
    def began(self) -> bool:
        """Whether `start` was called."""
        return self._started is not None

    def start(self, clock: Clock | None = None) -> None:
        """Start at the first batch, with the clock for steps; None is the host's."""
        if self._started is None:
            self._clock = clock or self._clock
            self._started = self._wall.now()
            self._step_began = self._lap_began = self._clock.now()

    def spend(self, seconds: float) -> None:
        """Account for time that the instrument took."""
        self._spent += seconds

    def gradients_due(self) -> bool:
        """Whether the coming step is to be sampled."""
        step = self.steps + 1
        if self._interval is not None:
            return step % self._interval == 0 or step == 1
        if step & (step - 1) == 0:
            return True
        return self._spent_in_steps + self._cost_of_sample <= self._budget * self._trained

    def logits_due(self) -> bool:
        """Whether the logits of the next step are to be read: always, unless that alone would take half the budget."""
        return self.steps % self._logits_interval == 0

    def step_done(self, *, sampled: bool, logits: bool) -> None:
        """Close a step: what was spent since the last one was spent on it."""
        ours = self._spent - self._spent_before_step
        self.steps += 1
        self.sampled_steps += sampled
        self.logits_steps += logits
        self._spent_in_steps += ours + self._hidden_per_sample * sampled
        now = self._clock.now()
        self._not_passed.append(_Step(self._step_began, now, ours, sampled, logits, self.steps))
        self._step_began, self._spent_before_step = now, self._spent
        self._take_passed()

    def was_skipped(self) -> None:
        """Correct the number of sampled steps by one that the optimizer left out, as became known later."""
        self.sampled_steps -= 1

    def _take_passed(self) -> None:
        """Learn from the steps that have passed."""
        while self._not_passed and self._clock.has_passed(self._not_passed[0].ended):
            step = self._not_passed.popleft()
            bare = self._clock.seconds(step.began, step.ended) - step.ours
            self._trained += min(bare, _PAUSE * self._bare_step) if self._bare_step else bare
            if step.number == 1:  # it pays for caches and lazy initialisation, watched or not
                continue
            if not step.sampled:
                self._bare.append(bare)
            elif self._bare_step:
                self._hidden.append(bare - self._bare_step)
            if step.sampled:
                self._sampled_cost.append(step.ours)
            elif step.logits:
                self._logits_cost.append(step.ours)
            if step.sampled or step.number % _ESTIMATE_EVERY == 0:
                self._estimate()

    def lap(self, steps: int) -> Lap:
        """Return the `steps` steps since the last lap, and the instrument's seconds in them."""
        now = self._clock.now()
        lap = Lap(steps, self._spent - self._spent_before_lap, self._clock, self._lap_began, now)
        self._lap_began, self._spent_before_lap = now, self._spent
        return lap

    def skip(self) -> None:
        """Leave out of the step times what has passed since the last step: an evaluation."""
        self._step_began = self._lap_began = self._clock.now()
        self._spent_before_step = self._spent_before_lap = self._spent

    def go_on(self, steps: int, earlier: Mapping[str, Any]) -> None:
        """Count on after `steps` steps, of which `record` returned `earlier`."""
        self.steps = steps
        self._earlier = {name: earlier[name] or 0 for name in _ADDED_UP}

    def record(self) -> dict[str, Any]:
        """Return what was read and what it cost, for run.json; seconds are wall-clock, those before a resumption too.

        `share` is the instrument's time over the rest of the time since the first batch. `hidden_seconds` is what
        sampled steps took longer than others beyond the time in our own code (cold caches, the allocator), estimated
        from medians; null where every step or none is sampled. On a GPU it is below 0 where the host did that part of
        our work while the GPU was busy.
        """
        self._take_passed()
        so_far: dict[str, float] = {
            "sampled_steps": self.sampled_steps,
            "logits_steps": self.logits_steps,
            "seconds": self._all_spent(),
            "hidden_seconds": self._hidden_per_sample * self.sampled_steps,
            "training_seconds": self._elapsed() - self._all_spent(),
        }
        whole = {name: value + self._earlier.get(name, 0) for name, value in so_far.items()}
        bare = whole["training_seconds"]
        hidden_is_known = bool(self._hidden) or self._earlier.get("hidden_seconds", 0) != 0
        return {
            "budget": self._budget if self._interval is None else None,
            "interval": self._interval,
            "steps": self.steps,
            **whole,
            "hidden_seconds": whole["hidden_seconds"] if hidden_is_known else None,
            "share": whole["seconds"] / bare if bare > 0 else None,
        }

    def _elapsed(self) -> float:
        return 0.0 if self._started is None else self._wall.now() - self._started

    def _estimate(self) -> None:
        if self._bare:
            self._bare_step = median(self._bare)
        if self._hidden:
            least = -median(self._sampled_cost) if self._clock.runs_behind else 0.0
            self._hidden_per_sample = max(least, median(self._hidden))
        if self._sampled_cost:
            self._cost_of_sample = median(self._sampled_cost) + self._hidden_per_sample
        if self._bare_step > 0 and self._logits_cost and self._interval is None:
            affordable = int(median(self._logits_cost) / (self._budget * _LOGITS_PART * self._bare_step)) + 1
            self._logits_interval = min(affordable, _LOGITS_AT_LEAST)

    def _all_spent(self) -> float:
        return self._spent + self._hidden_per_sample * self.sampled_steps
