"""The oracle of class_logits: softmax and sums as the formulas have them, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from imbdyn.ops._checks import IGNORE_INDEX, check_labels


def class_logits_reference(logits: Tensor, labels: Tensor, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Return float64 [8, C], one row a field of `imbdyn.ops.ClassLogits`, in that order."""
    num_classes = logits.shape[1]
    check_labels(labels, num_classes, ignore_index)
    counted = labels != ignore_index
    z_NC, y_N = logits[counted].double(), labels[counted]
    y_N1 = y_N[:, None]
    log_p_NC = z_NC.log_softmax(1)
    p_NC = z_NC.softmax(1)
    z_y, log_p_y, p_y = (t.gather(1, y_N1)[:, 0] for t in (z_NC, log_p_NC, p_NC))
    best_other = z_NC.scatter(1, y_N1, -torch.inf).amax(1)
    prediction = z_NC.argmax(1)

    def by_class(class_N: Tensor, value_N: Tensor) -> Tensor:
        return z_NC.new_zeros(num_classes).index_add_(0, class_N, value_N.double())

    ones = torch.ones_like(z_y)
    return torch.stack(
        [
            by_class(y_N, ones),
            by_class(y_N, -log_p_y),
            by_class(y_N, prediction == y_N),
            by_class(y_N, z_y - best_other),
            by_class(y_N, p_y),
            by_class(prediction, ones),
            by_class(y_N, 1 - p_y),
            p_NC.scatter(1, y_N1, 0.0).sum(0),
        ]
    )
