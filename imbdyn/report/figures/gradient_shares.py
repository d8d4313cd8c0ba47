"""Each class's share of the step."""

from __future__ import annotations

import pandas as pd

from imbdyn.findings.per_class import by_step_and_class, group_shares
from imbdyn.report.figures import _gradients
from imbdyn.report.figures.chart import Axis, Lines, NothingToDrawError, Series
from imbdyn.report.figures.curves import class_lines, over_time
from imbdyn.report.figures.figure import Choices, Figure
from imbdyn.report.figures.source import Source

_AXIS = Axis("⟨G_c, g⟩ / ‖g‖²", "share of the step")
_LEVELS = ((0.0, "no part in it"),)


def choices(source: Source) -> Choices:
    """Offer the sums over groups, and single classes."""
    return {"of": ["groups", "classes"], **_gradients.choices(source)}


def draw(source: Source, of: str = "groups", parameter: str = "*", over: str = "steps") -> Lines:
    """Return <G_c, g> / ||g||^2 by class, or summed over the classes of a group."""
    rows = _gradients.gradient_rows(source, ["grad_share"], parameter)
    notes = _gradients.read_steps_note(source)
    if of == "groups":
        return _group_lines(source, rows, over, notes)
    rows, x = over_time(source, rows.rename(columns={"grad_share": "y"}), over, ["class_id"])
    return class_lines(source, rows, x, _AXIS, levels=_LEVELS, notes=notes)


def _group_lines(source: Source, rows: pd.DataFrame, over: str, notes: tuple[str, ...]) -> Lines:
    groups = source.shown_groups if source.has_many_classes else source.pair
    shares = by_step_and_class(rows, "grad_share")["grad_share"]
    sums = group_shares(shares, {group.key: group.classes for group in groups})
    long = sums.reset_index().melt(id_vars="step", var_name="group", value_name="y").dropna()
    means, x = over_time(source, long, over, ["group"])
    series = []
    for group in reversed(groups):
        mine = means[means["group"] == group.key].sort_values("x")
        if len(mine):
            xs, ys = (mine[name].to_numpy(dtype=float) for name in ("x", "y"))
            series.append(Series(f"group {group.key}", group.label, xs, ys, family="groups", colour=group.colour))
    if not series:
        raise NothingToDrawError("No sampled step has shares: the whole gradient is zero.")
    return Lines(x, _AXIS, tuple(series), _LEVELS, notes)


FIGURE = Figure(
    "gradient_shares",
    "Whose step it is",
    "The projection of a class's gradient on the whole one, alone or summed over a group. The shares of a step sum to "
    "1 over its classes; below 0 the step goes, to first order, against the class.",
    draw,
    choices,
    compared="difference",
)
