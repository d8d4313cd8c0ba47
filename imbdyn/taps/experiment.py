"""Which sample each row of a result belongs to, found by experiment: the identity cannot see a wrong assignment.

The logits of one sample are differentiated alone. Their gradient lies in that sample's rows of every result on the
way, wherever the model put them: in the first dimension or in the second, as windows or as heads folded into the
batch. Batch normalisation, which mixes samples, lets the gradient through as it is while this goes on. Where samples
mix in another way some of the gradient leaks into other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from imbdyn.taps.layout import Layout
from imbdyn.taps.places import Place

#: Samples that are differentiated in any case, and where several layouts still explain all of it.
_PROBES, _MORE_PROBES = 3, 8
#: Elements of a gradient that are looked at together.
_PIECE = 1 << 18
#: Share of a sample's gradient in its own rows from which on nothing leaks. Measured without mixing: 1 to 6 digits.
_WHOLE = 0.999
#: Where samples mix, how much of the way from chance (0) to a whole (1) a layout must explain, at least twice what any
#: other does. Measured with 30 batch normalisations left to mix, N = 8 and 32: 0.29 and 0.76 (plain), 0.86 and 0.95
#: (residual); wrong layouts at most 0.1.
_LEAST = 0.25
#: Where samples mix, fewer are not told apart: with N = 2 and 3 right layouts came to -0.7 and wrong ones to 1.
_FEW = 4


@dataclass
class Found:
    """What the experiment says of one result."""

    depends: bool = False
    """Whether the logits are computed from it."""
    share: dict[Layout, float] = field(default_factory=dict)
    """Layout to the least share of a sample's gradient that it explains; empty where no gradient was other than 0, or
    no dimension has room for the batch."""
    reached: bool = False
    """Whether a gradient was other than 0."""

    def layout(self, batch: int, *, beyond_doubt: bool) -> Layout | None:
        """Return the layout that explains the gradients; None if none does, or several do.

        Args:
            batch: N.
            beyond_doubt: whether it must explain all of them.
        """
        if whole := self._whole():  # several differ only in rows that no gradient reaches: take what is usual
            return min(whole)
        if beyond_doubt or batch < _FEW or not self.share:
            return None
        strength = {layout: (share - 1 / batch) / (1 - 1 / batch) for layout, share in self.share.items()}
        best, *others = sorted(strength, key=strength.__getitem__, reverse=True)
        told_apart = not others or strength[others[0]] <= strength[best] / 2
        return best if told_apart and strength[best] >= _LEAST else None

    def undecided(self) -> bool:
        """Whether several layouts explain everything so far."""
        return len(self._whole()) > 1

    def add(self, gradient: Tensor, batch: int, sample: int) -> None:
        """Take in the gradient of one sample's logits."""
        self.depends = True
        axes = [axis for axis in range(gradient.dim()) if gradient.shape[axis] % batch == 0]
        total, energies = _energies(gradient, axes)
        if not 0 < total < float("inf"):
            return
        first, self.reached = not self.reached, True
        for axis, along in zip(axes, energies, strict=True):
            for before, after in _factors(gradient.shape[axis] // batch):
                layout = Layout(axis, before, after)
                own = float(along.view(before, batch, after)[:, sample].sum()) / total
                self.share[layout] = own if first else min(own, self.share[layout])

    def _whole(self) -> list[Layout]:
        return [layout for layout, share in self.share.items() if share >= _WHOLE]


class Experiment:
    """Asks of each result of a forward pass which samples its rows belong to.

    Nothing is held for it: neither the results, which training lets go of, nor their gradients, which are looked at as
    they pass.

    Args:
        batch: N > 1.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._sample: int | None = None
        """The one that is differentiated now."""
        self._asked: dict[int, tuple[Found, GradientEdge, RemovableHandle]] = {}

    def ask(self, place: Place) -> Found:
        """Return what will be known of the result at `place`, when `run` has come to it."""
        found = Found()
        handle = place.tensor.register_hook(partial(self._tell, found, place.cut))
        self._asked[id(found)] = found, get_gradient_edge(place.tensor), handle
        return found

    def answered(self, found: Found) -> None:
        """Look no longer at what is known."""
        _, _, handle = self._asked.pop(id(found))
        handle.remove()

    def run(self, output: Any) -> None:
        """Differentiate the logits of some samples in a model's output."""
        batch = self._batch
        leaves = [leaf for leaf in _leaves(output) if leaf.requires_grad and leaf.dim() > 0 and leaf.shape[0] == batch]
        if not leaves or not self._asked:
            return
        ends = _ends([edge for _, edge, _ in self._asked.values()])
        samples = list(dict.fromkeys([0, batch - 1, batch // 2, *range(batch)]))
        for tried, sample in enumerate(samples[: _PROBES + _MORE_PROBES]):
            if tried >= _PROBES and not any(found.undecided() for found, _, _ in self._asked.values()):
                break
            scalar = torch.stack([_probe(leaf[sample]) for leaf in leaves]).sum()
            self._sample = sample
            try:
                torch.autograd.grad(scalar, ends, retain_graph=True, allow_unused=True)
            finally:
                self._sample = None

    def end(self) -> None:
        """Leave the graph alone."""
        for _, _, handle in self._asked.values():
            handle.remove()
        self._asked.clear()

    def _tell(self, found: Found, cut: Callable[[Tensor], Tensor], gradient: Tensor | None) -> None:
        if self._sample is not None and gradient is not None:
            with torch._C.DisableTorchFunction(), torch.no_grad():
                found.add(cut(gradient.detach()), self._batch, self._sample)


def _ends(edges: Sequence[GradientEdge]) -> list[GradientEdge]:
    """Return those of `edges` whose results are computed from no other's: their gradients pass by all the others."""
    sought = {edge.node for edge in edges}
    has_below: dict[Any, bool] = {}
    for root in sought:
        path = [root]
        while path:
            node = path[-1]
            children = [child for child, _ in node.next_functions if child is not None]
            if unknown := [child for child in children if child not in has_below]:
                path.extend(unknown)
                continue
            has_below[node] = any(child in sought or has_below[child] for child in children)
            path.pop()
    return [edge for edge in edges if not has_below[edge.node]]


def _energies(gradient: Tensor, axes: Sequence[int]) -> tuple[float, list[Tensor]]:
    """Return the sum of squares of a gradient, and its sums along each of `axes`, in float64 and little memory."""
    total, along = 0.0, [gradient.new_zeros(gradient.shape[axis], dtype=torch.float64) for axis in axes]
    if gradient.dim() == 0:
        return float(gradient.double().square()), along
    rows = max(1, _PIECE * gradient.shape[0] // max(1, gradient.numel()))
    for start in range(0, gradient.shape[0], rows):
        energy = gradient[start : start + rows].double().square_()
        total += float(energy.sum())
        for axis, sums in zip(axes, along, strict=True):
            others = [d for d in range(energy.dim()) if d != axis]
            part = energy.sum(others) if others else energy
            (sums[start : start + rows] if axis == 0 else sums).add_(part)
    return total, along


class Unmixed:
    """Batch normalisation lets gradients through as they are while `on`: its samples do not mix, nor scales of 0 stop.

    Only where gradients go is asked of them, not how large they are.
    """

    def __init__(self) -> None:
        self.on = False
        self._handles: list[RemovableHandle] = []

    def look_at(self, function: Any, result: Any) -> None:
        """Take note of what a function returned."""
        if function is F.batch_norm and result.grad_fn is not None and "BatchNorm" in result.grad_fn.name():
            self._handles.append(result.grad_fn.register_hook(self._let_through))

    def end(self) -> None:
        """Leave the graph alone."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _let_through(self, grad_inputs: tuple[Any, ...], grad_outputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self.on or grad_inputs[0] is None:
            return None
        return (grad_outputs[0], *grad_inputs[1:])


def _probe(values: Tensor) -> Tensor:
    """A sum that no symmetry of the network makes constant, as a plain sum may be behind a normalisation."""
    flat = values.reshape(-1).float()
    return flat @ torch.cos(1.7 * torch.arange(flat.numel(), dtype=flat.dtype, device=flat.device) + 0.3)


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
