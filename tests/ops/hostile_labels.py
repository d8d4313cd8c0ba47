"""Labels that no training hands over: out of range by one or by all bits, laid out in every way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

Result = TypeVar("Result")

#: The usual one twice; one that is a class; those whose neighbours overflow.
IGNORE_INDICES = (-100, -100, -1, 0, 2**62, -(2**63))

LAYOUTS = ("contiguous", "every other", "column", "expanded")


@dataclass(frozen=True)
class HostileLabels:
    """Labels as an op gets them, and what they mean."""

    given: Tensor
    num_classes: int
    ignore_index: int
    effective: Tensor
    """The same with -100 for `ignore_index`."""
    first_bad: int | None
    """The first row whose label is neither a class nor `ignore_index`."""

    def result_of(self, call: Callable[[], Result]) -> Result | None:
        """Return what `call` returns, or None after its error, which there must be exactly if a label is bad."""
        if self.first_bad is None:
            return call()
        message = (
            rf"^labels\[{self.first_bad}\] is {int(self.given[self.first_bad])}: a label must be in "
            rf"0\.\.{self.num_classes - 1} or equal ignore_index={self.ignore_index}$"
        )
        with pytest.raises(ValueError, match=message):
            call()
        return None


@st.composite
def hostile_labels(draw: st.DrawFn, labels: Tensor, num_classes: int) -> HostileLabels:
    """Draw what is done to `labels`, int64 [N] with -100 for ignored rows; in half of the cases some become bad."""
    rows, ignore_index = len(labels), draw(st.sampled_from(IGNORE_INDICES))
    given = labels.where(labels != -100, torch.tensor(ignore_index))
    near, far = (-1, num_classes, num_classes + 1, -101), (2**31, 2**32, 2**62, 2**63 - 1, -(2**63), 1 - 2**63)
    if rows and draw(st.booleans()):
        for _ in range(draw(st.integers(1, 3))):
            given[draw(st.integers(0, rows - 1))] = draw(st.sampled_from(near + far))
    layout = draw(st.sampled_from(LAYOUTS))
    if layout == "every other":
        given = given.repeat_interleave(2)[::2]
    elif layout == "column":
        given = given[:, None].repeat(1, 3)[:, 1]
    elif layout == "expanded":
        given = given[:1].expand(rows)
    counted = [(row, y) for row, y in enumerate(given.tolist()) if y != ignore_index]
    bad = [row for row, y in counted if not 0 <= y < num_classes]
    effective = given.where(given != ignore_index, torch.tensor(-100))
    return HostileLabels(given, num_classes, ignore_index, effective, bad[0] if bad else None)
