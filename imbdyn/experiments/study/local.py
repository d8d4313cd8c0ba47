"""The runs of a study on this machine, in this process or in several."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from types import FrameType
from typing import Any

from imbdyn.experiments.study.plan import Task
from imbdyn.experiments.study.work import Outcome, perform

#: Seconds between two looks at how far the runs are.
_LOOK_EVERY = 0.2

#: Called with the runs that have ended and, of those that go on, the epochs that are done.
Progress = Callable[[int, int], None]


def run_here(tasks: Sequence[Task], progress: Progress) -> list[Outcome]:
    """Train runs one after the other in this process; return how each ended.

    Raises: KeyboardInterrupt, after the run has closed its trace.
    """
    outcomes: list[Outcome] = []
    epochs = 0

    def after_epoch() -> None:
        nonlocal epochs
        epochs += 1
        progress(len(outcomes), epochs)

    for task in tasks:
        outcomes.append(perform(task, after_epoch))
        if outcomes[-1].interrupted:
            raise KeyboardInterrupt
        progress(len(outcomes), epochs)
    return outcomes


def run_locally(tasks: Sequence[Task], jobs: int, progress: Progress) -> list[Outcome]:
    """Train runs in `jobs` processes, one thread each; return how each ended, in their order.

    The processes are started anew (spawn), not forked: torch's threads do not survive a fork.

    Raises: KeyboardInterrupt, after the runs have closed their traces; what is not finished goes on in a later call.
    """
    context = get_context("spawn")
    stop, epochs = context.Event(), context.Value("q", 0)
    with ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(stop, epochs)) as pool:
        with _interrupts_ignored():
            futures = [pool.submit(_work, task) for task in tasks]  # starts the processes
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


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C. Processes started meanwhile do so, too, until `_begin`: none dies of it while it loads torch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
