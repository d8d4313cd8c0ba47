"""From the parts that the rules speak of to numbers: Gram matrices by the ops, or the class gradients themselves.

K groups of samples (the classes that are present), labels int64 [N] in 0..K-1 or soft, float [N, K]: of a sample with
soft labels each class gets the share of its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from imbdyn.monitor import arrivals
from imbdyn.monitor.classes import spread
from imbdyn.ops import (
    NormGradients,
    class_gram,
    class_gram_conv,
    class_gram_linear,
    class_gram_samples,
    norm_gradients,
    norm_gradients_rows,
)
from imbdyn.ops.class_gram.lookup import class_gram_lookup
from imbdyn.ops.class_gram.portable import add_products
from imbdyn.ops.class_gram.portable_convolution import weight_gradient
from imbdyn.taps import Again, Broadcast, Convolution, Layout, Lookup, Normalised, Part, Rows, RowStatistics

#: [K, K], and [K] with NaN where the samples' own gradients were not made.
Numbers = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Piece:
    """One part of a parameter's gradient, and whose it is."""

    part: Part | Again
    layout: Layout
    labels: Tensor
    """Of the batch, [N] or soft [N, K]."""
    grad_output: Tensor
    """dL/d(result) of the watched function."""


def gram(batches: Sequence[Sequence[Piece]], groups: int) -> Numbers | None:
    """Return the numbers of a parameter, from its uses in each batch; None if they are no problem of one form."""
    pieces = [piece for uses in batches for piece in uses]
    part = pieces[0].part
    if any(type(piece.part) is not type(part) for piece in pieces):
        return None
    if isinstance(part, Broadcast | Normalised):
        return _from_rows([_broadcast(uses) for uses in batches], groups)
    if isinstance(part, Rows):
        if len({_width(piece.part) for piece in pieces}) > 1:
            return None
        return _from_rows([_rows(uses) for uses in batches], groups)
    if isinstance(part, Lookup):
        return _from_lookups([_lookup(uses) for uses in batches], groups)
    if isinstance(part, Convolution) and len(pieces) == 1:
        return _from_convolution(part, pieces[0], groups)
    return None


def gram_of_linear(weight: Piece, bias: Piece, groups: int) -> tuple[Numbers, Numbers] | None:
    """Return the numbers of the weight and of the bias of a linear layer in one go; None if they are no such pair."""
    rows, repeated = weight.part, bias.part
    if not (isinstance(rows, Rows) and isinstance(repeated, Broadcast)) or weight.labels.dim() != 1:
        return None
    if repeated.gradient is not rows.grad_outputs or repeated.shape != rows.grad_outputs.shape[-1:]:
        return None
    inputs, grad_outputs, labels, samples = _flat([_rows([weight])])
    return class_gram_linear(inputs, grad_outputs, labels, groups, samples)


def sample_gradients(piece: Piece) -> Tensor | None:
    """Return every sample's part of the gradient, [N, its elements], of a parameter that was repeated; else None."""
    if isinstance(piece.part, Broadcast | Normalised) and piece.labels.dim() == 1:
        return _by_sample(piece)
    return None


def sample_gradients_of_normalisation(weight: Piece, bias: Piece) -> tuple[Tensor, Tensor] | None:
    """Return those of scale and bias of a normalisation, of one read of it; None if they are no such pair."""
    normalised, repeated = weight.part, bias.part
    if not (isinstance(normalised, Normalised) and isinstance(repeated, Broadcast)) or weight.labels.dim() != 1:
        return None
    if repeated.gradient is not normalised.grad_output or repeated.shape != normalised.shape:
        return None
    return _norm_gradients(normalised, weight.layout, weight.labels.shape[0])


def gram_of_samples(gradients: Sequence[Tensor], labels: Tensor, groups: int) -> Numbers:
    """Return the numbers of many parameters, gram [M, K, K] and norms [M, K], from their samples' gradients."""
    return class_gram_samples(gradients, labels, groups)


def class_gradients(piece: Piece, groups: int) -> Tensor:
    """Return the class gradients that a piece makes, [K, number of elements of the parameter]."""
    part = piece.part
    if isinstance(part, Again):
        return torch.stack([part.gradient(_of_group(piece, group)).flatten() for group in range(groups)])
    if isinstance(part, Convolution):
        images, labels = _images(part, piece)
        padded = F.pad(images.input, [side for sides in reversed(images.padding) for side in sides])
        geometry = (images.kernel_size, images.stride, images.dilation, images.groups)
        of_groups = [_rows_of(labels, group, padded, images.grad_output) for group in range(groups)]
        return torch.stack([weight_gradient(x, dy, *geometry).flatten() for x, dy in of_groups])
    if isinstance(part, Lookup):
        places, d_NLD, labels = _lookup([piece])
        nowhere = groups * part.num_rows  # a row for what goes nowhere, since to select the others would wait on a GPU
        slot = torch.where(places >= 0, labels[:, None] * part.num_rows + places, nowhere)
        gradient = d_NLD.new_zeros(nowhere + 1, d_NLD.shape[-1])
        gradient.index_add_(0, slot.flatten(), d_NLD.flatten(0, 1))
        return gradient[:nowhere].reshape(groups, -1)
    x_NLI, d_NLO, labels = _broadcast([piece]) if isinstance(part, Broadcast | Normalised) else _rows([piece])
    if x_NLI is None:
        d_NP = d_NLO[:, 0]
        return d_NP.new_zeros(groups, d_NP.shape[1]).index_add_(0, labels, d_NP)
    gradients = []
    for group in range(groups):
        x, dy = _rows_of(labels, group, x_NLI, d_NLO)
        gradient = dy.flatten(0, 1).T @ x.flatten(0, 1)
        gradients.append((gradient.T if isinstance(part, Rows) and part.transposed else gradient).flatten())
    return torch.stack(gradients)


def gram_of_gradients(gradients: Tensor) -> Numbers:
    """Return the numbers of class gradients [K, P] that were made; those of samples were not."""
    total = gradients.new_zeros(len(gradients), len(gradients), dtype=torch.float64)
    add_products(total, gradients)
    return total, total.new_full((len(gradients),), torch.nan)


def _width(part: Part | Again) -> tuple[int, int, bool]:
    assert isinstance(part, Rows)
    return part.inputs.shape[-1], part.grad_outputs.shape[-1], part.transposed


#: inputs [N, L, I] (None: ones), grad_outputs [N, L, O], labels [N]; soft ones repeat samples.
_Problem = tuple[Tensor | None, Tensor, Tensor]


def _rows(uses: Sequence[Piece]) -> _Problem:
    """Make one problem of the uses in one batch: a sample's gradient is the sum over all of them."""
    joined = [use.part.by_sample(use.layout, use.labels.shape[0]) for use in uses if isinstance(use.part, Rows)]
    d_NLO = _cat([rows.grad_outputs for rows in joined], 1)
    x_NLI = _cat([rows.inputs for rows in joined], 1)
    if d_NLO.element_size() < x_NLI.element_size():
        x_NLI = x_NLI.to(d_NLO.dtype)  # under autocast the function has rounded its input like its result
    dtype = torch.promote_types(x_NLI.dtype, d_NLO.dtype)
    x_NLI, d_NLO = x_NLI.to(dtype), d_NLO.to(dtype)
    if uses[0].labels.dim() == 1:
        return x_NLI, d_NLO, uses[0].labels
    sample, group, weight = spread(uses[0].labels)
    return x_NLI[sample], d_NLO[sample] * weight[:, None, None].to(dtype), group


def _broadcast(uses: Sequence[Piece]) -> _Problem:
    d_NP = sum(_by_sample(use) for use in uses)
    assert isinstance(d_NP, Tensor)
    if uses[0].labels.dim() == 1:
        return None, d_NP[:, None], uses[0].labels
    sample, group, weight = spread(uses[0].labels)
    return None, (d_NP[sample] * weight[:, None].to(d_NP.dtype))[:, None], group


def _by_sample(use: Piece) -> Tensor:
    """Return every sample's part of the gradient of a parameter that was repeated, [N, its elements]."""
    part, batch = use.part, use.labels.shape[0]
    if isinstance(part, Normalised):
        sums = _norm_gradients(part, use.layout, batch)
        return part.broadcast().by_sample(use.layout, batch) if sums is None else sums.weight
    assert isinstance(part, Broadcast)
    return part.by_sample(use.layout, batch)


#: Places of a channel below which a sum for each channel of each unit costs more than torch's passes over the whole.
_FEW_PLACES = 16


def _norm_gradients(part: Normalised, layout: Layout, batch: int) -> NormGradients | None:
    """Return every sample's gradients of scale and bias, [N, their elements].

    None where the batch lies elsewhere, or channels have so few places that the product is better made whole.
    """
    units = part.units(layout, batch)
    if units is None:
        return None
    statistics = part.statistics
    if isinstance(statistics, RowStatistics):
        return norm_gradients_rows(*units, centred=statistics.centred, eps=statistics.eps)
    if units[0].shape[2] < _FEW_PLACES:
        return None
    found = norm_gradients(
        *units,
        statistics.num_groups,
        across_units=statistics.across_units,
        mean=statistics.mean,
        variance=statistics.variance,
        eps=statistics.eps,
    )
    if layout.axis == 0 and layout.before == layout.after == 1 and units[0].shape[0] == batch:
        return found  # units are samples
    return NormGradients(*(Broadcast(d_UC, d_UC.shape[1:]).by_sample(layout, batch) for d_UC in found))


def _lookup(uses: Sequence[Piece]) -> tuple[Tensor, Tensor, Tensor]:
    """Return places [N, L], grad_outputs [N, L, D] and labels [N] of the uses in one batch."""
    joined = [use.part.by_sample(use.layout, use.labels.shape[0]) for use in uses if isinstance(use.part, Lookup)]
    places, d_NLD = _cat([part.indices for part in joined], 1), _cat([part.grad_outputs for part in joined], 1)
    if uses[0].labels.dim() == 1:
        return places, d_NLD, uses[0].labels
    sample, group, weight = spread(uses[0].labels)
    return places[sample], d_NLD[sample] * weight[:, None, None].to(d_NLD.dtype), group


def _from_rows(batches: list[_Problem], groups: int) -> Numbers:
    inputs, grad_outputs, labels, samples = _flat(batches)
    return class_gram(inputs, grad_outputs, labels, groups, samples)


def _flat(batches: list[_Problem]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return all batches as one problem of class_gram: inputs, grad_outputs, labels and samples.

    [S, L, ...] without samples where every sample has L rows, else [R, ...] with the sample of each row.
    """
    lengths = {d.shape[1] for _, d, _ in batches}
    if len(lengths) == 1:
        d_SLO = _cat([d for _, d, _ in batches])
        x_SLI = (
            d_SLO.new_ones(1).expand(*d_SLO.shape[:2], 1)
            if batches[0][0] is None
            else _cat([x for x, _, _ in batches if x is not None])
        )
        return x_SLI, d_SLO, _cat([label for _, _, label in batches]), None
    return _ragged(batches)


def _ragged(batches: list[_Problem]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    d_RO = _cat([d.flatten(0, 1) for _, d, _ in batches])
    lengths = [d.shape[1] for _, d, _ in batches]
    x_RI = (
        d_RO.new_ones(1, 1).expand(d_RO.shape[0], 1)
        if batches[0][0] is None
        else _cat([x.flatten(0, 1) for x, _, _ in batches if x is not None])
    )
    labels = [label for _, _, label in batches]
    repeated = [label.repeat_interleave(length) for label, length in zip(labels, lengths, strict=True)]
    return x_RI, d_RO, _cat(repeated), _numbered(labels, lengths)


def _from_lookups(batches: list[tuple[Tensor, Tensor, Tensor]], groups: int) -> Numbers:
    labels = [label for _, _, label in batches]
    lengths = [places.shape[1] for places, _, _ in batches]
    return class_gram_lookup(
        _cat([places.flatten() for places, _, _ in batches]),
        _cat([d.flatten(0, 1) for _, d, _ in batches]),
        _cat([label.repeat_interleave(length) for label, length in zip(labels, lengths, strict=True)]),
        groups,
        _numbered(labels, lengths),
    )


def _from_convolution(part: Convolution, piece: Piece, groups: int) -> Numbers:
    images, labels = _images(part, piece)
    found = class_gram_conv(
        images.input,
        images.grad_output,
        labels,
        groups,
        part.kernel_size,
        stride=part.stride,
        padding=part.padding,
        dilation=part.dilation,
        groups=part.groups,
    )
    if part.samples(piece.layout, piece.labels.shape[0]) is None:
        return found
    return found.gram, torch.full_like(found.sample_norm_sq, torch.nan)  # several images make a sample


def _images(part: Convolution, piece: Piece) -> tuple[Convolution, Tensor]:
    """Return the images, repeated for each class that has a weight in them, and the class of each."""
    samples = part.samples(piece.layout, piece.labels.shape[0])
    labels = piece.labels if samples is None else piece.labels[samples]
    if part.input.dtype != part.grad_output.dtype:  # under autocast: as the function saw them
        low = min(part.input.dtype, part.grad_output.dtype, key=lambda d: d.itemsize)
        part = replace(part, input=part.input.to(low), grad_output=part.grad_output.to(low))
    if labels.dim() == 1:
        return part, labels
    image, group, weight = spread(labels)
    scaled = part.grad_output[image] * weight.to(part.grad_output.dtype).view(-1, *[1] * (part.grad_output.dim() - 1))
    return replace(part, input=part.input[image], grad_output=scaled), group


def _of_group(piece: Piece, group: int) -> Tensor:
    """Return dL/d(result) where only the rows of one group, or their share of its weight, are left."""
    dy, layout, batch = piece.grad_output, piece.layout, piece.labels.shape[0]
    share = (piece.labels == group) if piece.labels.dim() == 1 else piece.labels[:, group]
    along = share.to(dy.dtype).repeat_interleave(layout.after).repeat(layout.before)
    if batch == 1:
        return dy * share.to(dy.dtype)
    return dy * along.view(-1, *[1] * (dy.dim() - layout.axis - 1))


def _rows_of(labels: Tensor, group: int, *tensors: Tensor) -> list[Tensor]:
    """Return the entries of a group of tensors [N, ...]; on a GPU all entries, the others set to 0: nothing waits."""
    own = labels == group
    if arrivals.may_look(labels):
        return [t[own] for t in tensors]
    return [torch.where(own.view(-1, *[1] * (t.dim() - 1)), t, 0) for t in tensors]


def _numbered(labels: list[Tensor], lengths: list[int]) -> Tensor:
    """Return the sample of each row, counted through all batches, of which each has rows of one length."""
    numbers, first = [], 0
    for label, length in zip(labels, lengths, strict=True):
        numbers.append(torch.arange(first, first + len(label), device=label.device).repeat_interleave(length))
        first += len(label)
    return _cat(numbers)


def _cat(tensors: list[Tensor], dim: int = 0) -> Tensor:
    """Concatenate without the copy that torch.cat makes of a single tensor."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)
