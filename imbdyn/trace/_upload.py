"""Send a trace to a store while it is written: parts as they are sealed, run.json when it changes."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from random import uniform
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

from imbdyn.trace._claim import CLAIM, LostClaimError, claim_of
from imbdyn.trace._files import sync_folder, whole_file
from imbdyn.trace._format import RUN_FILE
from imbdyn.trace._remote import STORE_ERRORS, Remote, field_of
from imbdyn.trace._remote_claim import await_claim, check_place, claim_place, mark_of
from imbdyn.trace._resend import FIRST_WAIT_SECONDS, send_part, send_staged
from imbdyn.trace._staging import held, newest_parts, parts_in, records_in, remove_staging, staged, staging_folder

#: No wait between two attempts is longer; the first is FIRST_WAIT_SECONDS, and they grow as in _resend.
LONGEST_WAIT_SECONDS = 60.0
#: A store that has taken nothing for so long is reported, once until it takes something again.
REPORT_SECONDS = 60.0
#: Closing waits so long for what is not sent yet.
CLOSE_SECONDS = 60.0


class UnsentError(OSError):
    """What a store has not taken; it is in the staging folder."""


class Uploader:
    """The way of one rank's files from its staging folder to a store.

    The folder is the queue, so that neither memory nor a crash bounds what can wait: a thread sends the parts that are
    in it, oldest first, and removes each when the store has confirmed it. The last part of a table stays until there
    is a newer one: it tells a writer that comes after a crash where the table ends.

    Args:
        uri: the run's place.
        run_id: see TraceWriter.
        rank: whose files they are.
        force: replace the trace that is there.
        resume: go on with the trace that is there.

    Raises: FileExistsError if the place is taken, TraceError for a URI that cannot be understood, TimeoutError if rank
        0 does not claim the place, OSError if the store does not answer.
    """

    def __init__(self, uri: str, run_id: str, rank: int, *, force: bool = False, resume: bool = False) -> None:
        self._remote = Remote(uri)
        self._run_id = run_id
        self._rank = rank
        #: The staging folder; the writer writes there.
        self.folder = staging_folder(uri, run_id, rank)
        self._failed_since: float | None = None
        self._failure: Exception | None = None
        self._reported = False
        self._lost: LostClaimError | None = None
        self._sent_record: bytes | None = None
        self._wake, self._closing = Event(), Event()
        self._end = float("inf")
        #: By part: attempts that have failed.
        self._attempts: dict[str, int] = {}
        self._thread: Thread | None = None
        self._hold = ExitStack()
        self._staging_is_new = False
        if rank == 0:
            resume = claim_place(self._remote, run_id, force=force, resume=resume)
        try:
            self._prepare(uri, resume=resume)
        except BaseException:
            self.abandon()
            raise
        #: Parts that the store has, among those in the folder.
        self._sent = set(parts_in(self.folder))

    def abandon(self) -> None:
        """Give the place up before anything was written: the mark goes, and the staging folder."""
        self._hold.close()
        with suppress(*STORE_ERRORS):  # what has failed before is what the user is told
            if self._staging_is_new:
                remove_staging(self.folder)
            if self._rank == 0:
                self._remote.remove(mark_of(self._run_id))

    def describe(self) -> dict[str, Any]:
        """Return what run.json is to say of the place and of the staging folder."""
        return {"out": self._remote.place, "staging": {"host": socket.gethostname(), "path": str(self.folder)}}

    def start(self) -> None:
        """Put run.json, which the writer has written, into the store and begin to send.

        Raises: OSError if the store does not take it.
        """
        if self._rank == 0:
            self._send_record(self._record())
            self._remote.remove(mark_of(self._run_id))
        # One attempt a request: the thread has its own, and a request that hangs holds up the end of the process.
        self._remote.renew(attempts=1)
        self._thread = Thread(target=self._work, name="imbdyn-uploader", daemon=True)
        self._thread.start()

    def put(self, path: Path) -> None:  # noqa: ARG002 - the folder tells what there is
        """See to it that a new file in the folder is sent; returns at once."""
        self._wake.set()

    def failure(self) -> Exception | None:
        """Return why nothing can be sent, once in a while: the caller tells it to the user."""
        if self._lost is not None and not self._reported:
            self._reported = True
            return self._lost
        since = self._failed_since
        if since is None or self._reported or monotonic() - since < REPORT_SECONDS:
            return None
        self._reported = True
        return UnsentError(
            f"{self._remote.place} has taken nothing for {monotonic() - since:.0f} s: {self._failure}; what is not "
            f"sent waits in {self.folder}, and is sent when it can be"
        )

    def close(self) -> None:
        """Wait up to CLOSE_SECONDS for what is not sent; then the staging folder is removed.

        Raises: UnsentError if something is left in it; the message says how to send it.
        """
        self._end = monotonic() + CLOSE_SECONDS
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
        waiting = self._waiting()
        if not waiting and not (self._thread is not None and self._thread.is_alive()):
            remove_staging(self.folder)
        self._hold.close()
        if waiting:
            raise UnsentError(self._unsent(waiting))

    def _unsent(self, waiting: list[str]) -> str:
        reason = self._lost or self._failure or f"the store was not done after {CLOSE_SECONDS:g} s"
        message = f"{len(waiting)} files of the trace were not sent to {self._remote.place}: {reason}; they stay in "
        if self._lost is not None:
            return f"{message}{self.folder}"
        return (
            f"{message}{self.folder}, and `imbdyn check '{self._remote.place}' --repair` on this machine, or "
            f"`imbdyn check {self.folder} --repair`, sends them, with credentials from the environment"
        )

    def _prepare(self, uri: str, *, resume: bool) -> None:
        """Make the staging folder; of a run that goes on, with run.json and the last part of each table."""
        if self._rank == 0 and resume:
            claim = field_of(self._remote.read_record(RUN_FILE), CLAIM)
            for leftover in (folder for folder in staged(uri) if claim_of(folder) == claim):
                send_staged(leftover, self._remote)
        self._hold.enter_context(held(self.folder))
        if self.folder.exists():
            raise FileExistsError(
                f"{self.folder} holds what an earlier run of this name has not sent: imbdyn check {self.folder} "
                "--repair sends it; else remove it"
            )
        self._staging_is_new = True
        if self._rank:
            run: bytes | None = await_claim(self._remote, self._run_id)
        elif resume:
            run = self._remote.read_record(RUN_FILE)
        else:
            return
        if run is None:
            raise OSError(f"{self._remote.place}/{RUN_FILE} has just been removed")
        self.folder.mkdir(parents=True)
        for (table, rank), name in newest_parts(self._remote.files()).items():
            # Rank 0 says for all ranks where the tables of the run that goes on end.
            if self._rank in (0, int(rank)):
                (self.folder / table).mkdir(exist_ok=True)
                self._remote.fetch(name, self.folder / name)
                sync_folder(self.folder / table)
        with whole_file(self.folder / RUN_FILE) as file:
            file.write(run)

    def _work(self) -> None:
        """Send what waits, whenever there is something, until the writer is closed and all is sent or time is up."""
        failures = 0
        while monotonic() < self._end:
            try:
                self._send_waiting()
                failures, self._failed_since, self._failure, self._reported = 0, None, None, False
                if self._closing.is_set() and not self._waiting():
                    return
                self._wake.wait()
                self._wake.clear()
            except LostClaimError as error:
                self._lost = error
                return
            except Exception as error:  # told to the user by `failure` or `close`
                self._failure = error
                self._failed_since = self._failed_since or monotonic()
                self._wait(failures)
                failures += 1

    def _wait(self, failures: int) -> None:
        """Wait before the next attempt, and make the filesystem anew for it."""
        wait = min(FIRST_WAIT_SECONDS * 2 ** min(failures, 20), LONGEST_WAIT_SECONDS) * uniform(0.5, 1)
        if self._closing.is_set():  # a long wait that has begun is cut short by close(), a new one would be too late
            sleep(min(wait, FIRST_WAIT_SECONDS))
        else:
            self._closing.wait(wait)
        with suppress(*STORE_ERRORS):  # the next attempt tells what is wrong
            self._remote.renew(attempts=1)

    def _send_waiting(self) -> None:
        """Send what is in the folder now. Raises: what the store raises, LostClaimError if the place is another's."""
        record = self._record()  # before the parts are listed: all that were sealed before it are among them
        # Those that have failed come last, so that one that cannot be sent is not in the way of the others.
        parts = sorted(self._unsent_parts(), key=lambda part: self._attempts.get(part, 0))
        if not parts and record == self._sent_record:
            return
        check_place(self._remote, self._run_id)
        # A run that goes on says first from which parts on it does; one that has ended says so when all is sent.
        goes_on = field_of(record, "status") == "running"
        if goes_on:
            self._send_record(record)
        for part in parts:
            self._attempts[part] = self._attempts.get(part, 0) + 1
            send_part(self._remote, self.folder, part)
            del self._attempts[part]
            self._sent.add(part)
            self._drop_sent()
        if not goes_on:
            self._send_record(record)

    def _send_record(self, record: bytes | None) -> None:
        if record is not None and record != self._sent_record:
            self._remote.write(records_in(self.folder)[0], BytesIO(record))
            self._sent_record = record

    def _drop_sent(self) -> None:
        for part in self._sent - set(newest_parts(parts_in(self.folder)).values()):
            (self.folder / part).unlink(missing_ok=True)
            self._sent.remove(part)

    def _record(self) -> bytes | None:
        """Return what the writer says of the run by now; None if that is nothing yet."""
        names = records_in(self.folder)
        return (self.folder / names[0]).read_bytes() if names else None

    def _unsent_parts(self) -> list[str]:
        return [part for part in parts_in(self.folder) if part not in self._sent]

    def _waiting(self) -> list[str]:
        """Return what is not sent."""
        record = records_in(self.folder) if self._record() != self._sent_record else []
        return [*self._unsent_parts(), *record]
