"""The checkpoint of a run: what `imbdyn run --resume` goes on with."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imbdyn.trace._files import whole_file
from imbdyn.trace._staging import staged_beside
from imbdyn.trace._store import filesystem_of, is_remote


class Checkpoint:
    """One file beside the trace of a run, replaced whole after each epoch and removed when the run has ended.

    Args:
        out: folder of the trace, or its URI: then the checkpoint is where the trace waits to be sent.
        run: the run's configuration; a checkpoint of another one is not this run's.
    """

    def __init__(self, out: str | Path, run: Mapping[str, Any]) -> None:
        if is_remote(out):
            self.path = staged_beside(str(out), "checkpoint.pt")
        else:
            folder = Path(filesystem_of(out)[1])
            self.path = folder.with_name(f"{folder.name}.checkpoint.pt")
        self._run = dict(run)

    def save(self, **state: Any) -> None:
        """Replace the checkpoint; it is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path) as file:
            torch.save({"run": self._run, **state}, file)

    def load(self) -> dict[str, Any] | None:
        """Return what was saved; None if there is nothing, or nothing of this run. Nothing is unpickled but tensors."""
        try:
            saved = torch.load(self.path, weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError):
            return None
        return saved if isinstance(saved, dict) and saved.get("run") == self._run else None

    def remove(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)
