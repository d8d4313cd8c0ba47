from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from imbdyn.report.sparkline import BLOCKS, DIGITS, pooled, sparkline

NAN = float("nan")


def test_each_eighth_of_the_height_has_its_mark() -> None:
    assert sparkline(np.arange(9) / 8, 1.0) == "▁▂▃▄▅▆▇██"
    assert sparkline(np.array([0.0, 0.124, 0.126, 0.999]), 1.0) == "▁▁▂█"


def test_digits_are_tenths_where_there_are_no_blocks() -> None:
    assert sparkline(np.array([0.0, 0.09, 0.5, 0.99, 1.0]), 1.0, ascii_only=True) == "00599"
    assert DIGITS.isascii()
    assert not BLOCKS.isascii()


def test_missing_is_a_gap_and_below_zero_is_marked() -> None:
    assert sparkline(np.array([0.0, NAN, -0.01, 0.5]), 0.5) == "▁ -█"
    assert sparkline(np.array([0.0, NAN, -0.01]), 0.0) == "▁ -"


def test_few_readings_have_a_cell_each_and_none_has_none() -> None:
    assert pooled(pd.Series([0.25, 0.5]), 10).tolist() == [0.25, 0.5]
    assert pooled(pd.Series([], dtype=float), 10).tolist() == []


def test_many_readings_are_means_over_spans_of_equal_number() -> None:
    assert pooled(pd.Series([0.0, 1.0, 2.0, 4.0, 6.0, 8.0]), 3).tolist() == [0.5, 3.0, 7.0]
    assert len(pooled(pd.Series(np.arange(101.0)), 10)) == 10


@pytest.mark.parametrize("missing", [NAN, float("inf")])
def test_a_mean_is_over_what_is_known(missing: float) -> None:
    cells = pooled(pd.Series([1.0, missing, missing, missing]), 2)
    assert cells[0] == 1.0
    assert np.isnan(cells[1])
