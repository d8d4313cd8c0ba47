"""The runs of a study in processes on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import FrameType
from typing import Any

from imbdyn.experiments.study.plan import Task
from imbdyn.experiments.study.work import Outcome, perform

#: Seconds between two looks at how far the runs are.
_LOOK_EVERY = 0.2

#: Called with the runs that have ended and, of those that go on, the epochs that are done.
Progress = Callable[[int, int], None]


def run_locally(tasks: Sequence[Task], jobs: int, progress: Progress) -> list[Outcome]:
    """Train runs in `jobs` processes, one thread each; return how each ended, in their order.

    The processes are started anew (spawn), not forked: torch's threads do not survive a fork.

    Raises: KeyboardInterrupt, after the runs have closed their traces; what is not finished goes on in a later call.
    """
    context = get_context("spawn")
    stop, epochs = context.Event(), context.Value("q", 0)
    with ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(stop, epochs)) as pool:
        futures = [pool.submit(_work, task) for task in tasks]
        try:
            _follow(futures, lambda done: progress(done, epochs.value))
        except BaseException:
            stop.set()  # runs end after their epoch, if no signal has reached them
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        outcomes = [_outcome(future) for future in futures]
    if any(outcome.interrupted for outcome in outcomes):
        raise KeyboardInterrupt
    return outcomes


def _follow(futures: Sequence[Future[Outcome]], look: Callable[[int], None]) -> None:
    waiting: set[Future[Outcome]] = set(futures)
    while waiting:
        _, waiting = wait(waiting, timeout=_LOOK_EVERY, return_when=FIRST_COMPLETED)
        look(len(futures) - len(waiting))


def _outcome(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        return Outcome("a process of the study was killed (out of memory?), and with it the runs that waited")


_stop: Any = None
_epochs: Any = None
_busy = False


def _begin(stop: Any, epochs: Any) -> None:
    """Prepare a process: Ctrl-C interrupts a run, and nothing else, since a process that died would break the pool."""
    global _stop, _epochs
    _stop, _epochs = stop, epochs
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    if _busy:
        raise KeyboardInterrupt


def _work(task: Task) -> Outcome:
    global _busy
    if _stop.is_set():
        return Outcome(interrupted=True)
    try:
        _busy = True
        outcome = perform(task, _after_epoch)
        _busy = False
    except KeyboardInterrupt:  # before the run began, or after it ended
        _busy = False
        outcome = Outcome(interrupted=True)
    return outcome


def _after_epoch() -> None:
    with _epochs.get_lock():
        _epochs.value += 1
    if _stop.is_set():
        raise KeyboardInterrupt


def default_jobs(tasks: Sequence[Task]) -> int:
    """Return how many processes train at once: one a core, and one where runs are on a GPU."""
    on_cpu = all(task.run.config.train.device == "cpu" for task in tasks)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, len(tasks)) if on_cpu else 1
