"""Whether a process of this machine writes a run, as far as the system lets us see."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from imbdyn.trace._format import JOURNAL_FOLDER
from imbdyn.trace._reserve import RESERVE_PREFIX


def is_written_here(run: Path) -> bool:
    """Tell whether a process has the room open that a writer keeps for run.json, as it does all the time.

    Where there is no /proc, of the processes of somebody else, and on most network disks it cannot be seen.
    """
    return _is_open(str(run.resolve() / RESERVE_PREFIX))


def is_open(run: Path) -> bool:
    """Tell whether a process writes a run, as `is_written_here`, or has its journal open, which a reader may too."""
    return is_written_here(run) or _is_open(f"{run.resolve() / JOURNAL_FOLDER}/")


def _is_open(beginning: str) -> bool:
    with suppress(OSError):  # no /proc
        for descriptors in Path("/proc").glob("[0-9]*/fd"):
            with suppress(OSError):  # a process of somebody else, or one that has just ended
                if any(str(link.readlink()).startswith(beginning) for link in descriptors.iterdir()):
                    return True
    return False
