"""A run's folder on any filesystem: what files it holds, and its run.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath
from time import sleep
from typing import Any

from pyarrow import fs

from imbdyn import __version__
from imbdyn.trace._format import JOURNAL_FOLDER, RANK_FILE_NAME, RUN_FILE, SEGMENT_NAME, run_crc32_holds
from imbdyn.trace._store import filesystem_of, is_uri, public_uri
from imbdyn.trace.run_file import NewerTraceError, NoTraceError, TraceError
from imbdyn.trace.schema import SCHEMA_VERSION

#: Bytes of a run.json that are taken into memory.
MAX_RUN_BYTES = 64 << 20
#: Seconds between two looks at a run.json that may be in the course of being replaced.
_WAITS = (0.05, 0.2, 0.8)


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

    def written(self) -> dict[str, tuple[int, int]]:
        """Return of every file, by its path, how many bytes it has and when it was written, in ns since the epoch."""
        selector = fs.FileSelector(self.root, allow_not_found=True, recursive=True)
        infos = self.filesystem.get_file_info(selector)
        return {info.path: (info.size, info.mtime_ns or 0) for info in infos if info.type == fs.FileType.File}

    def has_ranks(self) -> bool:
        """Tell whether others than rank 0 write this run, or have written it."""
        names = self.files(JOURNAL_FOLDER)
        return any(RANK_FILE_NAME.fullmatch(n) or (SEGMENT_NAME.fullmatch(n) and n[:4] != "0000") for n in names)

    def read_run(self) -> dict[str, Any]:
        """Return run.json.

        Raises: NoTraceError if there is none; TraceError if it is not as it was written, or if its schema version is
            newer than this imbdyn's; OSError if the store does not answer.
        """
        try:
            encoded = read_record(self.filesystem, f"{self.root}/{RUN_FILE}")
        except (FileNotFoundError, NotADirectoryError):
            raise self._no_trace() from None
        return parse_run(encoded, self.place)

    def _no_trace(self) -> TraceError:
        info = self.filesystem.get_file_info(self.root)
        if info.type == fs.FileType.NotFound:
            return NoTraceError(f"{self.place} does not exist")
        if info.type == fs.FileType.File:
            return TraceError(f"{self.place} is not a trace: a trace is a folder")
        folders = self.filesystem.get_file_info(fs.FileSelector(self.root))
        records = self.filesystem.get_file_info([f"{folder.path}/{RUN_FILE}" for folder in folders])
        runs = sorted(record.path.split("/")[-2] for record in records if record.type == fs.FileType.File)
        if runs:
            return TraceError(f"{self.place} is not a trace but holds {len(runs)}: {', '.join(runs)}; name one of them")
        return NoTraceError(f"{self.place} is not a trace: it has no {RUN_FILE}")


def read_record(filesystem: fs.FileSystem, path: str) -> bytes:
    """Return run.json, or what a rank has to say of itself: at most one byte more than MAX_RUN_BYTES.

    A store is asked again a few times if the checksum does not hold: pyarrow asks for size and content one after the
    other, and the file may have been replaced in between. Raises: FileNotFoundError, OSError.
    """
    for wait in (*_WAITS, None):
        with filesystem.open_input_stream(path) as file:
            encoded = bytes(file.read(MAX_RUN_BYTES + 1))
        if wait is None or filesystem.type_name == "local" or run_crc32_holds(encoded):
            break
        sleep(wait)
    return encoded


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
