"""class_gram in plain torch, on any device: three exact ways, the one with the fewest multiply-adds is taken.

R rows, I inputs, O outputs, P classes present, S samples of L rows each.

    gram     R^2 (I + O) / 2      K = (A A^T) * (D D^T) by blocks of rows, summed over class blocks
    direct   R I O + P^2 I O      the class gradients, a slice of outputs at a time (every row is a sample)
    sample   R I O + P^2 I O      the samples' gradients, a slice of samples at a time (L rows each)

Memory stays below `SCRATCH` elements beside the inputs, whatever R, I and O are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from imbdyn.ops._checks import check_labels
from imbdyn.ops.class_gram.geometry import as_rows

#: Rows of one block of the gram way: two products of 512 x 512 stay in a core's cache.
_BLOCK = 512
#: Elements of scratch memory that the direct and the sample way may hold at once (64 MiB in float32).
SCRATCH = 1 << 24


def class_gram_portable(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None,
    ignore_index: int,
    sample_norms: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return (gram float64 [C, C], sample_norm_sq float64 [C]); see `imbdyn.ops.class_gram`."""
    check_labels(labels, num_classes, ignore_index)  # of samples, where rows repeat their labels
    rows = as_rows(inputs, grad_outputs, labels, samples)
    gram, sample_norm_sq = _gram_and_norms(*rows[:3], num_classes, rows[3], ignore_index)
    return gram, sample_norm_sq if sample_norms else sample_norm_sq.fill_(torch.nan)


def class_gram_linear_portable(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None,
    ignore_index: int,
    sample_norms: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return gram and norms of the weight, then of the bias; see `imbdyn.ops.class_gram_linear`."""
    ones = inputs.new_ones(1).expand(*inputs.shape[:-1], 1)
    arguments = (grad_outputs, labels, num_classes, samples, ignore_index, sample_norms)
    return class_gram_portable(inputs, *arguments) + class_gram_portable(ones, *arguments)


def _gram_and_norms(
    inputs: Tensor,
    grad_outputs: Tensor,
    labels: Tensor,
    num_classes: int,
    samples: Tensor | None,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    if not check_labels(labels, num_classes, ignore_index):
        counted = labels != ignore_index
        inputs, grad_outputs, labels = inputs[counted], grad_outputs[counted], labels[counted]
        samples = None if samples is None else samples[counted]
    if inputs.element_size() < 4:  # bf16 and fp16 products need float32 sums
        inputs, grad_outputs = inputs.float(), grad_outputs.float()
    per_class = labels.bincount(minlength=num_classes)
    present = per_class.nonzero()[:, 0]
    local = labels if present.numel() == num_classes else (per_class > 0).cumsum(0)[labels] - 1
    gram = inputs.new_zeros((num_classes, num_classes), dtype=torch.float64)
    sample_norm_sq = inputs.new_zeros(num_classes, dtype=torch.float64)
    if present.numel() and inputs.shape[1] and grad_outputs.shape[1]:  # else 0, where 0 times NaN would be NaN
        rows_per_sample = 1 if samples is None else _uniform_rows(samples, local)
        way = _cheapest(inputs.shape[1], grad_outputs.shape[1], labels.shape[0], present.numel(), rows_per_sample)
        small, norms = way(inputs, grad_outputs, local, present.numel(), samples, rows_per_sample)
        gram[present[:, None], present] = small
        sample_norm_sq[present] = norms
    return gram, sample_norm_sq


def _uniform_rows(samples: Tensor, labels: Tensor) -> int:
    """Return L when the samples ascend and each has L neighbouring rows of one class, else 0."""
    rows = int((samples == samples[0]).sum())
    if samples.shape[0] % rows:
        return 0
    by_sample, by_label = samples.view(-1, rows), labels.view(-1, rows)
    uniform = (by_sample == by_sample[:, :1]).all() & (by_label == by_label[:, :1]).all()
    return rows if bool(uniform & (by_sample[1:, 0] > by_sample[:-1, 0]).all()) else 0


#: (inputs [R, I], grad_outputs [R, O], labels [R] in 0..P-1, P, samples [R] or None, L) -> (gram [P, P], norms [P])
_Way = Callable[[Tensor, Tensor, Tensor, int, Tensor | None, int], tuple[Tensor, Tensor]]


def _cheapest(inputs: int, outputs: int, rows: int, present: int, rows_per_sample: int) -> _Way:
    """Pick a way by counted multiply-adds; a pass over an array counts as 8, about what a core does per element."""
    gram = rows * rows * ((inputs + outputs) * min(1.0, 0.5 + _BLOCK / (2 * rows)) + 8)
    made = rows // max(rows_per_sample, 1) if rows_per_sample > 1 else present
    sliced = rows * inputs * outputs + inputs * outputs * (present * present + 8 * made)
    if rows_per_sample == 0 or gram <= sliced:
        return _gram_way
    return _direct_way if rows_per_sample == 1 else _sample_way


def _gram_way(
    a_RI: Tensor, d_RO: Tensor, y_R: Tensor, present: int, samples: Tensor | None, _rows_per_sample: int
) -> tuple[Tensor, Tensor]:
    gram_PP = a_RI.new_zeros((present, present), dtype=torch.float64)
    norm_P = a_RI.new_zeros(present, dtype=torch.float64)
    one_hot_RP = torch.nn.functional.one_hot(y_R, present).double()
    blocks = [slice(start, start + _BLOCK) for start in range(0, a_RI.shape[0], _BLOCK)]
    for i, rows in enumerate(blocks):
        for cols in blocks[i:]:
            # float64 sums: within a class the products cancel, and the sum is much smaller than its terms
            k = ((a_RI[rows] @ a_RI[cols].T) * (d_RO[rows] @ d_RO[cols].T)).double()
            part = one_hot_RP[rows].T @ k @ one_hot_RP[cols]
            gram_PP += part if rows == cols else part + part.T
            if samples is None:
                if rows == cols:
                    norm_P.index_add_(0, y_R[rows], k.diagonal())
                continue
            same = (samples[rows, None] == samples[cols]) & (y_R[rows, None] == y_R[cols])
            within = (k * same).sum(1)
            norm_P.index_add_(0, y_R[rows], within if rows == cols else 2 * within)
    return gram_PP, norm_P


def _direct_way(
    a_RI: Tensor, d_RO: Tensor, y_R: Tensor, present: int, _samples: Tensor | None, _rows_per_sample: int
) -> tuple[Tensor, Tensor]:
    norm_R = a_RI.double().square().sum(1) * d_RO.double().square().sum(1)
    norm_P = norm_R.new_zeros(present).index_add_(0, y_R, norm_R)
    if a_RI.shape[1] == 1:  # a bias: its class gradients are sums of rows
        gradient_PO = d_RO.new_zeros(present, d_RO.shape[1]).index_add_(0, y_R, d_RO * a_RI)
        return (gradient_PO @ gradient_PO.T).double(), norm_P
    order = y_R.argsort(stable=True)
    counts = y_R.bincount(minlength=present).tolist()
    a_by_class, d_by_class = a_RI[order].split(counts), d_RO[order].split(counts)
    gram_PP = a_RI.new_zeros((present, present), dtype=torch.float64)
    step = max(1, SCRATCH // (present * a_RI.shape[1]))
    for start in range(0, d_RO.shape[1], step):
        outputs = slice(start, start + step)
        slice_P = torch.stack([(d[:, outputs].T @ a).flatten() for a, d in zip(a_by_class, d_by_class, strict=True)])
        add_products(gram_PP, slice_P)
    return gram_PP, norm_P


def _sample_way(
    a_RI: Tensor, d_RO: Tensor, y_R: Tensor, present: int, _samples: Tensor | None, rows_per_sample: int
) -> tuple[Tensor, Tensor]:
    a_SLI, d_SLO = (t.view(-1, rows_per_sample, t.shape[1]) for t in (a_RI, d_RO))
    y_S = y_R[::rows_per_sample]
    gram_PP = a_RI.new_zeros((present, present), dtype=torch.float64)
    norm_P = a_RI.new_zeros(present, dtype=torch.float64)
    per_output = a_RI.shape[1] * max(present, 8)
    outputs_at_once = max(1, min(d_RO.shape[1], SCRATCH // per_output))
    samples_at_once = max(1, SCRATCH // (outputs_at_once * a_RI.shape[1]))
    for start in range(0, d_RO.shape[1], outputs_at_once):
        outputs = slice(start, start + outputs_at_once)
        slice_P = a_RI.new_zeros(present, len(range(d_RO.shape[1])[outputs]) * a_RI.shape[1])
        for first in range(0, y_S.shape[0], samples_at_once):
            chunk = slice(first, first + samples_at_once)
            gradients = torch.bmm(d_SLO[chunk, :, outputs].mT, a_SLI[chunk]).flatten(1)
            slice_P.index_add_(0, y_S[chunk], gradients)
            norm_P.index_add_(0, y_S[chunk], torch.linalg.vector_norm(gradients, dim=1).double().square())
        add_products(gram_PP, slice_P)
    return gram_PP, norm_P


def add_products(gram_PP: Tensor, slice_PK: Tensor) -> None:
    """gram += slice slice^T; float32 dot products are kept short and added in float64."""
    for part in slice_PK.split(1 << 14, dim=1):
        gram_PP += (part @ part.T).double()
