"""What time is for the budget: of the host, or of the GPU that works behind it."""

from __future__ import annotations

from time import perf_counter
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Tells moments; how far they lie apart may be known later only."""

    runs_behind: bool
    """Whether the host runs ahead, so that its own time may be hidden behind that of the device."""

    def now(self) -> Any:
        """Return this moment."""

    def has_passed(self, moment: Any) -> bool:
        """Whether `seconds` would not wait for `moment`."""

    def seconds(self, earlier: Any, later: Any) -> float:
        """Return the seconds between two moments, waiting for them if they have not passed."""


class HostClock:
    """Wall-clock time."""

    runs_behind = False

    def now(self) -> float:
        """Return this moment in seconds."""
        return perf_counter()

    def has_passed(self, moment: float) -> bool:  # noqa: ARG002 - as the other has it
        """Say yes: what the host calls a moment has passed."""
        return True

    def seconds(self, earlier: float, later: float) -> float:
        """Return the seconds between two moments."""
        return later - earlier


class DeviceClock:
    """Moments are events on the current stream of a GPU.

    The host returns from a step long before the GPU has done it, so its clock says nothing of a step. From the end of
    one step to the end of the next on the GPU is how long the step really took: where the GPU waits for the host, that
    wait is in it.
    """

    runs_behind = True

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> torch.cuda.Event:
        """Return an event after all work so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def has_passed(self, moment: torch.cuda.Event) -> bool:
        """Whether the GPU has come so far."""
        return bool(moment.query())

    def seconds(self, earlier: torch.cuda.Event, later: torch.cuda.Event) -> float:
        """Return the seconds between two events."""
        earlier.synchronize()
        later.synchronize()
        return 1e-3 * float(earlier.elapsed_time(later))


def clock_of(device: torch.device) -> Clock:
    """Return the clock for a model on `device`."""
    return DeviceClock(device) if device.type == "cuda" else HostClock()
