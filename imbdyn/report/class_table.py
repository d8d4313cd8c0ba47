"""A run as a table: who was learned when, whose steps it took; a row for each class, or each group of many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from rich.cells import cell_len
from rich.console import JustifyMethod, OverflowMethod
from rich.table import Table

from imbdyn.findings.groups import class_counts, groups, shown_groups
from imbdyn.findings.per_class import gradient_shares, group_shares, per_class, per_group
from imbdyn.findings.recall import group_recall, recall_curves, train_split
from imbdyn.report.figures.source import MOST_CURVES
from imbdyn.report.plain import plain
from imbdyn.report.sparkline import pooled, sparkline

if TYPE_CHECKING:
    from imbdyn.trace import Trace

#: A table this wide has the norms too.
_WIDTH_WITH_NORMS = 100

_LEAST_NAME, _LEAST_CURVE, _MOST_CURVE = 12, 9, 24


class _Column(NamedTuple):
    """A number of `per_class`, or a curve beside it."""

    name: str
    heading: str
    form: str
    width: int = 0
    """0: what is left of the terminal."""


_COLUMNS = (
    _Column("count", "count", ".0f", 5),
    _Column("epoch_learned", "50%\nepoch", "epoch", 5),
    _Column("train_recall", "train\nrecall", ".2f", 6),
    _Column("recall", "over\nepochs", "curve"),
    _Column("test_recall", "test\nrecall", ".2f", 6),
    _Column("gap", "gap", ".2f", 5),
    _Column("grad_share_early", "share\nearly", ".2f", 5),
    _Column("grad_share_late", "share\nlate", ".2f", 5),
    _Column("shares", "over\nsteps", "curve"),
)
_NORMS = (
    _Column("grad_norm_early", "norm\nearly", "norm", 7),
    _Column("grad_norm_late", "norm\nlate", "norm", 7),
    _Column("row_norm", "row\nnorm", ".2f", 5),
)

_LEGEND = (
    "50% epoch: the first with that train recall, - if never. gap: train minus test recall, at the last epoch that has "
    "both. share: the class's part of the gradient projected on the whole, <G_c, g> / ||g||^2, which sums to 1 over "
    "the classes of a step; mean over the first and the last tenth of the sampled steps, of those with its samples. "
)
_LEGEND_OF_NORMS = (
    "norm: of the class's part of the gradient, as the shares; it carries the class's share of the batch. row norm: of "
    "the class's row of the classifier, the last read. "
)
_LEGEND_OF_REST = (
    "Curves: train recall over the epochs, from 0 to 1, and shares over the sampled steps, from 0 to the largest "
    "shown; - is below 0, a gap has no reading. Of a group of classes (how many) shares are summed, other numbers are "
    "means, - if a class has none."
)


def legend(width: int) -> str:
    """Return what the columns of a table of this width mean."""
    return _LEGEND + (_LEGEND_OF_NORMS if width >= _WIDTH_WITH_NORMS else "") + _LEGEND_OF_REST


@dataclass(frozen=True)
class _Row:
    label: str
    numbers: pd.Series[Any]
    recall: pd.Series[float]
    """By epoch."""
    shares: pd.Series[float]
    """By sampled step."""
    is_group: bool = False


def class_table(trace: Trace, width: int, *, most_rows: int | None = None, ascii_only: bool = False) -> Table:
    """Return the table of a run; of more classes than `most_rows`, or than the page shows one by one, their groups.

    Args:
        trace: the run.
        width: columns of the terminal.
        most_rows: classes for which there is room, where room is short.
        ascii_only: whether curves are to be made of digits.
    """
    number, found = len(class_counts(trace)), groups(trace)
    has_room = number <= MOST_CURVES and (most_rows is None or number <= most_rows)
    classes = _classes(trace) if has_room else []
    members = {"rare": found.rare, "others": found.others} if found.rare and found.others else {}
    if number > MOST_CURVES or not (classes or members):
        members = {label.partition(",")[0].removesuffix("-shot"): group for label, group in shown_groups(trace)}
    return _drawn([*classes, *_groups(trace, members)], width, ascii_only)


def groups_shown(trace: Trace) -> str:
    """Say by which numbers of training samples many classes are grouped; nothing where the groups are no such ones."""
    labels = [label for label, _ in shown_groups(trace)]
    if len(class_counts(trace)) <= MOST_CURVES or not all("," in label for label in labels):
        return ""
    return f"groups by training samples: {'; '.join(labels)}; "


def _classes(trace: Trace) -> list[_Row]:
    curves, shares = recall_curves(trace, train_split(trace))[0], gradient_shares(trace)
    none = pd.Series(dtype=float)
    return [
        _Row(str(row["name"]), row, curves.get(c, none), shares.get(c, none)) for c, row in per_class(trace).iterrows()
    ]


def _groups(trace: Trace, members: dict[str, list[int]]) -> list[_Row]:
    if not members:
        return []
    curves, shares = recall_curves(trace, train_split(trace))[0], group_shares(gradient_shares(trace), members)
    numbers, none = per_group(trace, members), pd.Series(dtype=float)
    return [
        _Row(
            f"{name} ({len(group)})",
            numbers.iloc[place],
            group_recall(curves, group),
            shares.get(name, none),
            is_group=True,
        )
        for place, (name, group) in enumerate(members.items())
    ]


def _drawn(rows: list[_Row], width: int, ascii_only: bool) -> Table:
    columns = (*_COLUMNS, *(_NORMS if width >= _WIDTH_WITH_NORMS else ()))
    widths = {column.name: column.width for column in columns if column.width}
    widths["count"] = max(widths["count"], *(len(f"{row.numbers['count']:.0f}") for row in rows))
    room = width - sum(widths.values()) - len(columns)
    longest = max(cell_len(plain(row.label).plain) for row in rows) + len("* ")
    name_width = max(_LEAST_NAME, min(longest, room - 2 * _LEAST_CURVE))
    widths["recall"] = widths["shares"] = max(_LEAST_CURVE, min(_MOST_CURVE, (room - name_width) // 2))
    overflow: OverflowMethod = "crop" if ascii_only else "ellipsis"

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="underline")
    fixed: dict[str, Any] = {"no_wrap": True, "vertical": "bottom", "overflow": overflow}
    table.add_column("class", width=name_width, **fixed)
    for column in columns:
        justify: JustifyMethod = "left" if column.form == "curve" else "right"
        table.add_column(column.heading, justify=justify, width=widths[column.name], **fixed)
    curves = {name: [pooled(getattr(row, name), widths[name]) for row in rows] for name in ("recall", "shares")}
    tops = {"recall": 1.0, "shares": max((cell for cells in curves["shares"] for cell in cells if cell > 0), default=0)}
    for place, row in enumerate(rows):
        rare = bool(row.numbers["rare"])
        cells = [
            sparkline(curves[column.name][place], tops[column.name], ascii_only=ascii_only)
            if column.form == "curve"
            else _number(row.numbers[column.name], column.form, row.is_group)
            for column in columns
        ]
        table.add_row(plain(f"{'*' if rare else ' '} {row.label}"), *cells, style="bold cyan" if rare else "")
    return table


def _number(value: Any, form: str, is_mean: bool) -> str:
    if pd.isna(value):
        return "-"
    if form == "epoch":
        form = ".1f" if is_mean else ".0f"
    if form == "norm":  # it spans many orders of magnitude
        form = ".3g" if 0.001 <= value < 1e5 or value == 0 else ".1e"
    text = f"{value:{form}}"
    return text.lstrip("-") if not text.strip("-0.") else text
