"""class_logits in plain torch, in float64: for a GPU's float64 logits. Nothing is asked of the device."""

from __future__ import annotations

import torch
from torch import Tensor


def class_logits_portable(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return float64 [8, C], one row a field of `imbdyn.ops.ClassLogits`, in that order.

    Rows whose label is no class count nowhere, as those that are ignored: raising would have to wait for the labels.
    """
    num_classes = logits.shape[1]
    counts = (labels >= 0) & (labels < num_classes) & (labels != ignore_index)
    y_N1 = labels.where(counts, 0)[:, None]
    z_NC = logits.double().where(counts[:, None], 0.0)
    p_NC = z_NC.softmax(1)
    z_y, log_p_y, p_y = (t.gather(1, y_N1)[:, 0] for t in (z_NC, z_NC.log_softmax(1), p_NC))
    best_other = z_NC.scatter(1, y_N1, -torch.inf).amax(1)
    prediction = z_NC.argmax(1)

    def by_class(class_N: Tensor, value_N: Tensor) -> Tensor:
        # rows that do not count come behind the last class
        sums = z_NC.new_zeros(num_classes + 1)
        return sums.index_add_(0, class_N.where(counts, num_classes), value_N.double())[:-1]

    y_N, ones = y_N1[:, 0], torch.ones_like(z_y)
    return torch.stack(
        [
            by_class(y_N, ones),
            by_class(y_N, -log_p_y),
            by_class(y_N, prediction == y_N),
            by_class(y_N, z_y - best_other),
            by_class(y_N, p_y),
            by_class(prediction, ones),
            by_class(y_N, 1 - p_y),
            p_NC.scatter(1, y_N1, 0.0).where(counts[:, None], 0.0).sum(0),
        ]
    )
