"""A model under a watch, as a Monitor has it, and its class gradients by definition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbdyn.monitor.gradients import StepGradients
from imbdyn.reference import class_gradients
from imbdyn.taps import Lesson, Plan, Watch, WatchedBatch

CLASSES = 5
Run = Callable[[], Any]


class Reader:
    """Watches a module; what is learned of it in one step is known in the next."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.plan = Plan()
        self.watch = Watch(self.plan)
        self.lessons = 0
        self.batch: WatchedBatch | None = None

    def begin(self, step: StepGradients, labels: Tensor) -> Lesson | None:
        """Begin to watch a batch, in which the model is learned if it is not known."""
        self.batch = step.watch(labels)
        lesson = None if self.plan.complete else Lesson(self.plan, self.module, len(labels))
        self.lessons += lesson is not None
        names = {id(p): name for name, p in self.module.named_parameters() if p.requires_grad}
        self.watch.begin(names, self.batch, lesson)
        return lesson

    def resolve(self, lesson: Lesson | None, output: Any) -> None:
        """Learn from an output, as the hook on a model does."""
        assert self.batch is not None
        if lesson is not None:
            self.batch.paused = True
            with torch._C.DisableTorchFunction():
                lesson.resolve(output)
            self.batch.paused = False

    def end(self, lesson: Lesson | None) -> None:
        """End what `begin` began."""
        if lesson is not None:
            lesson.end()
        self.watch.end()

    def forward(self, step: StepGradients, labels: Tensor, run: Run) -> Any:
        """Return what `run` returns, watched."""
        lesson = self.begin(step, labels)
        with self.watch:
            output = run()
        self.resolve(lesson, output)
        self.end(lesson)
        return output

    def step(self, *, at_once: bool = False) -> StepGradients:
        """Return an empty step."""
        return StepGradients(CLASSES, -100, self.plan, at_once=at_once)

    def read(self, run: Run, labels: Tensor, dy: Tensor | None = None, *, at_once: bool = True) -> StepGradients:
        """Run forward and backward: of the mean cross-entropy, or with dL/d(output) where `dy` is given."""
        step = self.step(at_once=at_once)
        output = self.forward(step, labels, run)
        if dy is None:
            F.cross_entropy(output, labels).backward()
        else:
            output.backward(dy)
        return step


def grams(step: StepGradients, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the Gram matrix of every parameter, [CLASSES, CLASSES]; of absent classes 0."""
    for name in names:
        assert step.has(name), f"{name} was not handed over"
    with torch.no_grad():
        sent = step.grams(list(names))
        read = sent.come([t.numpy() for t in sent.tensors()])
    full = torch.zeros(len(names), CLASSES, CLASSES, dtype=torch.float64)
    ids = torch.as_tensor(read.class_ids)
    full[:, ids[:, None], ids] = torch.as_tensor(read.gram).double()
    return dict(zip(names, full, strict=True))


def by_definition(model: nn.Module, x: Any, labels: Tensor) -> dict[str, Tensor]:
    """Return the gradient of each class's part of the mean cross-entropy."""
    losses = F.cross_entropy(model(x), labels, reduction="none") / len(labels)
    return class_gradients(losses, labels, CLASSES, model.named_parameters())


def through_rows(result: Tensor, dy: Tensor, labels: Tensor, parameters: Sequence[Tensor], axis: int = 0) -> Any:
    """Return what flows through the rows of each class, for each parameter: [CLASSES, its elements]."""
    rows = [(labels == c).view(-1, *[1] * (result.dim() - axis - 1)) for c in range(CLASSES)]
    gradients = [torch.autograd.grad(result, parameters, dy * of, retain_graph=True) for of in rows]
    return [
        torch.stack([(g.to_dense() if g.is_sparse else g).flatten() for g in of]) for of in zip(*gradients, strict=True)
    ]


def assert_gram(read: Tensor, gradients: Tensor, relative: float = 1e-5, what: str = "") -> None:
    """Check a Gram matrix, to a part of the largest squared norm."""
    flat = gradients.reshape(len(gradients), -1).double()
    expected = flat @ flat.T
    error = float((read - expected).abs().max())
    assert error <= relative * float(expected.abs().max()), f"{what}: {error:.1e}\n{read}\n{expected}"


def assert_read(model: nn.Module, x: Any, labels: Tensor, *, learn: int = 1, relative: float = 1e-5) -> Reader:
    """Every parameter's class gradients are those of one backward a class: in the first step, and once it is known.

    Args:
        learn: lessons that the model takes.
    """
    expected = by_definition(model, x, labels)
    reader = Reader(model)
    while not reader.plan.complete and reader.lessons <= learn:
        step = reader.read(lambda: model(x), labels)
    assert reader.plan.refused == {}
    assert sorted(reader.plan.covered()) == sorted(expected)
    for at_once in (None, True, False):
        if at_once is not None or learn > 1:
            step = reader.read(lambda: model(x), labels, at_once=at_once is not False)
        for name, gram in grams(step, list(expected)).items():
            assert_gram(gram, expected[name], relative, name)
    assert reader.lessons == learn
    return reader
