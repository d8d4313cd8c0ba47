"""run.json: what ran, and the version of the format beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from imbdyn.trace._format import with_run_crc32


class TraceError(ValueError):
    """A path that cannot be read as a trace; the message says why in one sentence."""


class NoTraceError(TraceError):
    """There is no trace at a place; a run may begin one there later."""


class NewerTraceError(TraceError):
    """A trace that was written by a newer imbdyn."""


def encode_run(run: Mapping[str, Any]) -> bytes:
    """Return `run` as strict JSON with its checksum in front; numpy scalars and arrays become numbers and lists.

    Raises: TypeError for what JSON has no word for, ValueError for NaN and infinity.
    """
    summed = {"crc32": "0" * 8, **run}
    return with_run_crc32(
        (json.dumps(summed, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n").encode()
    )


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"run.json cannot hold a {type(value).__name__}")
