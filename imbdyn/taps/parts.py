"""What a parameter's gradient is made of, in the five forms that the rules speak of.

N samples. `grad_outputs` is dL/d(result) of the watched function; the class gradient is the sum over the rows of the
samples of a class. No form has made a product yet: what is cheapest to make is the ops' affair.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from imbdyn.taps.layout import Layout


@dataclass(frozen=True)
class Rows:
    """dL/dw = sum over rows of grad_outputs_r (outer) inputs_r: a parameter that was multiplied with rows.

    The dimensions before the last one start like those of the function's result, up to the one of the batch.
    """

    def fits(self, layout: Layout) -> bool:
        """Whether the batch lies among the rows."""
        return layout.axis < self.inputs.dim() - 1

    inputs: Tensor
    """[..., I]."""
    grad_outputs: Tensor
    """[..., O]."""
    transposed: bool = False
    """Whether the parameter is [I, O] and not [O, I]."""

    def by_sample(self, layout: Layout, batch: int) -> Rows:
        """Return the same with inputs [N, L, I] and grad_outputs [N, L, O]."""
        return replace(
            self,
            inputs=_rows(layout.batch_first(self.inputs, batch), 1),
            grad_outputs=_rows(layout.batch_first(self.grad_outputs, batch), 1),
        )


@dataclass(frozen=True)
class Broadcast:
    """dL/dw = `gradient` summed over the dimensions in which the parameter was repeated: biases, scales, positions."""

    gradient: Tensor
    """The shape of the function's result."""
    shape: tuple[int, ...]
    """The parameter's, aligned with the last dimensions of the result; 1 where it was repeated."""

    def by_sample(self, layout: Layout, batch: int) -> Tensor:
        """Return every sample's part of the gradient, [N, number of elements of the parameter]."""
        g = self.gradient
        shape = (1,) * (g.dim() - len(self.shape)) + tuple(self.shape)
        if batch == 1:
            return g.sum_to_size(shape).reshape(1, -1)
        repeated = [d for d in range(g.dim()) if shape[d] == 1 and g.shape[d] != 1 and d != layout.axis]
        if repeated:
            g = g.sum(repeated, keepdim=True)
        if shape[layout.axis] != 1:  # the parameter has entries of its own for each sample
            entry = torch.arange(shape[layout.axis], device=g.device) // layout.after % batch
            own = entry == torch.arange(batch, device=g.device)[:, None]
            return (g * own.view(batch, *[1] * layout.axis, -1, *[1] * (g.dim() - layout.axis - 1))).flatten(1)
        g = layout.batch_first(g, batch)
        if layout.before * layout.after > 1:  # windows of a sample: right behind the batch, or behind it and `before`
            folded = (1 + layout.axis, 1 + layout.axis + 1)
            g = g.sum(folded)
        return g.flatten(1) if g.dim() > 1 else g[:, None]

    def fits(self, layout: Layout) -> bool:  # noqa: ARG002 - as the others have it
        """Whether the parameter's gradient can be told apart by sample: always."""
        return True


@dataclass(frozen=True)
class ChannelStatistics:
    """What an input [U, C, *places] is normalised by: statistics of groups of its channels, or of others before it."""

    num_groups: int
    """Neighbouring channels that share statistics."""
    across_units: bool
    """Whether all entries of the first dimension share them (batch normalisation)."""
    eps: float
    mean: Tensor | None = None
    """[C], instead of the input's own, with `variance`."""
    variance: Tensor | None = None


@dataclass(frozen=True)
class RowStatistics:
    """Each row of the last dimensions, those of the parameter, is normalised by its own mean (if centred) and scale."""

    centred: bool
    eps: float


@dataclass(frozen=True)
class Normalised:
    """dL/dw = grad_output * xhat summed over the dimensions in which w was repeated: the scale of a normalisation."""

    input: Tensor
    """What was normalised to xhat, the shape of the function's result."""
    grad_output: Tensor
    statistics: ChannelStatistics | RowStatistics
    shape: tuple[int, ...]
    """The parameter's, aligned with the last dimensions of the result."""
    xhat: Callable[[], Tensor]
    """Makes the normalised input by the function itself: for batches that lie where `units` has no place for them."""

    def units(self, layout: Layout, batch: int) -> tuple[Tensor, Tensor] | None:
        """Return input and grad_output [U, C, P] (channels) or [N, L, D] (rows); None where the batch lies elsewhere.

        U is the first dimension, in which the batch has its layout; N are the samples.
        """
        if isinstance(self.statistics, ChannelStatistics):
            if batch != 1 and layout.axis != 0:
                return None
            apart = [t.flatten(2) if t.dim() > 2 else t[..., None] for t in (self.input, self.grad_output)]
            return apart[0], apart[1]
        leading = self.input.dim() - len(self.shape)
        if batch != 1 and layout.axis >= leading:
            return None
        columns = math.prod(self.shape)
        rows = math.prod(self.input.shape[:leading]) // batch if batch else 0
        by_row = [layout.batch_first(t, batch).reshape(batch, rows, columns) for t in (self.input, self.grad_output)]
        return by_row[0], by_row[1]

    def broadcast(self) -> Broadcast:
        """Return the same as a product that is made here."""
        return Broadcast(self.grad_output * self.xhat(), self.shape)

    def fits(self, layout: Layout) -> bool:  # noqa: ARG002 - as the others have it
        """Whether the parameter's gradient can be told apart by sample: always."""
        return True


@dataclass(frozen=True)
class Lookup:
    """dL/dw[v] = sum of the rows of grad_outputs where `indices` is v: embeddings."""

    indices: Tensor
    """int64 [...]; negative where a row goes nowhere (padding)."""
    grad_outputs: Tensor
    """[..., D]."""
    num_rows: int
    """V, of the parameter [V, D]."""

    def fits(self, layout: Layout) -> bool:
        """Whether the batch lies among the places."""
        return layout.axis < self.indices.dim()

    def by_sample(self, layout: Layout, batch: int) -> Lookup:
        """Return the same with indices [N, L] and grad_outputs [N, L, D]."""
        return replace(
            self,
            indices=layout.batch_first(self.indices, batch).reshape(batch, -1),
            grad_outputs=_rows(layout.batch_first(self.grad_outputs, batch), 1),
        )


@dataclass(frozen=True)
class Convolution:
    """The weight gradient of a convolution, 1d, 2d or 3d; its images are in the first dimension of the result.

    A transposed convolution is the same with input and output gradient in each other's place.
    """

    input: Tensor
    """[U, C_in, *spatial]."""
    grad_output: Tensor
    """[U, C_out, *spatial]."""
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    """Zeros (before, after) in each dimension."""
    dilation: tuple[int, ...]
    groups: int

    def fits(self, layout: Layout) -> bool:
        """Whether the batch lies among the images."""
        return layout.axis == 0

    def samples(self, layout: Layout, batch: int) -> Tensor | None:
        """Return the sample of each image, int64 [U]; None where images are samples."""
        if batch != 1 and layout.before == layout.after == 1:
            return None
        return torch.arange(self.input.shape[0], device=self.input.device) // layout.after % batch


Part: TypeAlias = Rows | Broadcast | Normalised | Lookup | Convolution


def _rows(t: Tensor, start: int) -> Tensor:
    """Flatten all dimensions between the first `start` and the last one: [N, L, D], L = 1 if there is none."""
    return t.reshape(*t.shape[:start], -1, t.shape[-1]) if t.shape.numel() else t.reshape(t.shape[0], 0, t.shape[-1])
