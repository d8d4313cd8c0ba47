"""Which sample each row of a result belongs to, found by experiment: the identity cannot see a wrong assignment.

The logits of one sample are differentiated alone. Their gradient lies in that sample's rows of every result on the
way, wherever the model put them: in the first dimension or in the second, as windows or as heads folded into the
batch. Where samples mix (BatchNorm in training mode) some of it leaks into other rows, but never most of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from imbdyn.taps.layout import Layout

#: Samples that are differentiated in any case, and where two arrangements still explain all of it.
_PROBES, _MORE_PROBES = 3, 8
#: Share of a sample's gradient in its own rows, beyond what chance puts there, below which rows are not told apart.
_LEAST = 0.1
#: From this share on nothing leaks: the samples do not mix.
_WHOLE = 0.999


@dataclass
class Found:
    """What the experiment says of one result."""

    reached: bool = False
    """Whether the logits depend on it at all."""
    share: dict[Layout, float] = field(default_factory=dict)
    """Layout to the least share of a sample's gradient that it explains."""

    def layout(self, batch: int) -> Layout | None:
        """Return the layout that explains the gradients; None if none does, or several do."""
        if not self.reached or not self.share:
            return None
        ranked = sorted(self.share, key=lambda layout: (-self.share[layout], layout))
        strength = [(self.share[layout] - 1 / batch) / (1 - 1 / batch) for layout in ranked]
        if strength[0] < _LEAST or (len(ranked) > 1 and strength[1] > 0.5 * (1 + _WHOLE) / 2 * strength[0] > 0):
            return None if not self._undecided() else ranked[0]
        return ranked[0]

    def _undecided(self) -> bool:
        """Whether two layouts explain everything: they then differ only in rows that no gradient reaches."""
        return sum(share >= _WHOLE for share in self.share.values()) > 1

    def add(self, gradient: Tensor | None, batch: int, sample: int) -> None:
        """Take in the gradient of one sample's logits."""
        if gradient is None:
            return
        energy = gradient.detach().float().square()
        total = float(energy.sum())
        if not total > 0:
            return
        first, self.reached = not self.reached, True
        for axis in range(energy.dim()):
            if energy.shape[axis] % batch:
                continue
            along = energy.sum([d for d in range(energy.dim()) if d != axis]) if energy.dim() > 1 else energy
            for before, after in _factors(energy.shape[axis] // batch):
                layout = Layout(axis, before, after)
                own = float(along.view(before, batch, after)[:, sample].sum()) / total
                self.share[layout] = own if first else min(own, self.share.get(layout, 0.0))


def find(output: Any, results: Sequence[Tensor], batch: int) -> list[Found]:
    """Return what the experiment says of each result, for a model output with logits of N = `batch` > 1 samples."""
    leaves = [leaf for leaf in _leaves(output) if leaf.requires_grad and leaf.dim() > 0 and leaf.shape[0] == batch]
    found = [Found() for _ in results]
    if not leaves or not results:
        return found
    samples = list(dict.fromkeys([0, batch - 1, batch // 2, *range(batch)]))
    for tried, sample in enumerate(samples[: _PROBES + _MORE_PROBES]):
        if tried >= _PROBES and not any(each._undecided() for each in found):
            break
        scalar = torch.stack([_probe(leaf[sample]) for leaf in leaves]).sum()
        gradients = torch.autograd.grad(scalar, results, retain_graph=True, allow_unused=True)
        for each, gradient in zip(found, gradients, strict=True):
            each.add(gradient, batch, sample)
    return found


def _probe(values: Tensor) -> Tensor:
    """A sum that no symmetry of the network makes constant, as a plain sum may be behind a normalisation."""
    flat = values.reshape(-1).float()
    return flat @ torch.cos(1.7 * torch.arange(flat.numel(), device=flat.device) + 0.3)


def _leaves(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _leaves(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _leaves(value)
    elif hasattr(output, "__dict__"):
        yield from _leaves(vars(output))


def _factors(size: int) -> list[tuple[int, int]]:
    return [(before, size // before) for before in range(1, size + 1) if size % before == 0]
