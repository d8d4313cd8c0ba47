"""Write a trace: each commit goes to the journal at once, and is sealed into Parquet parts in the background."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Event, RLock, Thread
from time import monotonic
from typing import Any, Literal
from uuid import uuid4
from weakref import WeakSet

import pyarrow as pa
import pyarrow.dataset as ds

from imbdyn import __version__
from imbdyn.trace._claim import CLAIM, LostClaimError, check_claim, claim_new, join
from imbdyn.trace._commits import Commits
from imbdyn.trace._format import MAX_RANK, RUN_FILE
from imbdyn.trace._pending import Pending
from imbdyn.trace._run_folder import read_run
from imbdyn.trace._run_record import RunRecord
from imbdyn.trace._sealer import Sealer, next_sequences, recover
from imbdyn.trace._segments import parse_segment
from imbdyn.trace._store import filesystem_of, is_remote
from imbdyn.trace._upload import Uploader
from imbdyn.trace.schema import SCHEMA_VERSION

#: A disk that took no rows is tried again after so many seconds.
RETRY_SECONDS = 1.0

#: A long run seals less often: after this part of the time that it has taken. Ten hours make some 500 parts a table.
SEAL_SHARE = 0.01

_STATUS = ("finished", "interrupted", "failed")


class TraceWriter:
    """A writer of a trace: the one of its run, or of its rank.

    `append` gathers rows and `commit` writes them as one record: all are in the trace, or none is. A commit that has
    returned survives the death of the process, and a power cut once `fsync_seconds` have passed. A background thread
    seals what was committed into Parquet parts. Threads may call at once; a process forked from this one may not.

    Args:
        out: the run's folder; made here. It must not exist, or be empty. Or the URI of a place in an object store or in
            HDFS: then `path` is a local folder, from which a thread sends what is sealed.
        force: replace the trace that is in `out`. Nothing but a trace is ever removed.
        resume: go on with the trace that is in `out`, if there is one; `resume_after` must come before the first rows.
        rank: number of this process among those that write the run. Rank 0 claims the folder, the others join it.
        run_id: the same string for all ranks of the run, and no other run; needed if there are several.
        flush_seconds: what was committed is sealed about this often, and in a long run after every hundredth of it.
        fsync_seconds: the journal is put on disk about this often: what a power cut may take.

    Raises: FileExistsError if `out` holds anything (with `force` or `resume`: anything but a trace), TraceError if the
        trace to go on with cannot be read, TimeoutError if rank 0 does not claim the folder, OSError if it cannot be
        made.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        force: bool = False,
        resume: bool = False,
        rank: int = 0,
        run_id: str | None = None,
        flush_seconds: float = 10.0,
        fsync_seconds: float = 5.0,
    ) -> None:
        if not 0 <= rank <= MAX_RANK:
            raise ValueError(f"rank must be 0 to {MAX_RANK}, got {rank}")
        if force and resume:
            raise ValueError("force replaces the trace that resume goes on with: give one of them")
        if rank and run_id is None:
            raise ValueError(
                f"rank {rank} needs the run_id of rank 0, to know its folder: a Monitor takes it from IMBDYN_RUN_ID, a "
                "text that all ranks and no other run have in their environment"
            )
        self._rank = rank
        self._run_id = run_id or uuid4().hex
        self._out = out
        self._uploader: Uploader | None = None
        if is_remote(out):
            self._uploader = Uploader(str(out), self._run_id, rank, force=force, resume=resume)
            self.path = self._uploader.folder
        else:
            self.path = Path(filesystem_of(out)[1])
        self._flush_seconds = flush_seconds
        self._fsync_seconds = fsync_seconds
        self._started = (datetime.now(timezone.utc), monotonic())
        self._resume_from: dict[str, Any] | None = None
        try:
            self._run = self._claim(force=force, resume=resume)
            if self._uploader is not None:
                self._uploader.start()
        except BaseException:
            if self._uploader is not None:
                self._uploader.abandon()
            raise
        self._sealer = Sealer(self.path, rank)
        self._pending = Pending(self._sealer.last_record + 1)
        self._commits = Commits(self.path, rank, self._pending.schema_message)
        self._dropped_before = (self._run["dropped_rows"] or 0, self._run["dropped_commits"] or 0)
        self._damaged_commits = 0
        self._closed = False
        self._foreign = False
        self._lost: str | None = None
        self._failure: Exception | None = None
        self._retry_at: float | None = None
        self._last_flush = monotonic()
        # A signal handler that closes the trace may come while they are held, so they let their own thread pass.
        self._lock = RLock()  # of rows and journal, held for moments
        self._sealing = RLock()  # of parts and run.json, held while the disk works; taken before the other one
        self._wake = Event()
        self._stopping = False
        self._thread = Thread(target=self._work, name="imbdyn-sealer", daemon=True)
        self._thread.start()
        _writers.add(self)

    @property
    def dropped_rows(self) -> int:
        """Rows lost because the disk could not take them; also in run.json."""
        return int(self._dropped_before[0] + self._commits.dropped_rows)

    @property
    def waiting_rows(self) -> int:
        """Number of rows, of all tables, that are in memory only."""
        return self._pending.rows + self._commits.backlog_rows

    @property
    def pressure(self) -> str | None:
        """Why the writer asks for fewer rows, in one sentence; None if it takes as many as come."""
        return self._commits.pressure()

    @property
    def commits(self) -> int:
        """How many commits the writer has taken; those that are still on their way to the disk are among them."""
        return self._pending.record - 1

    @property
    def resumes(self) -> bool:
        """Whether there is a trace to go on with, and `resume_after` has not come yet."""
        return self._resume_from is not None

    def append(self, table: str, **columns: Any) -> None:
        """Add rows to a table. Values are copied: the caller may go on to change its arrays.

        A column is an array or sequence [n], all of one length, or a scalar, which is broadcast; all scalars make one
        row. Absent is None (the whole column), a masked element of a numpy.ma array or of a `Nullable`, or a column
        that is not given: all become null. NaN is a value and stays NaN. Names that repeat are best given as `Names`.

        Raises: KeyError for an unknown table or column, ValueError for unequal lengths, a null in the key or an integer
            that its column cannot hold, TypeError for values of another kind (a float in an integer column, say). After
            an error no row was added.
        """
        with self._lock_of_writer():
            self._pending.append(table, columns)

    def commit(self) -> None:
        """Write the rows since the last commit to the journal as one record; does nothing if there are none.

        Raises: OSError if the disk did not take them. They are kept, up to 64 MiB, and written by a later commit;
            beyond, the oldest are dropped and counted in `dropped_rows`. The error of a failure in the background is
            raised here too: then the rows are in the journal, and are sealed later.
        """
        if self._pending.rows or self._commits.backlog_commits:
            with self._lock_of_writer():
                self._commit()
            if self._commits.waiting:
                self._wake.set()
        self._raise_failure()

    def rollback(self) -> None:
        """Forget the rows since the last commit."""
        if not self._foreign:
            with self._lock:
                self._pending.clear()

    def resume_after(self, step: int) -> bool:
        """Go on after `step`: what the trace holds of later ones is superseded, and no longer read.

        Returns whether it holds any rows. Does nothing if there was no trace to go on with, or in another rank than 0.
        Raises: OSError if run.json cannot be written.
        """
        with self._sealing, self._lock:
            if self._resume_from is None:
                return False
            entry = {"step": step, "at": self._now(), **self._resume_from}
            self._run.set(resumed=[*(self._run["resumed"] or []), entry])
            self._write_run()
            self._resume_from = None
            return bool(entry["parts"])

    def rows_at(self, table: str, step: int) -> pa.Table:
        """Return the sealed rows of a table at one step: what a run that is resumed has from before."""
        from imbdyn.trace.reader import Trace

        return Trace(self._out).table(table, filter=ds.field("step") == step)

    def flush_due(self) -> bool:
        """Whether `flush_seconds` have passed since the last call that said so: time to tell how the run goes."""
        now = monotonic()
        if now - self._last_flush < self._flush_seconds:
            return False
        self._last_flush = now
        return True

    def flush(self) -> None:
        """Commit, and seal what was committed, now and in this thread.

        Raises: OSError if the disk did not take it. What is in the journal is sealed later.
        """
        if self._foreign or self._closed or self.resumes:
            return
        with self._lock_of_writer():
            self._retry_at = None
            self._commit()
        self._seal(everything=True)
        self._raise_failure()

    def sync(self) -> None:
        """Put the journal on disk, now and in this thread. Raises: OSError."""
        if self._foreign or self._closed:
            return
        with self._sealing:
            with self._lock:
                segments = [*self._commits.waiting, *filter(None, [self._commits.current])]
            for segment in segments:
                segment.sync()

    def update_run(self, **fields: Any) -> None:
        """Set fields of run.json, which is replaced whole, soon and in the background.

        Raises: TypeError or ValueError for what JSON cannot hold; then nothing is set.
        """
        if not self._foreign:
            self._run.set(**fields)
            self._wake.set()

    def close(self, status: Literal["finished", "interrupted", "failed"]) -> None:
        """Commit and seal everything, then write how the run ended to run.json. Does nothing once that has succeeded.

        Raises: OSError if the disk did not take it all. What it refused is counted as dropped, what is in the journal
            is not lost; close may be called again. UnsentError, which is an OSError too, if a store did not take it all
            within 60 s: then it says what waits where, and how to send it.
        """
        if status not in _STATUS:
            raise ValueError(f"status must be one of {', '.join(_STATUS)}, got {status!r}")
        if self._closed or self._foreign:
            return
        self._stopping = True
        self._wake.set()
        self._thread.join()
        try:
            self._last_seal()
        except LostClaimError:
            self._closed = True
            self._commits.close()
            raise
        finally:
            if not self._closed:
                self._say_how_it_ended(status)
        with self._sealing, self._lock:
            self._commits.close()
            self._run.close()
            self._closed = True
        if self._uploader is not None:
            self._uploader.close()

    def _claim(self, *, force: bool, resume: bool) -> RunRecord:
        """Take or join the folder and return what is to be said of the run."""
        fields: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            CLAIM: self._run_id,
            "status": "running",
            "imbdyn": __version__,
            "started": self._now(),
            "ended": None,
            "flush_seconds": self._flush_seconds,
            "fsync_seconds": self._fsync_seconds,
            "dropped_rows": 0,
            "dropped_commits": 0,
            **(self._uploader.describe() if self._uploader else {"out": None, "staging": None}),
        }
        if self._rank:
            join(self.path, self._run_id)
            return RunRecord(self.path, self._rank, {"rank": self._rank, **fields})
        if resume and (self.path / RUN_FILE).exists():
            previous = read_run(self.path)
            lost = recover(self.path)
            self._resume_from = {"parts": next_sequences(self.path), "journal_bytes_lost": lost}
            kept = {"started": None, "dropped_rows": 0, "dropped_commits": 0}
            run = RunRecord(self.path, 0, {**previous, **fields, **{k: previous.get(k, v) for k, v in kept.items()}})
            run.write()
            return run
        run = RunRecord(self.path, 0, fields)
        claim_new(self.path, run.encoded, force=force)
        run.is_written()
        return run

    def _lock_of_writer(self) -> RLock:
        """Return the lock for rows, if rows may come."""
        if self._foreign:
            raise ValueError(f"this process was forked from the one that writes {self.path}: its rows are not recorded")
        if self._closed:
            raise ValueError(f"the trace {self.path} is closed")
        if self._lost is not None:
            raise LostClaimError(self._lost)
        if self._resume_from is not None:
            raise ValueError(f"{self.path} is resumed: resume_after(step) must come before the first rows")
        return self._lock

    def _commit(self) -> None:
        commit = self._pending.encoded()
        if commit is not None:
            self._commits.add(commit)
            self._pending.begin_next()
        if self._retry_at is not None and monotonic() < self._retry_at:
            return
        try:
            self._commits.write()
            self._retry_at = None
        except OSError:
            self._retry_at = monotonic() + RETRY_SECONDS
            raise

    def _last_seal(self) -> None:
        if self._resume_from is None:  # else nothing was written since
            with self._lock_of_writer():
                self._retry_at = None
                self._commit()
        self._seal(everything=True)

    def _say_how_it_ended(self, status: str) -> None:
        rows, commits = self._counts()
        self._run.set(
            status=status,
            ended=self._now(),
            dropped_rows=rows + self._commits.backlog_rows,
            dropped_commits=commits + self._commits.backlog_commits,
        )
        with self._sealing:
            self._write_run()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _work(self) -> None:
        """Sync and seal, until the writer is closed."""
        sync_at = monotonic() + self._fsync_seconds
        seal_at = monotonic() + self._flush_seconds
        again_at = 0.0  # when what could not be sealed is tried again
        while True:
            self._wake.wait(max(0.0, min(sync_at, seal_at) - monotonic()))
            self._wake.clear()
            if self._stopping:
                return
            try:
                now = monotonic()
                if now >= sync_at:
                    sync_at = now + self._fsync_seconds
                    self.sync()
                if now >= seal_at or (self._commits.waiting and now >= again_at):
                    everything = now >= seal_at
                    seal_at = now + max(self._flush_seconds, SEAL_SHARE * (now - self._started[1]))
                    self._seal(everything=everything)
                else:
                    with self._sealing:
                        self._write_run()
                if self._uploader is not None:
                    self._failure = self._failure or self._uploader.failure()
            except LostClaimError as error:
                self._lost = str(error)
                return
            except Exception as error:  # raised in the training thread, which contains it
                self._failure = error
                again_at = monotonic() + RETRY_SECONDS

    def _seal(self, *, everything: bool) -> None:
        """Seal the closed segments, and with `everything` the current one too."""
        with self._sealing:
            check_claim(self.path, self._run_id)
            if everything:
                with self._lock:
                    self._commits.rotate()
            while self._commits.waiting:
                segment = self._commits.waiting[0]
                last, parts = self._sealer.seal(parse_segment(segment.read()))
                for part in parts:
                    self._send(part)
                self._sealer.remove(segment.path)
                self._damaged_commits += max(0, segment.last_record - last)
                self._commits.waiting.popleft()
                segment.close()
            rows, commits = self._counts()
            if (rows, commits) != (self._run["dropped_rows"], self._run["dropped_commits"]):
                self._run.set(dropped_rows=rows, dropped_commits=commits)
            self._write_run()

    def _write_run(self) -> None:
        if self._run.write():
            self._send(self._run.path)

    def _send(self, path: Path) -> None:
        if self._uploader is not None:
            self._uploader.put(path)

    def _counts(self) -> tuple[int, int]:
        """Return how many rows and commits were lost."""
        dropped = self._dropped_before[1] + self._commits.dropped_commits + self._damaged_commits
        return self.dropped_rows, int(dropped)

    def _now(self) -> str:
        """Return the time: that at which the writer was made, plus what has passed since, whatever the clock does."""
        started, since = self._started
        return (started + timedelta(seconds=monotonic() - since)).isoformat(timespec="seconds")


_writers: WeakSet[TraceWriter] = WeakSet()


def _disown() -> None:
    """In a process that was just forked: its copies of the writers must not write into their parent's files."""
    for writer in _writers:
        writer._foreign = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)
