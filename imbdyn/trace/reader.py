"""Read a trace, finished or still being written: lazily as datasets, or as one DataFrame a table."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from imbdyn.trace._damage import TraceDamage, UntrustedError
from imbdyn.trace._lookup import look_up, look_up_table
from imbdyn.trace._plain import Labels, labelled, plain_schema
from imbdyn.trace._run_folder import RunFolder
from imbdyn.trace._snapshot import Opened, Piece, Snapshot, take_snapshot
from imbdyn.trace.run_file import TraceError
from imbdyn.trace.schema import Table

if TYPE_CHECKING:
    from imbdyn.report.plot import Plot

_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)

T = TypeVar("T")

#: From the rank that wrote some rows (and, of several runs, `run`) to the columns that stand in front of them.
Label = Callable[..., Labels]


class Trace:
    """One run's trace. Names come as plain strings, which sort, group and join without regard to categories.

    If several ranks wrote the run, every table has a column `rank` in front: each has the rows of its own samples.

    A run that goes on may be read: each call sees the rows that are there then, in parts or in the journal; `run` is as
    of opening. `place` is a path, or the URI of an object store.

    Every row that is returned was checked. What is not as it was written is left out, told by a TraceDamage warning
    that names the file, and kept in `damage`.
    """

    #: Of a trace that is frozen: DataFrames by table, and what was made of them.
    _kept: dict[str, Any] | None = None

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._folder = RunFolder(place)
        self._opened = Opened(self._folder)
        #: The run's folder; of a URI, the path in its store.
        self.path: PurePath = self._folder.path
        #: The contents of run.json.
        self.run: dict[str, Any] = self._folder.read_run()
        #: Whether several ranks wrote the run; as of opening, too.
        self.has_ranks: bool = self._folder.has_ranks()
        self._damage: list[TraceDamage] = []

    def __repr__(self) -> str:
        return f"Trace({self._folder.place!r}, {self.run.get('status')})"

    @property
    def damage(self) -> list[TraceDamage]:
        """What was found damaged, and left out, in all that was read so far."""
        return list(self._damage)

    def dataset(self, name: str) -> ds.Dataset:
        """Return a table as a pyarrow dataset, in the order of its parts; of the rows in parts nothing is read yet.

        The parts' footers are checked here, their pages when pyarrow reads them, by checksums that cover values but
        not lengths: of a trace from a stranger, read `table` or `batches`, which check everything.
        A table without rows is an empty dataset with that table's schema. Raises: KeyError for an unknown name.
        """
        return self._dataset(name, self._label)

    def batches(
        self, name: str, columns: Sequence[str] | None = None, filter: ds.Expression | None = None
    ) -> Iterator[pa.Table]:
        """Yield a table's rows in the order in which they were written, a row group (at most 131,072 rows) at a time.

        The arguments are those of `table`. Memory does not grow with the trace.
        """
        return (read() for read in self.reads(name, columns, filter))

    def reads(
        self, name: str, columns: Sequence[str] | None = None, filter: ds.Expression | None = None
    ) -> list[Callable[[], pa.Table]]:
        """Return what `batches` reads as one function a row group, so that it is known how many there are."""
        wanted = self._wanted(name, columns)
        select(self.schema(name).empty_table(), wanted, filter)  # a filter that does not fit is an error here
        return self._reads(name, wanted, filter, self._label)

    def key(self, name: str) -> tuple[str, ...]:
        """Return the columns that tell the rows of a table apart."""
        return (*self._label(0), *look_up_table(name).key)

    def schema(self, name: str) -> pa.Schema:
        """Return the schema of a table as it is read: with its metadata, names as plain strings."""
        return plain_schema(look_up_table(name), self._label(0))

    def table(self, name: str, columns: Sequence[str] | None = None, filter: ds.Expression | None = None) -> pa.Table:
        """Return a table's rows, sorted by its key.

        Every byte that is read is checked first. A file that is not as it was written is left out, with a TraceDamage
        warning that names it.

        Args:
            columns: return only these.
            filter: a condition such as `pyarrow.dataset.field("step") > 100`; row groups it rules out are not read.

        Raises: KeyError for an unknown name, pyarrow.ArrowInvalid for a filter that does not fit the table.
        """
        schema = self.schema(name)
        wanted = self._wanted(name, columns)
        key = self.key(name)
        read = [*dict.fromkeys([*wanted, *key])]
        empty = pa.schema([schema.field(column) for column in read], metadata=schema.metadata).empty_table()
        rows = pa.concat_tables([empty, *self.batches(name, read, filter)])
        return rows.sort_by([(column, "ascending") for column in key]).select(wanted)

    @property
    def steps(self) -> pd.DataFrame:
        """A row per step that closed a window, or evaluation."""
        return self.frame("steps")

    @property
    def classes(self) -> pd.DataFrame:
        """A row per step, split and class, from the logits."""
        return self.frame("classes")

    @property
    def parameters(self) -> pd.DataFrame:
        """A row per sampled step and parameter."""
        return self.frame("parameters")

    @property
    def class_gradients(self) -> pd.DataFrame:
        """A row per sampled step, parameter and class; parameter "*" is the whole network."""
        return self.frame("class_gradients")

    @property
    def class_gradient_pairs(self) -> pd.DataFrame:
        """A row per sampled step, parameter and two classes."""
        return self.frame("class_gradient_pairs")

    @property
    def features(self) -> pd.DataFrame:
        """A row per evaluation and layer."""
        return self.frame("features")

    @property
    def class_features(self) -> pd.DataFrame:
        """A row per evaluation, layer and class."""
        return self.frame("class_features")

    @property
    def class_feature_pairs(self) -> pd.DataFrame:
        """A row per evaluation, layer and two classes, up to 100 classes."""
        return self.frame("class_feature_pairs")

    @property
    def classifier(self) -> pd.DataFrame:
        """A row per step and class: its row of the classifier."""
        return self.frame("classifier")

    def frozen(self) -> Trace:
        """Return this trace with each DataFrame kept from when it is first asked for: for many numbers of one run."""
        if self._kept is not None:
            return self
        frozen = copy(self)
        frozen._kept = {}
        return frozen

    def findings(self) -> pd.DataFrame:
        """Return the phenomena of imbalanced training that this trace shows, with effect sizes."""
        from imbdyn.findings import findings

        return findings(self)

    @property
    def plot(self) -> Plot:
        """The figures of `imbdyn report` in matplotlib: `trace.plot.recall(ax, split="test")`; dir() lists them."""
        from imbdyn.report.plot import Plot

        return Plot(self)

    def _label(self, rank: int) -> Labels:
        return {"rank": rank} if self.has_ranks else {}

    def _dataset(self, name: str, label: Label) -> ds.Dataset:
        table = look_up_table(name)
        snapshot = self._snapshot(table)
        schema = plain_schema(table, label(0))
        fragments = []
        loose = [schema.empty_table(), *(labelled(rows, label(rank)) for rank, rows in snapshot.journal.items())]
        for piece in snapshot.pieces:
            labels = label(piece.part.rank)
            if piece.is_whole():
                fragments.append(piece.part.fragment(_FORMAT, labels))
            else:
                # A fragment has no condition, and Arrow's count_rows() does not heed a choice of row groups. What was
                # superseded lies in the last part before a run was resumed, so that little is read here.
                loose += [self._read(piece, group, None, None, labels) for group in piece.groups(None, labels)]
        rows = pa.concat_tables(loose)
        parts = ds.FileSystemDataset(fragments, schema, _FORMAT, self._folder.filesystem)
        return ds.UnionDataset(schema, [parts, ds.InMemoryDataset(rows)]) if rows.num_rows else parts

    def _reads(
        self, name: str, columns: list[str], filter: ds.Expression | None, label: Label
    ) -> list[Callable[[], pa.Table]]:
        snapshot = self._snapshot(look_up_table(name))
        pieces = [(piece, label(piece.part.rank)) for piece in snapshot.pieces]
        reads = [
            partial(self._read, piece, group, columns, filter, labels)
            for piece, labels in pieces
            for group in piece.groups(filter, labels)
        ]
        unsealed = [labelled(rows, label(rank)) for rank, rows in snapshot.journal.items()]
        return [*reads, *(partial(select, rows, columns, filter) for rows in unsealed)]

    def _snapshot(self, table: Table) -> Snapshot:
        snapshot = take_snapshot(self._folder, table, self._opened)
        for damage in snapshot.damage:
            self._tell(damage)
        return snapshot

    def _read(
        self, piece: Piece, group: int, columns: list[str] | None, filter: ds.Expression | None, labels: Labels
    ) -> pa.Table:
        part = piece.part
        file = self._folder.named(part.table.name, part.name)
        try:
            return piece.read(group, columns, filter, labels)
        except UntrustedError as error:
            rows = part.metadata.row_group(group).num_rows
            self._tell(TraceDamage(file, f"{error}; its {rows} rows are left out"))
            return select(plain_schema(part.table, labels).empty_table(), columns, None)
        except FileNotFoundError:
            raise TraceError(f"{file} was merged into another part while it was read: read again") from None

    def _tell(self, damage: TraceDamage) -> None:
        if damage not in self._damage:
            self._damage.append(damage)
            warnings.warn(damage, stacklevel=4)

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """Return what `make` returns; of a frozen trace, what it returned the first time that `name` was asked for."""
        if self._kept is None:
            return make()
        if name not in self._kept:
            self._kept[name] = make()
        found: T = self._kept[name]
        return found

    def frame(self, name: str, filter: ds.Expression | None = None) -> pd.DataFrame:
        """Return a table's rows as a DataFrame, sorted by its key; of a frozen trace, it is made once.

        The arguments are those of `table`.
        """
        return self.kept(f"{name} where {filter}", lambda: self._made(name, filter))

    def _made(self, name: str, filter: ds.Expression | None) -> pd.DataFrame:
        return as_frame(self.table(name, filter=filter))

    def _wanted(self, name: str, columns: Sequence[str] | None) -> list[str]:
        known = {column: column for column in self.schema(name).names}
        return [look_up(f"column of {name}", column, known) for column in columns or known]


def as_frame(rows: pa.Table) -> pd.DataFrame:
    """Return rows as a DataFrame."""
    # A bool column with nulls would become objects, which select no rows.
    frame: pd.DataFrame = rows.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)
    return frame


def select(rows: pa.Table, columns: Sequence[str] | None, filter: ds.Expression | None) -> pa.Table:
    """Return some columns of the rows for which `filter` is true."""
    chosen = rows if filter is None else rows.filter(filter)
    return chosen if columns is None else chosen.select(list(columns))
