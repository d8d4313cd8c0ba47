"""What a writer says of its run: run.json, or, of a rank other than 0, a file of its own in the journal's folder."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

from imbdyn.trace._files import whole_file
from imbdyn.trace._format import JOURNAL_FOLDER, RUN_FILE
from imbdyn.trace._reserve import FULL, Reserve
from imbdyn.trace.run_file import encode_run


class RunRecord:
    """Fields that are set by the training thread and written by the sealing one; safe to use from both."""

    def __init__(self, run: Path, rank: int, fields: dict[str, Any]) -> None:
        self.path = run / RUN_FILE if rank == 0 else run / JOURNAL_FOLDER / f"{rank:04d}.json"
        self._lock = Lock()
        self._fields = fields
        self._encoded = encode_run(fields)
        self._written: bytes | None = None
        # What a full disk has made the run lose is said here, so there must be room for it.
        self._reserve = Reserve(run)

    @property
    def encoded(self) -> bytes:
        """The file's contents as they are to be."""
        return self._encoded

    def __getitem__(self, name: str) -> Any:
        return self._fields.get(name)

    def set(self, **fields: Any) -> None:
        """Set fields, for the next `write`. Raises: TypeError or ValueError for what JSON cannot hold; none is set."""
        with self._lock:
            changed = {**self._fields, **fields}
            self._encoded = encode_run(changed)
            self._fields = changed

    def is_written(self) -> None:
        """Take note that the file stands as it is to be."""
        self._written = self._encoded
        self._reserve.hold(len(self._encoded))

    def write(self) -> bool:
        """Replace the file, if anything has changed, and tell whether it has. Raises: OSError; then it tries again."""
        encoded = self._encoded
        if encoded == self._written:
            return False
        self.path.parent.mkdir(exist_ok=True)
        try:
            self._replace(encoded)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._reserve.release()
            self._replace(encoded)
        self._written = encoded
        self._reserve.hold(len(encoded))
        return True

    def close(self) -> None:
        """Give back the room that was kept for the file; it may still be written."""
        self._reserve.close()

    def _replace(self, encoded: bytes) -> None:
        with whole_file(self.path) as file:
            file.write(encoded)
