"""That what stands beside an op is the same work: a ratio to something else would say nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from imbdyn.bench.op_cases import (
    CASES,
    Case,
    added_logits,
    added_moments,
    batch_norm,
    convolution_gram,
    gram,
    layer_norm,
    logits,
    moments,
    norms,
    resnet50_shapes,
    token_gram,
)
from imbdyn.bench.ops import measure
from imbdyn.ops._library import IMPLEMENTATIONS

CASES_OF_EQUAL_NUMBERS = {
    "class_moments": lambda: moments(50, 7, 4),
    "class_moments, absent classes": lambda: moments(5, 7, 40),
    "add_class_moments": lambda: added_moments(50, 7, 4),
    "add_class_moments, absent classes": lambda: added_moments(5, 7, 40),
    "class_gram": lambda: gram(20, 6, 5, 3),
    "class_gram of tokens": lambda: token_gram(6, 9, 5, 4, 3),
    "class_gram_conv": lambda: convolution_gram(7, 3, 4, 6, 3),
    "norm_gradients": lambda: batch_norm(6, 3, 10),
    "norm_gradients_rows": lambda: layer_norm(4, 5, 6),
    "parameter_norms": lambda: norms([(4, 3, 2), (4,), (5, 4), (5,)], classifier=2),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def numbers(result: object) -> Iterator[Tensor]:
    for tensor in result if isinstance(result, (tuple, list)) else [result]:
        yield tensor.double()


@pytest.mark.parametrize("name", CASES_OF_EQUAL_NUMBERS)
def test_plain_torch_yields_the_numbers_of_the_op(name: str) -> None:
    case = CASES_OF_EQUAL_NUMBERS[name]()
    torch.testing.assert_close(list(numbers(case.op())), list(numbers(case.plain())), rtol=1e-5, atol=1e-5)


def test_moments_are_added_to_in_every_round() -> None:
    case = added_moments(50, 7, 4)
    for rounds in (2, 3):
        count, _, _ = map(Tensor.clone, numbers(case.op()))
        assert count.sum() == 50 * rounds
        torch.testing.assert_close(count, next(numbers(case.plain())))


@pytest.mark.parametrize("added", [False, True])
def test_cross_entropy_is_the_loss_of_class_logits(added: bool) -> None:
    case = (added_logits if added else logits)(50, 4)
    sums = case.op()
    loss_sum = sums[1] if added else sums.loss_sum
    torch.testing.assert_close(loss_sum.sum() / 50, case.plain().double(), rtol=1e-6, atol=0)


def test_the_floor_of_a_convolution_is_its_weight_gradient() -> None:
    case = convolution_gram(7, 3, 4, 6, 3)
    gram_of_classes, _ = case.op()
    torch.testing.assert_close(gram_of_classes.sum(), case.floor()[1].double().square().sum(), rtol=1e-5, atol=0)


def test_every_family_is_measured() -> None:
    families = {implementation.op for implementation in IMPLEMENTATIONS}
    assert {family for family in families if any(family in name for name in CASES)} == families


def test_resnet50_has_its_parameters() -> None:
    shapes = list(resnet50_shapes())
    assert (len(shapes), sum(math.prod(shape) for shape in shapes)) == (161, 25_557_032)
    assert shapes[159] == (1000, 2048)


def test_medians_are_of_the_function_that_they_are_named_after() -> None:
    calls = {"floor": 0, "op": 0, "plain": 0}

    def counted(name: str, size: int) -> Callable[[], None]:
        x = torch.ones(size)

        def call() -> None:
            calls[name] += 1
            x.exp()

        return call

    us = measure(Case(counted("floor", 10), counted("op", 10**5), counted("plain", 4 * 10**6)), 0.0)
    assert us["floor"] < us["op"] < us["plain"]
    assert calls == {"floor": 6, "op": 6, "plain": 6}
