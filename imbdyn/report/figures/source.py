"""What the figures read of one run: rows of its tables, each read once, and its classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from imbdyn.findings.groups import class_counts, class_names, groups, shown_groups
from imbdyn.findings.recall import held_out_split, train_split

if TYPE_CHECKING:
    from imbdyn.trace import Trace

#: Up to so many classes each has a curve of its own; beyond, groups of them have bands.
MOST_CURVES = 20

#: A table of up to so many rows is read whole, once; of a larger one only what a figure needs, each time.
_KEPT_ROWS = 2_000_000

#: Of a table that is larger still, only every k-th sampled step is read, so that about so many rows are decoded.
_DECODED_ROWS = 30_000_000


class Group(NamedTuple):
    """Classes that are shown together."""

    key: str
    label: str
    classes: list[int]
    colour: int | None


class Source:
    """One run as the figures see it. Rows are as of their first reading."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._whole: dict[str, pa.Table] = {}
        self._rows: dict[str, int] = {}
        self._splits: dict[str, list[str]] = {}
        self._parameters: dict[str, list[str]] = {}

    @cached_property
    def names(self) -> list[str]:
        """Names of the classes."""
        return class_names(self.trace)

    @cached_property
    def counts(self) -> list[int]:
        """Training samples of each class."""
        return class_counts(self.trace)

    @cached_property
    def rare(self) -> list[int]:
        """The rare classes, smallest id first."""
        return groups(self.trace).rare

    @property
    def has_many_classes(self) -> bool:
        """Whether groups of classes are shown in place of each."""
        return len(self.counts) > MOST_CURVES

    @cached_property
    def pair(self) -> list[Group]:
        """The rare classes and the others, or all together if no class is rare."""
        found = groups(self.trace)
        if not found.rare or not found.others:
            return [Group("all", "all classes", list(range(len(self.counts))), 1)]
        return [
            Group("rare", f"rare classes ({len(found.rare)})", found.rare, 0),
            Group("others", f"other classes ({len(found.others)})", found.others, 1),
        ]

    @cached_property
    def shown_groups(self) -> list[Group]:
        """The groups that stand for single classes where there are many."""
        colours = {"rare": 0, "few-shot": 0, "medium-shot": 4}
        return [
            Group(
                name := label.partition(",")[0],
                f"{label} samples, {len(classes)} classes" if "-shot" in name else f"{name} classes ({len(classes)})",
                classes,
                colours.get(name, 1),
            )
            for label, classes in shown_groups(self.trace)
        ]

    def colour(self, class_id: int) -> int | None:
        """Return a class's colour: rare classes stand out; where none is rare, all have one."""
        if not self.rare or len(self.rare) == len(self.counts):
            return class_id
        return self.rare.index(class_id) if class_id in self.rare else None

    def family(self, class_id: int) -> str:
        """Return the legend's heading for a class."""
        if not self.rare or len(self.rare) == len(self.counts):
            return "classes"
        return "rare classes" if class_id in self.rare else "other classes"

    @cached_property
    def evaluations(self) -> list[str]:
        """The splits whose classes were read: that of the training data first, then held-out data, then others."""
        found = self.splits("classes")
        first = [train_split(self.trace), held_out_split(self.trace)]
        return [*(split for split in first if split in found), *sorted(set(found) - set(first) - {"train"})]

    def splits(self, table: str) -> list[str]:
        """Return the names of the splits that a table has rows of, sorted."""
        if table not in self._splits:
            self._splits[table] = sorted(map(str, self.read(table, ["split"])["split"].unique()))
        return self._splits[table]

    def parameters_in(self, table: str) -> list[str]:
        """Return the parameters that the first sampled step of a table has rows of, in the order of the model."""
        if table not in self._parameters:
            steps = self.sampled_steps[:1]
            found = [str(name) for name in self.read(table, ["parameter"], steps=steps)["parameter"].unique()]
            coverage = self.trace.run.get("coverage")
            order = list(coverage["parameters"]) if isinstance(coverage, dict) else []
            known = {name: place for place, name in enumerate(order)}
            self._parameters[table] = sorted(found, key=lambda name: (known.get(name, len(known)), name))
        return self._parameters[table]

    @cached_property
    def epochs(self) -> pd.Series[int]:
        """The epoch of each training step that has a row; empty if the run does not say."""
        rows = self.read("steps", ["step", "epoch"], split="train").dropna()
        return rows.set_index("step")["epoch"].astype("int64")

    @cached_property
    def sampled_steps(self) -> list[int]:
        """The steps in which class gradients were read."""
        rows = self.read("steps", ["step", "sampled"], split="train")
        return [int(step) for step in rows.loc[rows["sampled"].fillna(False).astype(bool), "step"]]

    def stride(self, table: str) -> int:
        """Return k if only every k-th sampled step of a table is to be read, 1 for all."""
        return 1 + self._size(table) // _DECODED_ROWS

    def read(
        self, table: str, columns: Sequence[str], *, steps: Sequence[int] | None = None, **equal: str
    ) -> pd.DataFrame:
        """Return columns of the rows in which the columns named in `equal` have those values, sorted by key.

        Args:
            table: name of the table.
            columns: columns to return.
            steps: only rows of these steps.
            equal: column and value, such as split="test".
        """
        condition = None
        terms = [ds.field(column) == value for column, value in equal.items()]
        if steps is not None:
            terms.append(ds.field("step").isin(list(steps)))
        for term in terms:
            condition = term if condition is None else condition & term
        if table not in self._whole and self._size(table) <= _KEPT_ROWS:
            self._whole[table] = self.trace.table(table)
        if table in self._whole:
            whole = self._whole[table]
            rows = (whole if condition is None else whole.filter(condition)).select(list(columns))
        else:
            rows = self.trace.table(table, columns, condition)
        frame: pd.DataFrame = rows.to_pandas()
        return frame

    def _size(self, table: str) -> int:
        if table not in self._rows:
            self._rows[table] = self.trace.dataset(table).count_rows()
        return self._rows[table]
