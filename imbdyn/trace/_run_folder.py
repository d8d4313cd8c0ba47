"""A run's folder on any filesystem: what files it holds, and its run.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from pyarrow import fs

from imbdyn import __version__
from imbdyn.trace._format import RUN_FILE, run_crc32_holds
from imbdyn.trace._store import filesystem_of, is_uri, public_uri
from imbdyn.trace.run_file import NewerTraceError, TraceError
from imbdyn.trace.schema import SCHEMA_VERSION

#: Bytes of a run.json that are taken into memory.
MAX_RUN_BYTES = 64 << 20


class RunFolder:
    """Where a trace lies. `root` is its path in `filesystem`; `place` is what messages call it."""

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self.filesystem, self.root = filesystem_of(place)
        self.place = public_uri(place) if isinstance(place, str) and is_uri(place) else os.fspath(place)
        self.path: PurePath = PurePosixPath(self.root) if is_uri(place) else Path(place)

    def named(self, *names: str) -> str:
        """Return what messages call a file of the folder."""
        return "/".join((self.place.rstrip("/"), *names))

    def files(self, folder: str) -> dict[str, fs.FileInfo]:
        """Return the regular files of a folder in the run's, by name; none if it is not there."""
        selector = fs.FileSelector(f"{self.root}/{folder}", allow_not_found=True)
        try:
            found = self.filesystem.get_file_info(selector)
        except NotADirectoryError:
            return {}
        return {info.base_name: info for info in found if info.type == fs.FileType.File}

    def read_run(self) -> dict[str, Any]:
        """Return run.json.

        Raises: TraceError if there is none, if it is not as it was written, or if its schema version is newer than
            this imbdyn's; OSError if the store does not answer.
        """
        try:
            with self.filesystem.open_input_stream(f"{self.root}/{RUN_FILE}") as file:
                encoded = file.read(MAX_RUN_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise TraceError(self._why_no_trace()) from None
        return parse_run(encoded, self.place)

    def _why_no_trace(self) -> str:
        info = self.filesystem.get_file_info(self.root)
        if info.type == fs.FileType.NotFound:
            return f"{self.place} does not exist"
        if info.type == fs.FileType.File:
            return f"{self.place} is not a trace: a trace is a folder"
        folders = self.filesystem.get_file_info(fs.FileSelector(self.root))
        records = self.filesystem.get_file_info([f"{folder.path}/{RUN_FILE}" for folder in folders])
        runs = sorted(record.path.split("/")[-2] for record in records if record.type == fs.FileType.File)
        if runs:
            return f"{self.place} is not a trace but holds {len(runs)}: {', '.join(runs)}; name one of them"
        return f"{self.place} is not a trace: it has no {RUN_FILE}"


def read_run(place: str | os.PathLike[str]) -> dict[str, Any]:
    """Return run.json of the trace at `place`. Raises: as RunFolder.read_run."""
    return RunFolder(place).read_run()


def parse_run(encoded: bytes, place: str) -> dict[str, Any]:
    """Decode and check run.json of the trace at `place`. Raises: TraceError as RunFolder.read_run."""
    if len(encoded) > MAX_RUN_BYTES:
        raise TraceError(f"{place}/{RUN_FILE} has more than {MAX_RUN_BYTES} bytes, which no trace needs")
    try:
        run = json.loads(encoded, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{place}/{RUN_FILE} is not valid JSON: {error}") from None
    version = run.get("schema_version") if isinstance(run, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise TraceError(f"{place} is not a trace: its {RUN_FILE} has no schema_version")
    holds = run_crc32_holds(encoded)
    if version > SCHEMA_VERSION and (holds or "crc32" not in run):
        raise NewerTraceError(
            f"{place} has trace schema {version}, imbdyn {__version__} reads up to {SCHEMA_VERSION}: upgrade imbdyn"
        )
    if not holds:
        raise TraceError(
            f"{place}/{RUN_FILE} is damaged: its crc32 is another; imbdyn check --repair saves what the tables hold"
        )
    return {name: value for name, value in run.items() if name != "crc32"}


def step_limits(run: Mapping[str, Any]) -> dict[str, list[tuple[int, int]]]:
    """Return from which parts a resumed run took over: per "TABLE/RRRR" pairs (s, k).

    Rows of parts with a sequence below s are superseded if their step is above k. Raises: TraceError if run.json says
    something else.
    """
    limits: dict[str, list[tuple[int, int]]] = {}
    try:
        for resumed in run.get("resumed", ()):
            for key, sequence in resumed["parts"].items():
                limits.setdefault(key, []).append((_whole(sequence), _whole(resumed["step"])))
    except (AttributeError, KeyError, TypeError):
        raise TraceError(f"{RUN_FILE} does not say in its field resumed what the format says") from None
    return limits


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")
