"""Whether two trainings have left the same trace."""

from __future__ import annotations

import numpy as np
import pandas as pd

import imbdyn
from imbdyn.trace.schema import TABLES

#: What no two trainings share.
TIMES = {"step_seconds", "overhead_seconds"}
#: What is rounding where a gradient hardly is more, or a weight was 0 before the step.
ROUNDING = {"residual", "grad_noise", "cos_weight_update", "rotation", "row_rotation"}


def assert_same_trace(a: imbdyn.Trace, b: imbdyn.Trace, *, relative: float = 0.0) -> None:
    """Compare all rows and numbers; the latter to a part of the largest of their column, or all digits.

    With a tolerance, cosines are compared for the whole network only: those of a small gradient are rounding.
    """
    compared = 0
    for name, table in TABLES.items():
        rows_a, rows_b = (getattr(trace, name).sort_values(list(table.key)).reset_index(drop=True) for trace in (a, b))
        pd.testing.assert_frame_equal(rows_a[list(table.key)], rows_b[list(table.key)], obj=name)
        for column in rows_a.columns.difference([*table.key, *TIMES, *(ROUNDING if relative else ())]):
            x, y = rows_a[column], rows_b[column]
            if relative and "cos" in column and "parameter" in rows_a:
                x, y = x[rows_a.parameter == "*"], y[rows_b.parameter == "*"]
            assert (x.isna() == y.isna()).all(), f"{name}.{column}"
            x, y = x.dropna().to_numpy(np.float64), y.dropna().to_numpy(np.float64)
            bound = relative * np.abs(x).max(initial=0)
            worst = np.abs(x - y).max(initial=0)
            assert worst <= bound, f"{name}.{column}: {worst:.1e} > {bound:.1e}"
            compared += len(x)
    assert compared > 0
