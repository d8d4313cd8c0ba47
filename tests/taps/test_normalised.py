"""Normalisations in the arrangements and dtypes that test_rules has not: against the product dy * xhat, made whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reading import assert_gram
from torch import Tensor

from imbdyn.monitor.parts import Piece, class_gradients, gram, gram_of_samples, sample_gradients_of_normalisation
from imbdyn.taps import Broadcast, Layout, Normalised
from imbdyn.taps.rules.batch_norm import batch_norm
from imbdyn.taps.rules.group_norm import group_norm
from imbdyn.taps.rules.instance_norm import instance_norm
from imbdyn.taps.rules.layer_norm import layer_norm
from imbdyn.taps.rules.rms_norm import rms_norm

ONES = torch.ones(8)
RULES: dict[str, Callable[[Tensor, Tensor], Iterator[Any]]] = {
    "batch_norm": lambda dy, x: batch_norm(dy, x, None, None, ONES, ONES, True),
    "batch_norm, eval": lambda dy, x: batch_norm(dy, x, (ONES / 4).to(x), (ONES * 2).to(x), ONES, ONES),
    "group_norm": lambda dy, x: group_norm(dy, x, 4, ONES, ONES),
    "instance_norm": lambda dy, x: instance_norm(dy, x, None, None, ONES, ONES),
    "layer_norm": lambda dy, x: layer_norm(dy, x, x.shape[-1:], ONES, ONES),
    "rms_norm": lambda dy, x: rms_norm(dy, x, x.shape[-1:], ONES),
}
LAYOUTS = {
    "first": (Layout(0, 1, 1), 12),
    "windows behind": (Layout(0, 1, 2), 6),
    "windows before": (Layout(0, 3, 1), 4),
    "second": (Layout(1, 1, 1), 8),
    "last": (Layout(2, 1, 1), 8),
    "one sample": (Layout(0, 1, 1), 1),
}


def parts_of(rule: str, x: Tensor, dy: Tensor) -> list[Normalised | Broadcast]:
    return [part() for _, part in RULES[rule](dy, x)]


def made_whole(part: Normalised | Broadcast) -> Broadcast:
    """Return the product in float64, of dy and of what the function itself makes of the input."""
    gradient = part.grad_output.double() * part.xhat().double() if isinstance(part, Normalised) else part.gradient
    return Broadcast(gradient.double(), part.shape)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("where", LAYOUTS)
def test_batch_may_lie_anywhere(rule: str, where: str) -> None:
    layout, batch = LAYOUTS[where]
    x, dy = torch.randn(2, 12, 8, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(batch) % 3
    parts = parts_of(rule, x, dy)
    for part in parts:
        expected = made_whole(part).by_sample(layout, batch)
        of_class = torch.stack([expected[labels == c].sum(0) for c in range(3)])
        piece = Piece(part, layout, labels, dy)
        numbers = gram([[piece]], 3)
        assert numbers is not None
        assert_gram(numbers[0], of_class, 1e-12, rule)
        torch.testing.assert_close(class_gradients(piece, 3), of_class)
    if len(parts) == 2:
        together = sample_gradients_of_normalisation(*(Piece(part, layout, labels, dy) for part in parts))
        assert (together is None) == (layout.axis > 0 and rule != "layer_norm")
        for part, gradients in zip(parts, together or (), strict=together is not None):
            alone = gram([[Piece(part, layout, labels, dy)]], 3)
            assert alone is not None
            for got, expected in zip(gram_of_samples([gradients], labels, 3), alone, strict=True):
                torch.testing.assert_close(got[0], expected)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grad_dtype", [torch.float32, torch.bfloat16])
def test_input_and_gradient_may_have_different_dtypes(
    rule: str, input_dtype: torch.dtype, grad_dtype: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(12, 8, 8, 8, generator=random).to(dtype) for dtype in (input_dtype, grad_dtype))
    labels = torch.arange(12) % 3
    exact = parts_of(rule, x.double(), dy.double())
    for part, expected in zip(parts_of(rule, x, dy), exact, strict=True):
        of_sample = made_whole(expected).by_sample(Layout(0, 1, 1), 12)
        of_class = torch.stack([of_sample[labels == c].sum(0) for c in range(3)])
        numbers = gram([[Piece(part, Layout(0, 1, 1), labels, dy)]], 3)
        assert numbers is not None
        # bfloat16 sums are rounded where torch makes them: a bias alone, and RMSNorm with an eps of torch's own
        in_float32 = isinstance(part, Normalised) or grad_dtype == torch.float32 == input_dtype
        assert_gram(numbers[0], of_class, 1e-5 if in_float32 else 2e-2, rule)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_eps_of_rms_norm_is_torchs_own_for_halves(dtype: torch.dtype) -> None:
    x, dy = (torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0)) * 1e-3).to(dtype)
    (part,) = parts_of("rms_norm", x, dy)
    expected = (dy * F.rms_norm(x, (8,))).float()
    numbers = gram([[Piece(part, Layout(0, 1, 1), torch.arange(12), dy)]], 12)
    assert numbers is not None
    assert_gram(numbers[0], expected, 1e-5)
