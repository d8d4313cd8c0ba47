"""Whether a process of this machine writes a run, as far as the system lets us see."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from imbdyn.trace._format import JOURNAL_FOLDER
from imbdyn.trace._reserve import RESERVE_PREFIX


def is_open(run: Path) -> bool:
    """Tell whether a process has the journal of a run open, or the room that a writer keeps for run.json.

    Where there is no /proc, or of the processes of somebody else, it cannot be seen.
    """
    folder = run.resolve()
    begins = (f"{folder / JOURNAL_FOLDER}/", f"{folder / RESERVE_PREFIX}")
    with suppress(OSError):  # no /proc
        for descriptors in Path("/proc").glob("[0-9]*/fd"):
            with suppress(OSError):  # a process of somebody else, or one that has just ended
                if any(str(link.readlink()).startswith(begins) for link in descriptors.iterdir()):
                    return True
    return False
