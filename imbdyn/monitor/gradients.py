"""From the uses that the taps hand over in one optimizer step to one Gram matrix a parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imbdyn.monitor.class_grams import GramsToCome
from imbdyn.monitor.classes import Classes
from imbdyn.monitor.parts import (
    Numbers,
    Piece,
    class_gradients,
    gram,
    gram_of_gradients,
    gram_of_linear,
    gram_of_samples,
    sample_gradients,
    sample_gradients_of_normalisation,
)
from imbdyn.monitor.streams import Streams
from imbdyn.taps import Again, Layout, NotCovered, Part, Plan, Source, Use, WatchedBatch

#: As long as nobody knows how many micro-batches a step has, so much is held for the case that there are several.
HELD_AT_FIRST = 1 << 24
#: Micro-batches of a step join into one problem while the output gradients held for it stay below this; class gradients
#: that have to be made themselves are made up to this size.
MEMORY_BOUND = 1 << 30
#: Gradients of samples, made of a bias or a scale, wait for those of the others up to this size: one call for all.
_SMALL = 1 << 22


@dataclass
class _Held:
    """A part that waits for the rest of the step, made only when it is needed: unfolded pixels are many."""

    batch: int
    source: Source
    part: Callable[[], Part | Again]
    layout: Layout
    grad_output: Tensor


class StepGradients:
    """Takes in what is watched between two optimizer steps.

    Args:
        num_classes: C.
        ignore_index: label of samples that count nowhere.
        plan: what is known of the model.
        at_once: whether the step has one batch: what a parameter's only use hands over is then turned into numbers in
            the backward pass, and nothing is held. None if that is not known, in the first step: then little is held,
            and of a large model only the first micro-batch is read.
    """

    def __init__(self, num_classes: int, ignore_index: int, plan: Plan, *, at_once: bool | None) -> None:
        self._num_classes = num_classes
        self._ignore_index = ignore_index
        self._plan = plan
        self._at_once = False if plan.backward_again else at_once
        self._watched: list[WatchedBatch] = []
        self._held: dict[str, list[_Held]] = defaultdict(list)
        self._made: dict[str, Numbers | Tensor] = {}
        """By parameter; samples' gradients [N, its elements] are still to be multiplied, all in one call."""
        self._classes: Classes | None = None
        self._held_bytes = 0
        self._streams = Streams()

    @property
    def batches(self) -> int:
        """How many micro-batches are read."""
        return len(self._watched)

    @property
    def began(self) -> bool:
        """Whether any gradient has come."""
        return bool(self._made or self._held)

    def has_room(self) -> bool:
        """Whether another micro-batch of the same size can be read."""
        if not self._watched:
            return True
        if self._made:
            return False
        return self._held_bytes + self._held_bytes // len(self._watched) <= MEMORY_BOUND

    def watch(self, labels: Tensor) -> WatchedBatch:
        """Return a micro-batch whose uses come here."""
        self._streams.follow(labels)
        batch = WatchedBatch(labels, self._plan, self._take)
        self._watched.append(batch)
        return batch

    def drop(self, batch: WatchedBatch) -> None:
        """Forget a micro-batch that was left by an exception, and what came of it."""
        if batch not in self._watched:  # the optimizer step came before the batch was left
            return
        index = self._watched.index(batch)
        batch.release()
        self._made.clear()
        for held in self._held.values():
            held[:] = [piece for piece in held if piece.batch != index]
        self._watched[index] = WatchedBatch(batch.labels[:0], self._plan, self._take)

    def release(self) -> None:
        """Let go of everything that is held."""
        for watched in self._watched:
            watched.release()
        self._watched.clear()
        self._held.clear()
        self._made.clear()

    def has(self, parameter: str) -> bool:
        """Whether the whole gradient of `parameter` was handed over, in the batches that were read."""
        return (parameter in self._made or parameter in self._held) and not self._is_incomplete(parameter)

    def is_missing(self, parameter: str) -> bool:
        """Whether nothing of `parameter` was seen, which is more than a use that is still to be learned."""
        return not (parameter in self._made or parameter in self._held or self._is_incomplete(parameter))

    def _is_incomplete(self, parameter: str) -> bool:
        return any(parameter in watched.incomplete for watched in self._watched)

    def reduced_precision(self) -> bool:
        """Whether an output gradient came in bfloat16 or float16, as under autocast."""
        return any(watched.reduced_precision for watched in self._watched)

    def grams(self, parameters: list[str]) -> GramsToCome:
        """Return the Gram matrices of those of `parameters` that can be read, over all micro-batches and all uses."""
        self._streams.follow(self._watched[0].labels)
        classes = self._known_classes()
        of_samples = self._multiply_samples(parameters, classes)
        found: dict[str, Numbers] = {}
        for name in parameters:
            made = of_samples.get(name) or self._made.get(name)
            assert not isinstance(made, Tensor)
            try:
                found[name] = made or self._numbers(name, self._held[name], classes)
            except NotCovered as reason:
                self._plan.refuse((name,), str(reason))
            except Exception as error:  # a part may be a user's rule's: the other parameters are read all the same
                self._plan.refuse((name,), f"its parts failed: {type(error).__name__}: {error}")
        groups = classes.groups
        return GramsToCome(
            list(found),
            self._num_classes,
            classes.ids,
            classes.count,
            torch.stack([gram for gram, _ in found.values()]) if found else torch.zeros(0, groups, groups),
            torch.stack([norms for _, norms in found.values()]) if found else torch.zeros(0, groups),
        )

    def _multiply_samples(self, parameters: list[str], classes: Classes) -> dict[str, Numbers]:
        """Return the numbers of those whose samples' gradients are made."""
        waiting = {name: made for name in parameters if isinstance(made := self._made.get(name), Tensor)}
        if not waiting:
            return {}
        gram, norms = gram_of_samples(list(waiting.values()), classes.labels[0], classes.groups)
        return dict(zip(waiting, zip(gram.unbind(), norms.unbind(), strict=True), strict=True))

    def _take(self, batch: WatchedBatch, use: Use) -> None:
        self._streams.follow(use.grad_output)
        index = self._watched.index(batch)
        names = use.site.parameters
        if batch.size == 0:
            for name in names:
                self._held.setdefault(name, [])
            return
        if not self._made.keys().isdisjoint(names):
            # a second backward pass through one forward pass: next time all is held
            self._plan.backward_again = True
            batch.incomplete.update(names)
            return
        at_once = self._held_bytes > HELD_AT_FIRST if self._at_once is None else self._at_once
        now = at_once and len(self._watched) == 1 and use.only
        if not now:
            use.keep()
            self._held_bytes += use.grad_output.nbytes
        parts = [_Held(index, source, part, use.layout, use.grad_output) for source, part in use.parts()]
        if now and len(parts) == 2 and self._make_pair(*parts):
            return
        for held in parts:
            for name in held.source.parameters:
                if now and name not in self._held:
                    self._made[name] = self._make(name, held)
                else:
                    self._held[name].append(held)

    def _make(self, name: str, held: _Held) -> Numbers | Tensor:
        """Return the numbers of a parameter with one use, or its samples' gradients where these are small."""
        classes, part = self._known_classes(), held.part()
        if held.source.isometric:
            piece = Piece(part, held.layout, classes.labels[held.batch], held.grad_output)
            made = sample_gradients(piece)
            if made is not None and made.numel() <= _SMALL:
                return made
            numbers = self._multiply([[piece]], classes)
            if numbers is not None:
                return numbers
        return self._numbers(name, [replace(held, part=lambda: part)], classes)

    def _make_pair(self, first: _Held, second: _Held) -> bool:
        """Make the numbers of a layer's weight and bias together, if these are such and go nowhere else."""
        if not (first.source.isometric and second.source.isometric):
            return False
        classes = self._known_classes()
        weight, bias = (
            Piece(held.part(), held.layout, classes.labels[held.batch], held.grad_output) for held in (first, second)
        )
        of_linear = gram_of_linear(weight, bias, classes.groups)
        found: Sequence[Numbers | Tensor] | None = of_linear or sample_gradients_of_normalisation(weight, bias)
        if found is None:
            return False
        for held, made in zip((first, second), found, strict=True):
            self._made[held.source.parameters[0]] = made
        return True

    def _known_classes(self) -> Classes:
        if self._classes is None or len(self._classes.labels) != len(self._watched):
            labels = [watched.labels for watched in self._watched]
            self._classes = Classes.of(labels, self._num_classes, self._ignore_index)
        return self._classes

    def _numbers(self, name: str, held: list[_Held], classes: Classes) -> Numbers:
        if not held:
            nothing = classes.count.new_zeros(classes.groups, classes.groups, dtype=torch.float64)
            return nothing, nothing.sum(0)
        pieces: dict[int, list[Piece]] = defaultdict(list)
        for piece in held:
            labels = classes.labels[piece.batch]
            pieces[piece.batch].append(Piece(piece.part(), piece.layout, labels, piece.grad_output))
        if all(piece.source.isometric for piece in held):
            numbers = self._multiply(list(pieces.values()), classes)
            if numbers is not None:
                return numbers
        return gram_of_gradients(self._class_gradients(name, held, pieces, classes.groups))

    def _multiply(self, pieces: list[list[Piece]], classes: Classes) -> Numbers | None:
        """Return the numbers of a parameter from its pieces in each batch; None if they are no problem of one form."""
        numbers = gram(pieces, classes.groups)
        if numbers is None:
            return None
        soft = any(labels.dim() == 2 for labels in classes.labels)
        return (numbers[0], torch.full_like(numbers[1], torch.nan)) if soft else (numbers[0], numbers[1])

    def _class_gradients(self, name: str, held: list[_Held], pieces: dict[int, list[Piece]], groups: int) -> Tensor:
        """Return the class gradients of a parameter, [K, its elements]: made, pulled back, and added up."""
        total: Tensor | None = None
        in_order = {index: iter(of_batch) for index, of_batch in pieces.items()}
        for each in held:
            if groups * each.source.shape.numel() * each.grad_output.element_size() > MEMORY_BOUND:
                raise NotCovered(
                    f"{groups} class gradients of {each.source.shape.numel()} elements, past the memory bound"
                )
            made = class_gradients(next(in_order[each.batch]), groups)
            pulled = torch.stack([each.source.pull_back(g.view(each.source.shape))[name].flatten() for g in made])
            total = pulled if total is None else total + pulled
        assert total is not None
        return total
