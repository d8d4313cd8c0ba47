"""Class gradients by their definition, one backward pass a class: dear, and for checking on chosen steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from imbdyn.ops._checks import IGNORE_INDEX, check_labels


def class_gradients(
    losses: Tensor,
    labels: Tensor,
    num_classes: int,
    named_parameters: Iterable[tuple[str, Tensor]],
    *,
    ignore_index: int = IGNORE_INDEX,
) -> dict[str, Tensor]:
    """Return the gradient of each class's part of the loss: G_c = d(sum over i with y_i = c of losses_i) / dw.

    With `losses = F.cross_entropy(model(x), y, reduction="none") / len(y)` the class gradients sum to the gradient of
    the mean loss. Where samples do not mix (no BatchNorm in training mode) they equal what `Monitor` reads; where they
    do, `Monitor` has the part that flows through the class's rows instead (Francazi et al. 2023, arXiv 2207.00391,
    define class gradients by the loss, as here).

    Args:
        losses: [N], the terms of the loss, still attached to the graph, which is kept.
        labels: int64 [N], each in 0..num_classes-1 or `ignore_index`.
        num_classes: C.
        named_parameters: `model.named_parameters()`; those without requires_grad are left out.
        ignore_index: label of samples that count nowhere.

    Returns:
        name -> [C, *parameter.shape]; 0 for absent classes and for parameters that the losses do not depend on.

    Raises:
        ValueError: if shapes disagree or a label is out of range (the message names the row).
    """
    if losses.shape != labels.shape or losses.dim() != 1:
        raise ValueError(f"losses and labels must both be [N], got {tuple(losses.shape)} and {tuple(labels.shape)}")
    check_labels(labels, num_classes, ignore_index)
    parameters = {name: p for name, p in named_parameters if p.requires_grad}
    gradients = {name: p.new_zeros((num_classes, *p.shape)) for name, p in parameters.items()}
    for c in labels[labels != ignore_index].unique().tolist():
        of_class = torch.autograd.grad(
            losses[labels == c].sum(), list(parameters.values()), retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(parameters, of_class, strict=True):
            if gradient is not None:
                gradients[name][c] = gradient.to_dense() if gradient.is_sparse else gradient
    return gradients
