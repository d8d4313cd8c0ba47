"""run.json: what ran, and the version of the format beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imbdyn import __version__
from imbdyn.trace._format import RUN_FILE, with_run_crc32
from imbdyn.trace.schema import SCHEMA_VERSION


class TraceError(ValueError):
    """A path that cannot be read as a trace; the message says why in one sentence."""


def encode_run(run: Mapping[str, Any]) -> bytes:
    """Return `run` as strict JSON with its checksum in front; numpy scalars and arrays become numbers and lists.

    Raises: TypeError for what JSON has no word for, ValueError for NaN and infinity.
    """
    summed = {"crc32": "0" * 8, **run}
    return with_run_crc32(
        (json.dumps(summed, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n").encode()
    )


def read_run(folder: Path) -> dict[str, Any]:
    """Return run.json of the trace in `folder`.

    Raises: TraceError if there is none, if it is broken, or if its schema version is newer than this imbdyn's.
    """
    try:
        run = json.loads((folder / RUN_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise TraceError(_why_no_trace(folder)) from None
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{folder / RUN_FILE} is not valid JSON: {error}") from None
    version = run.get("schema_version") if isinstance(run, dict) else None
    if not isinstance(version, int):
        raise TraceError(f"{folder} is not a trace: its {RUN_FILE} has no schema_version")
    if version > SCHEMA_VERSION:
        raise TraceError(
            f"{folder} has trace schema {version}, imbdyn {__version__} reads up to {SCHEMA_VERSION}: upgrade imbdyn"
        )
    run.pop("crc32", None)
    return dict(run)


def _why_no_trace(folder: Path) -> str:
    if not folder.exists():
        return f"{folder} does not exist"
    if not folder.is_dir():
        return f"{folder} is not a trace: a trace is a folder"
    runs = sorted(path.parent.name for path in folder.glob(f"*/{RUN_FILE}"))
    if runs:
        return f"{folder} is not a trace but holds {len(runs)}: {', '.join(runs)}; name one of them"
    return f"{folder} is not a trace: it has no {RUN_FILE}"


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"run.json cannot hold a {type(value).__name__}")
