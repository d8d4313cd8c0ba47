"""From the rows that the taps collected in one optimizer step to one Gram matrix a parameter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbdyn.ops import class_gram
from imbdyn.taps import Rows, Watch

#: Micro-batches of a step join into one problem while the output gradients held for it stay below this.
MEMORY_BOUND = 1 << 30

_IGNORED = -100


@dataclass(frozen=True)
class ClassGrams:
    """The class gradients of one step, of the K classes that are present and the P parameters that are covered."""

    parameters: list[str]
    class_ids: NDArray[np.int64]
    """[K], ascending."""
    count: NDArray[np.float64]
    """[K], samples of the step's batches that were read."""
    gram: NDArray[np.float64]
    """[P, K, K]."""
    sample_norm_sq: NDArray[np.float64]
    """[P, K]."""

    def times(self, scale: float) -> ClassGrams:
        """Return the Gram matrices of `scale` times these class gradients."""
        return replace(self, gram=self.gram * scale**2, sample_norm_sq=self.sample_norm_sq * scale**2)


class StepGradients:
    """Holds what was watched between two optimizer steps."""

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self._watched: list[Watch] = []

    @property
    def batches(self) -> int:
        """How many micro-batches are held."""
        return len(self._watched)

    def has_room(self) -> bool:
        """Whether another micro-batch of the same size would stay below the memory bound."""
        held = sum(watch.held_bytes for watch in self._watched)
        return not self._watched or held + held // len(self._watched) <= MEMORY_BOUND

    def add(self, watch: Watch) -> None:
        """Take over a micro-batch that was watched."""
        self._watched.append(watch)

    def release(self) -> None:
        """Let go of everything that is held."""
        for watch in self._watched:
            watch.release()
        self._watched.clear()

    def has(self, parameter: str) -> bool:
        """Whether rows of `parameter` are held."""
        return any(parameter in watch.rows for watch in self._watched)

    def reduced_precision(self) -> bool:
        """Whether an output gradient came in bfloat16 or float16, as under autocast."""
        return any(watch.reduced_precision for watch in self._watched)

    def grams(self, parameters: list[str]) -> ClassGrams:
        """Compute the Gram matrices of `parameters`, over all micro-batches held and all their uses."""
        labels = torch.cat([watch.labels for watch in self._watched])
        class_ids, count = labels[labels != self._ignore_index].unique(return_counts=True)
        index = class_ids.new_full((self._num_classes,), _IGNORED)
        index[class_ids] = torch.arange(class_ids.numel(), device=index.device)
        local = [
            torch.where(
                watch.labels == self._ignore_index, _IGNORED, index[watch.labels.clamp(0, self._num_classes - 1)]
            )
            for watch in self._watched
        ]
        found = [self._gram(name, local, max(1, class_ids.numel())) for name in parameters]
        present = class_ids.numel()
        return ClassGrams(
            parameters,
            class_ids.cpu().numpy(),
            count.double().cpu().numpy(),
            np.stack([gram[:present, :present] for gram, _ in found]),
            np.stack([norms[:present] for _, norms in found]),
        )

    def _gram(
        self, parameter: str, local: list[Tensor], present: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        inputs, grad_outputs, labels, lengths = [], [], [], []
        for watch, label in zip(self._watched, local, strict=True):
            if parameter in watch.rows:
                rows = _join([make() for make in watch.rows[parameter]])
                dtype = torch.promote_types(rows.inputs.dtype, rows.grad_outputs.dtype)
                inputs.append(rows.inputs.flatten(0, 1).to(dtype))
                grad_outputs.append(rows.grad_outputs.flatten(0, 1).to(dtype))
                labels.append(label)
                lengths.append(rows.inputs.shape[1])
        samples = None
        if lengths != [1] * len(lengths):
            samples = _numbered(labels, lengths)
            labels = [label.repeat_interleave(length) for label, length in zip(labels, lengths, strict=True)]
        gram, norms = class_gram(_cat(inputs), _cat(grad_outputs), _cat(labels), present, samples)
        return gram.cpu().numpy(), norms.cpu().numpy()


def _numbered(labels: list[Tensor], lengths: list[int]) -> Tensor:
    """Return the sample of each row, counted through all micro-batches, of which each has rows of one length."""
    numbers, first = [], 0
    for label, length in zip(labels, lengths, strict=True):
        numbers.append(torch.arange(first, first + len(label), device=label.device).repeat_interleave(length))
        first += len(label)
    return _cat(numbers)


def _join(uses: list[Rows]) -> Rows:
    """Make one problem of several uses of a parameter in one batch: a sample's gradient is the sum over all of them."""
    return Rows(_cat([use.inputs for use in uses], 1), _cat([use.grad_outputs for use in uses], 1))


def _cat(tensors: list[Tensor], dim: int = 0) -> Tensor:
    """Concatenate without the copy that torch.cat makes of a single tensor."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)
