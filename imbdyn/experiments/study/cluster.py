"""The runs of a study on the workers of a dask scheduler, on this machine or others.

Workers are started by the user, `dask worker ADDRESS --nthreads 1` a core or GPU. They need imbdyn, the data, and the
folder of the traces under the same paths (or a URI). A worker that dies costs the epoch it was in: the scheduler gives
its run to another one, which goes on after the last checkpoint. What scheduler and workers say to each other is
pickled: let them listen to nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

from imbdyn.experiments.errors import ExperimentError, MissingPackageError
from imbdyn.experiments.study.local import Progress
from imbdyn.experiments.study.plan import Task
from imbdyn.experiments.study.work import Outcome, perform

if TYPE_CHECKING:
    from distributed import Client

_CONNECT_SECONDS = 10


def run_on_cluster(tasks: Sequence[Task], address: str, progress: Progress) -> list[Outcome]:
    """Train runs on the workers of the scheduler at `address`; return how each ended, in their order.

    Raises:
        MissingPackageError: if dask.distributed is not installed.
        ExperimentError: if no scheduler answers at `address`, or it has no worker.
        KeyboardInterrupt: after runs that have not begun were cancelled; those that go on end after their epoch.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingPackageError('--scheduler needs dask.distributed: pip install "imbdyn[study]"') from error
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ExperimentError(f"no dask scheduler answers at {address}: {_first_line(error)}") from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise ExperimentError(f"the dask scheduler at {address} has no workers: dask worker {address} --nthreads 1")
        return _run(client, tasks, progress)


def _run(client: Client, tasks: Sequence[Task], progress: Progress) -> list[Outcome]:
    from distributed import Event, as_completed

    stop = Event(f"imbdyn-{uuid4().hex}", client=client)
    futures = [client.submit(_work, task, stop.name, pure=False) for task in tasks]
    try:
        for done, _ in enumerate(as_completed(futures, loop=client.loop), start=1):
            progress(done, 0)
    except BaseException:
        stop.set()
        client.cancel(futures)
        raise
    return [_outcome(future) for future in futures]


def _outcome(future: object) -> Outcome:
    error = future.exception()  # type: ignore[attr-defined]
    if error is None:
        outcome: Outcome = future.result()  # type: ignore[attr-defined]
        return outcome
    return Outcome(f"{type(error).__name__}: {_first_line(error)}")


def _work(task: Task, stop: str) -> Outcome:
    from distributed import Event

    event = Event(stop)  # of the worker that this runs on

    def after_epoch() -> None:
        if event.is_set():
            raise KeyboardInterrupt

    return perform(task, after_epoch)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
