"""What the page says in words and tables: facts of the runs, their measures side by side, class by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

import pandas as pd

from imbdyn.findings import per_class
from imbdyn.findings.intervals import Interval, combine, wilson
from imbdyn.findings.late_overfit import mean_gap
from imbdyn.findings.recall import held_out_split, recall_curves, train_split
from imbdyn.report.figures.source import Source

if TYPE_CHECKING:
    from imbdyn.trace import Trace

#: More classes than this are shown as those with the fewest and the most samples, half each.
_MOST_ROWS = 40


@dataclass(frozen=True)
class Measured:
    """One number of one run, with its 95% interval where it is an estimate from a sample."""

    value: float
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Measure:
    """One number of every run, and what it is more or less than in the reference."""

    label: str
    form: str
    """Format of a number."""
    runs: list[Measured | None]
    differences: list[Measured | None]
    """From the reference; None for that itself, and where a run has no value."""
    are_ratios: bool = False
    """Whether `differences` are multiples of the reference: of norms, which span orders of magnitude."""


def facts(source: Source) -> dict[str, str]:
    """Return what was trained and how it was read, as name and text."""
    trace = source.trace
    run, counts = trace.run, source.counts
    overhead = run["overhead"]
    steps = source.read("steps", ["step"])
    last = 0 if steps.empty else int(steps["step"].max())
    epochs = source.epochs
    rare = [source.names[c] for c in source.rare]
    smallest = min(counts)
    return {
        "Trace": str(trace.path),
        "Status": str(run["status"]),
        "Classes": f"{len(counts):,}",
        "Training samples": f"{sum(counts):,}",
        "Imbalance ratio": f"{max(counts) / smallest:.3g} ({max(counts):,} / {smallest:,})" if smallest else "no limit",
        "Rare classes": _shortened(rare) if rare else "none",
        "Steps, epochs": f"{last:,}, {epochs.nunique() if len(epochs) else 'not said'}",
        "Steps sampled": f"{overhead['sampled_steps']:,} of {overhead['steps']:,}",
        "Time added": "not known" if overhead["share"] is None else f"{overhead['share']:.1%} of the training",
        "Parameters covered": _coverage(run.get("coverage")),
    }


def measures(sources: Sequence[Source], reference: int) -> dict[str, list[Measure]]:
    """Return the numbers by which runs are compared, by heading; those that no run has are left out."""
    tables = [per_class(source.trace) for source in sources]
    tests = [_last_test(source.trace) for source in sources]
    found = {
        "All classes": [
            _measure("Balanced accuracy, held out", ".3f", [_mean_recall(test, None) for test in tests], reference)
        ]
    }
    for heading, members in (("Rare classes", True), ("Classes that are not rare", False)):
        classes = [list(table.index[table["rare"] == members]) for table in tables]
        held_out = [_mean_recall(test, mine) for test, mine in zip(tests, classes, strict=True)]
        train = [_mean(table, "train_recall", mine) for table, mine in zip(tables, classes, strict=True)]
        gaps = [_mean_gap(source, mine) for source, mine in zip(sources, classes, strict=True)]
        found[heading] = [
            _measure("Train recall", ".3f", train, reference),
            _measure("Held-out recall", ".3f", held_out, reference),
            _measure("Gap between the two", ".3f", gaps, reference),
        ]
        for label, column, form in (
            ("Epoch of 50% train recall", "epoch_learned", ".1f"),
            ("Gradient norm, first tenth of the steps", "grad_norm_early", ".3g"),
            ("Gradient norm, last tenth", "grad_norm_late", ".3g"),
            ("Norm of the classifier's rows", "row_norm", ".3f"),
        ):
            values = [_mean(table, column, mine) for table, mine in zip(tables, classes, strict=True)]
            found[heading].append(_measure(label, form, values, reference, are_ratios="norm" in column))
    known = {heading: [measure for measure in group if any(measure.runs)] for heading, group in found.items()}
    return {heading: group for heading, group in known.items() if group}


def class_rows(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return a row for each class of the first run, with its numbers in every run; None where it is another class.

    `half` marks the first of the classes with the most samples, where some in the middle are left out.
    """
    tables = [per_class(source.trace) for source in sources]
    curves = [(_curves(source, train_split), _curves(source, held_out_split)) for source in sources]
    first = sources[0]
    order = sorted(range(len(first.counts)), key=lambda c: (c not in first.rare, min(_counts(sources, c)), c))
    half = None
    if len(order) > _MOST_ROWS:
        half = order[-_MOST_ROWS // 2]
        order = order[: _MOST_ROWS // 2] + order[-_MOST_ROWS // 2 :]
    return [
        {
            "name": first.names[c],
            "rare": any(c in source.rare and _name(source, c) == first.names[c] for source in sources),
            "half": c == half,
            "runs": [
                _class_cells(table, train, test, c) if _name(source, c) == first.names[c] else None
                for source, table, (train, test) in zip(sources, tables, curves, strict=True)
            ],
        }
        for c in order
    ]


def _class_cells(table: pd.DataFrame, train: pd.DataFrame, test: pd.DataFrame, c: int) -> dict[str, Any]:
    row = table.loc[c]
    columns = ("epoch_learned", "train_recall", "test_recall", "gap")
    return {
        "count": int(table["count"][c]),
        "train_path": _spark(train, c),
        "test_path": _spark(test, c),
        **{name: None if pd.isna(row[name]) else float(row[name]) for name in columns},
    }


def _spark(curves: pd.DataFrame, c: int, width: float = 84, height: float = 20, most: int = 42) -> str:
    """Return the path of a recall curve in a small picture, from 0 at the bottom to 1 at the top."""
    if c not in curves:
        return ""
    curve = curves[c].dropna()
    curve = curve.iloc[:: 1 + len(curve) // most]
    last = max(1, len(curve) - 1)
    points = (f"{i * width / last:.1f} {1 + (1 - value) * height:.1f}" for i, value in enumerate(curve))
    return "M" + "L".join(points) if len(curve) > 1 else ""


def _curves(source: Source, split_of: Callable[[Trace], str | None]) -> pd.DataFrame:
    split = split_of(source.trace)
    return pd.DataFrame() if split is None else recall_curves(source.trace, split)[0]


def _name(source: Source, c: int) -> str | None:
    return source.names[c] if c < len(source.names) else None


def _counts(sources: Sequence[Source], c: int) -> list[int]:
    return [source.counts[c] for source in sources if _name(source, c) == sources[0].names[c]]


def _last_test(trace: Trace) -> dict[int, Interval]:
    """Return each class's last recall on held-out data with Wilson's interval."""
    split = held_out_split(trace)
    if split is None:
        return {}
    curves, counts = recall_curves(trace, split)
    if curves.empty:
        return {}
    last, of = curves.iloc[-1], counts.iloc[-1]
    return {int(c): wilson(float(last[c]), int(of[c])) for c in curves.columns if of[c] > 0}


def _mean_recall(test: dict[int, Interval], classes: list[int] | None) -> Measured | None:
    """Return the mean recall over classes with its interval, None unless each has one."""
    wanted = list(test) if classes is None else classes
    if not wanted or any(c not in test for c in wanted):
        return None
    return Measured(*combine([1 / len(wanted)] * len(wanted), [test[c] for c in wanted]))


def _mean(table: pd.DataFrame, column: str, classes: list[int]) -> Measured | None:
    values = table.loc[classes, column].astype("Float64")
    if not len(values) or values.isna().any():
        return None
    return Measured(float(values.mean()))


def _mean_gap(source: Source, classes: list[int]) -> Measured | None:
    """Return the mean gap at the last epoch that has both recalls, which need not be the last of either."""
    gap = mean_gap(source.trace, classes)
    return None if gap is None else Measured(*gap)


def _minus(a: Measured, b: Measured) -> Measured:
    """Return a - b; what has no interval is a census, and has no uncertainty."""
    if a.lower is None and b.lower is None:
        return Measured(a.value - b.value)
    return Measured(*combine([1.0, -1.0], [_interval(a), _interval(b)]))


def _interval(of: Measured) -> Interval:
    if of.lower is None or of.upper is None:
        return Interval(of.value, of.value, of.value)
    return Interval(of.value, of.lower, of.upper)


def _measure(label: str, form: str, runs: list[Measured | None], reference: int, are_ratios: bool = False) -> Measure:
    runs = [None if run is None or isnan(run.value) else run for run in runs]
    base = runs[reference]

    def against(run: Measured | None) -> Measured | None:
        if run is None or base is None or run is base:
            return None
        if are_ratios:
            return Measured(run.value / base.value) if base.value else None
        return _minus(run, base)

    return Measure(label, form, runs, [against(run) for run in runs], are_ratios)


def _coverage(coverage: Any) -> str:
    if not isinstance(coverage, dict):
        return "not known"
    missing = [name for name, how in coverage["parameters"].items() if not how["covered"]]
    return f"{coverage['share']:.1%}" + (f"; not {_shortened(missing)}" if missing else "")


def _shortened(names: Sequence[str], most: int = 8) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
