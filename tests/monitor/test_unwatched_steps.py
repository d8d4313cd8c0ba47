"""A step that is not sampled: the model runs untouched, and the logits are read once where it hands them out."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loops import CLASSES
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from imbdyn import Monitor
from imbdyn.taps import Watch


class Count(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def nodes(tensor: Tensor) -> Iterator[str]:
    """Yield the names of the nodes of a graph, in a fixed order."""
    waiting, seen = [tensor.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node.name()
            waiting += [after for after, _ in node.next_functions]


@pytest.fixture
def twins(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    return network, copy.deepcopy(network)


def test_one_operator_reads_the_logits_and_the_graph_is_the_same(
    twins: tuple[nn.Module, nn.Module], images: Tensor, labels: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, model = twins
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in twins]
    with Monitor(model, optimizers[1], CLASSES, tmp_path / "run", interval=100) as monitor:
        for _ in range(3):  # the first step is sampled and learns
            with monitor.batch(labels):
                F.cross_entropy(model(images), labels).backward()
            optimizers[1].step()
            optimizers[1].zero_grad()

        def entered(*_: Any, **__: Any) -> None:
            raise AssertionError("a mode was entered")

        monkeypatch.setattr(Watch, "__enter__", entered)
        with Count() as plain:
            expected = F.cross_entropy(bare(images), labels)
            expected.backward()
        with Count() as monitored, monitor.batch(labels):
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
        assert list(nodes(loss)) == list(nodes(expected))
        with Count() as plain_step:
            optimizers[0].step()
        with Count() as monitored_step:
            optimizers[1].step()

    assert not plain.calls - monitored.calls
    assert monitored.calls - plain.calls == {
        "imbdyn.add_class_logits.default": 1,
        "aten.detach.default": 1,
        "aten.clone.default": 1,  # of the labels, for the class counts
        "aten.aminmax.default": 1,  # are the labels in range?
        "aten._local_scalar_dense.default": 2,
    }
    assert monitored_step.calls == plain_step.calls
