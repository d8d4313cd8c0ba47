"""Which sample each row of a tensor belongs to."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Layout(NamedTuple):
    """The batch sits in one dimension, of size before x N x after: its entry i belongs to sample (i // after) % N.

    Usual are axis 0 with before = after = 1, sequence-first tensors (axis 1), windows or heads folded into the batch
    (axis 0, after > 1).
    """

    axis: int
    before: int
    after: int

    def fits(self, shape: tuple[int, ...], batch: int) -> bool:
        """Whether a tensor of this shape has room for a batch of this size there."""
        return len(shape) > self.axis and shape[self.axis] == self.before * batch * self.after

    def refit(self, shape: tuple[int, ...], batch: int) -> Layout | None:
        """Return the same arrangement for another batch size or number of windows; None if the shape has none."""
        if len(shape) <= self.axis or batch == 0 or shape[self.axis] % batch:
            return self if self.fits(shape, batch) else None
        folded = shape[self.axis] // batch
        if self.before == self.after == 1:
            return self if folded == 1 else None  # nothing says on which side the windows would be
        if self.before == 1:
            return Layout(self.axis, 1, folded)
        if self.after == 1:
            return Layout(self.axis, folded, 1)
        return self if self.fits(shape, batch) else None

    def batch_first(self, t: Tensor, batch: int) -> Tensor:
        """Return a view [N, ...] of `t`: what was before and after the samples in their dimension comes next."""
        if batch == 1:
            return t[None]  # all rows are the one sample's, wherever they lie
        if self.axis == 0 and self.before == 1 and self.after == 1:
            return t
        apart: Tensor = t.unflatten(self.axis, (self.before, batch, self.after)).movedim(self.axis + 1, 0)
        return apart


#: What a batch of one has: all rows belong to its sample.
SINGLE = Layout(0, 1, 1)
