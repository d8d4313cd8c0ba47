"""Open traces: one run, or several as one with a column that tells them apart."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, overload

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from imbdyn.trace._damage import TraceDamage
from imbdyn.trace._format import RUN_FILE
from imbdyn.trace._plain import Labels
from imbdyn.trace._store import filesystem_of, is_uri
from imbdyn.trace.reader import Label, Trace
from imbdyn.trace.run_file import NoTraceError, TraceError

if TYPE_CHECKING:
    from imbdyn.report.plot import Plot

_WILD = re.compile(r"[*?\[]")


@overload
def open_trace(place: str | os.PathLike[str]) -> Trace: ...
@overload
def open_trace(place: list[str] | list[Path] | tuple[str | os.PathLike[str], ...]) -> TraceSet: ...
def open_trace(place: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Trace:
    """Open a trace: a folder, the URI of one, or several as one TraceSet.

    Args:
        place: a path or a URI; a list of them; or a path or URI in which `*`, `?` and `[...]` stand for names of
            folders, as in "runs/*/seed?". A folder that has such a name itself is that folder.

    Raises: TraceError if there is no trace, if its run.json is damaged, or if a newer imbdyn wrote it.
    """
    if not isinstance(place, str | os.PathLike):
        return TraceSet(list(place))
    if isinstance(place, str) and _is_pattern(place):
        return TraceSet(_matches(place))
    return Trace(place)


def matches(place: str) -> list[str]:
    """Return the places of the traces that a pattern stands for, sorted; any other place alone.

    Raises: NoTraceError if it is a pattern and there is none.
    """
    return _matches(place) if _is_pattern(place) else [place]


class TraceSet(Trace):
    """Several runs as one: every table has a column `run` in front, and is sorted by it first.

    A run's name is its path below the folder that holds them all.
    """

    def __init__(self, places: Sequence[str | os.PathLike[str]]) -> None:
        if not places:
            raise TraceError("a list of traces has at least one")
        traces = [Trace(place) for place in places]
        names = _names([trace.path for trace in traces])
        if len(set(names)) < len(names):
            raise TraceError(f"each trace may be given once, got {', '.join(names)}")
        #: The traces by name.
        self.runs: dict[str, Trace] = dict(zip(names, traces, strict=True))
        #: The folder that holds them all.
        self.path = traces[0].path.parent if len(traces) == 1 else PurePath(os.path.commonpath(_absolute(traces)))
        #: The contents of each run.json, by name.
        self.run = {name: trace.run for name, trace in self.runs.items()}
        self.has_ranks = any(trace.has_ranks for trace in traces)

    def __repr__(self) -> str:
        return f"TraceSet({', '.join(self.runs)})"

    @property
    def damage(self) -> list[TraceDamage]:
        """What was found damaged, and left out, in all that was read so far."""
        return [damage for trace in self.runs.values() for damage in trace.damage]

    def dataset(self, name: str) -> ds.Dataset:
        """Return a table of all runs as one dataset, with the column `run`: see Trace.dataset."""
        datasets = [trace._dataset(name, partial(self._label, run=run)) for run, trace in self.runs.items()]
        return ds.UnionDataset(self.schema(name), datasets)

    def findings(self) -> pd.DataFrame:
        """Return what each run shows, as Trace.findings does, with a column `run` in front."""
        frames = [trace.findings() for trace in self.runs.values()]
        for name, frame in zip(self.runs, frames, strict=True):
            frame.insert(0, "run", name)
        return pd.concat(frames, ignore_index=True)

    @property
    def plot(self) -> Plot:
        """Refused: a figure shows one run. Raises: TraceError."""
        raise TraceError(f"a figure shows one run: trace.runs[NAME].plot, where NAME is {' or '.join(self.runs)}")

    def _label(self, rank: int, run: str = "") -> Labels:
        return {"run": run, **super()._label(rank)}

    def _reads(
        self, name: str, columns: list[str], filter: ds.Expression | None, label: Label
    ) -> list[Callable[[], pa.Table]]:
        return [
            read
            for run, trace in self.runs.items()
            for read in trace._reads(name, columns, filter, partial(label, run=run))
        ]


def _absolute(traces: Sequence[Trace]) -> list[str]:
    return [os.path.abspath(trace.path) for trace in traces]  # noqa: PTH100  (links are not followed)


def _names(paths: Sequence[PurePath]) -> list[str]:
    absolute = [os.path.abspath(path) for path in paths]  # noqa: PTH100
    if len(set(absolute)) == 1:
        return [os.path.basename(path) for path in absolute]  # noqa: PTH119
    common = os.path.commonpath(absolute)
    return [PurePath(path).relative_to(common).as_posix() for path in absolute]


def _is_pattern(place: str) -> bool:
    if is_uri(place):  # there "?" begins the options
        return _WILD.search(place.partition("?")[0]) is not None
    return _WILD.search(place) is not None and not Path(place).exists()


def _matches(pattern: str) -> list[str]:
    """Return the places of the traces that a pattern matches, sorted."""
    query = ""
    if is_uri(pattern):
        pattern, mark, options = pattern.partition("?")
        query = mark + options
    wild = _WILD.search(pattern)
    assert wild is not None
    plain = pattern[: wild.start()].rpartition("/")[0]
    names = pattern[len(plain) :].strip("/").split("/")
    filesystem, root = filesystem_of((plain or ("/" if pattern.startswith("/") else ".")) + query)
    found = [""]
    for name in names:
        found = [f"{below}/{match}" for below in found for match in _folders(filesystem, root + below, name)]
    with_run = [
        below for below in found if filesystem.get_file_info(f"{root}{below}/{RUN_FILE}").type == fs.FileType.File
    ]
    if not with_run:
        raise NoTraceError(f"no trace matches {pattern}")
    start = plain if plain or pattern.startswith("/") else "."
    return [f"{start}{below}{query}" for below in with_run]


def _folders(filesystem: fs.FileSystem, folder: str, pattern: str) -> list[str]:
    infos = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    names = sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]
