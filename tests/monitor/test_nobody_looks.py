"""Between forward pass and optimizer step nobody looks at a tensor, which would make the host wait for a GPU."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from late import Device
from loops import CLASSES
from networks import Mlp
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from ways import NormalisedCnn, VisionTransformer

from imbdyn import Monitor, open_trace
from imbdyn.monitor import arrivals
from imbdyn.monitor.classes import Classes
from imbdyn.monitor.parts import Piece, class_gradients
from imbdyn.taps import Convolution, Layout, Lookup, Rows


class TwoScales(nn.Module):
    """A weight that is used twice and values made of parameters: class gradients that have to be made."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.scale = nn.Linear(72, 72), nn.Parameter(torch.ones(2, 72))
        self.kernel = nn.Parameter(0.1 * torch.randn(2, 2, 3, 3))
        self.head = nn.Linear(72, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.conv2d(x, self.kernel, padding=1), self.kernel, padding=1).flatten(1)
        x = torch.tanh(self.inner(x)) * self.scale.sum(0)
        return self.head(torch.tanh(self.inner(x) @ self.inner.weight) * self.scale[0])


LOOKS = {
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::masked_select",
    "aten::bincount",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave",
    "aten::equal",
}


class NobodyLooks(TorchDispatchMode):
    """Finds the calls that would wait for a GPU: those whose results, or the sizes of these, the host must know.

    It sees our own ops from outside: whether they wait is the affair of what implements them on a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        selects = name.startswith("aten::index") and any(
            isinstance(i, Tensor) and i.dtype == torch.bool
            for arg in args
            if isinstance(arg, (list, tuple))
            for i in arg
        )
        states = name == "aten::equal" and args[0].dtype == torch.uint8  # of random generators, which the host has
        if (name in LOOKS and not states) or selects:
            frames = [f for f in traceback.extract_stack() if "imbdyn" in f.filename]
            self.found.append(f"{name} in {frames[-1].filename}:{frames[-1].lineno}" if frames else name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("make", [lambda: Mlp(features=72), NormalisedCnn, VisionTransformer, TwoScales])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_nobody_looks_at_a_tensor_once_the_model_is_learned(
    tmp_path: Path,
    device: Device,
    batches: list[tuple[Tensor, Tensor]],
    make: Callable[[], nn.Module],
    micro_batches: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imbdyn.monitor.monitor.check_values", lambda *_: None)  # of labels on the CPU only
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, CLASSES, tmp_path / "run", interval=2) as monitor:
        for step in range(0, len(batches), micro_batches):
            with NobodyLooks() as looks:
                for x, y in batches[step : step + micro_batches]:
                    with monitor.batch(y):
                        F.cross_entropy(model(x), y).backward()
                optimizer.step()
            optimizer.zero_grad()
            assert step < 2 * micro_batches or looks.found == []
    trace = open_trace(tmp_path / "run")
    assert trace.run["problems"] == {}
    assert trace.run["coverage"]["share"] == 1.0
    assert device.sent


def test_who_looks_is_seen() -> None:
    with NobodyLooks() as looks:
        Classes.of([torch.tensor([0, 2, 2])], CLASSES, -100)
        torch.ones(3)[torch.tensor([True, False, True])].sum().item()
    assert [found.split()[0] for found in looks.found] == ["aten::_unique2", "aten::index", "aten::_local_scalar_dense"]
    assert "classes.py" in looks.found[0]


@pytest.mark.parametrize(
    "labels",
    [
        [[0, 0, 3, 1, 3]],
        [[0, 0, 3, -100, 3]],
        [[2], [4, 4], [2, 0, -1, 999]],
        [[-100, -100]],
        [list(range(5)) * 4],
        [[], [1]],
    ],
    ids=str,
)
def test_classes_are_numbered_without_looking(labels: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.tensor(of_batch, dtype=torch.int64) for of_batch in labels]
    here = Classes.of(tensors, CLASSES, 2)
    monkeypatch.setattr(arrivals, "may_look", lambda _: False)
    there = Classes.of(tensors, CLASSES, 2)
    assert there.groups == min(sum(map(len, labels)), CLASSES + 1) >= here.groups
    assert there.ids[: here.groups].tolist() == here.ids.tolist()
    assert there.count[: here.groups].tolist() == here.count.tolist()
    assert (there.ids[here.groups :] == CLASSES + 1).all()
    assert (there.count[here.groups :] == 0).all()
    for a, b in zip(here.labels, there.labels, strict=True):
        assert a.tolist() == b.tolist()


def test_class_gradients_are_made_without_selecting(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    labels, layout = torch.tensor([0, 2, 1, 0]), Layout(0, 1, 1)
    indices = torch.tensor([[0, 5], [-1, 5], [2, 2], [0, -1]])
    image, dy = draw(4, 3, 5, 5), draw(4, 2, 3, 3)
    parts = [
        Rows(draw(4, 6, 3), draw(4, 6, 2)),
        Lookup(indices, draw(4, 2, 3), 6),
        Convolution(image, dy, (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ]
    pieces = [Piece(part, layout, labels, dy) for part in parts]
    here = [class_gradients(piece, 3) for piece in pieces]
    monkeypatch.setattr(arrivals, "may_look", lambda _: False)
    for piece, expected in zip(pieces, here, strict=True):
        torch.testing.assert_close(class_gradients(piece, 3), expected)
    lookup = torch.zeros(3, 6, 3, dtype=torch.float64)
    for n, place in [(n, place) for n in range(4) for place in range(2) if indices[n, place] >= 0]:
        lookup[labels[n], indices[n, place]] += parts[1].grad_outputs[n, place]
    torch.testing.assert_close(here[1], lookup.flatten(1))
