"""Room on a disk for what must be written when it is full."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from weakref import finalize

#: What a disk says that is full, or on which a user's share is.
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

_LEAST = 16 << 10

#: What the name of the file begins with, which it loses at once; the system still shows it of who has it open.
RESERVE_PREFIX = ".reserve."


class Reserve:
    """Space on a folder's disk: an open file without a name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def hold(self, size: int) -> None:
        """Keep room for a file of `size` bytes, or for none where the disk has none."""
        with suppress(OSError):  # what is written next is told by the disk
            if self._descriptor is None:
                descriptor, name = mkstemp(prefix=RESERVE_PREFIX, suffix=".tmp", dir=self._folder)
                self._descriptor = descriptor
                self._close = finalize(self, os.close, descriptor)
                Path(name).unlink()
            missing = max(size, _LEAST) - os.fstat(self._descriptor).st_size
            if missing > 0:
                os.lseek(self._descriptor, 0, os.SEEK_END)
                os.write(self._descriptor, bytes(missing))

    def release(self) -> None:
        """Give the space back; forked processes may have the file open too, so that closing it would not."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Give everything back."""
        if self._descriptor is not None:
            self._descriptor = None
            self._close()
