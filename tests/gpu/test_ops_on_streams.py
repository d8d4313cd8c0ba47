"""What all ops promise on a GPU: no call waits; a side stream, a captured graph and a repeat give the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from imbdyn import ops
from imbdyn.ops._library import serving

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

FAMILIES = ("class_gram", "class_logits", "class_moments", "norm_gradients", "parameter_norms")
Call = Callable[[], tuple[Tensor, ...]]


def calls() -> dict[str, Call]:
    random = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, generator=random, device="cuda").to(dtype)

    y = torch.randint(0, 7, (96,), generator=random, device="cuda")
    x, tokens, images = normal(96, 40), normal(96, 65, 48), normal(96, 16, 9, 9)
    places = images.flatten(2)
    dy, token_grads, image_grads = normal(96, 24), normal(96, 65, 72), normal(96, 24, 9, 9)
    many = normal(4096, 300, dtype=torch.bfloat16)
    many_y = torch.randint(0, 300, (4096,), generator=random, device="cuda")
    weights, grads, before = ([normal(n, 33) for n in (1, 70, 300)] for _ in range(3))
    geometry = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    return {
        "class_moments": lambda: ops.class_moments(x, y, 7),
        "class_moments, many classes": lambda: ops.class_moments(many, many_y, 300),
        "class_logits": lambda: ops.class_logits(x, y),
        "class_logits, wide": lambda: ops.class_logits(many, many_y),
        "class_gram of rows": lambda: ops.class_gram(x, dy, y, 7),
        "class_gram of tokens": lambda: ops.class_gram(tokens, token_grads, y, 7),
        "class_gram of bfloat16": lambda: ops.class_gram(tokens.bfloat16(), token_grads.bfloat16(), y, 7),
        "class_gram_linear": lambda: sum(ops.class_gram_linear(tokens, token_grads, y, 7), ()),
        "class_gram_conv": lambda: ops.class_gram_conv(images, image_grads, y, 7, (3, 3), **geometry),
        "class_gram_conv of groups": lambda: ops.class_gram_conv(
            images, image_grads, y, 7, (3, 3), **geometry, groups=8
        ),
        "class_gram_samples": lambda: ops.class_gram_samples([x, dy], y, 7),
        "norm_gradients": lambda: ops.norm_gradients(places, places.sin(), 16, across_units=True),
        "norm_gradients_rows": lambda: ops.norm_gradients_rows(tokens, tokens.cos()),
        "parameter_norms": lambda: ops.parameter_norms(weights, grads, before, rows=1),
    }


NAMES = (
    *("class_moments", "class_moments, many classes", "class_logits", "class_logits, wide", "class_gram of rows"),
    *("class_gram of tokens", "class_gram of bfloat16", "class_gram_linear", "class_gram_conv"),
    *("class_gram_conv of groups", "class_gram_samples", "norm_gradients", "norm_gradients_rows", "parameter_norms"),
)


@pytest.fixture(params=NAMES)
def call(request: pytest.FixtureRequest) -> Call:
    made = calls()
    assert tuple(made) == NAMES
    family = next(f for f in FAMILIES if request.param.startswith(f))
    if serving(family, "cuda").device != "cuda":
        pytest.skip("no verified GPU implementation serves it yet")
    return made[request.param]


@pytest.fixture
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6 * float(want.abs().nan_to_num().max()))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.usefixtures("waiting_is_an_error")
def test_no_call_waits(call: Call) -> None:
    call()


def test_behind_work_that_is_still_running(call: Call) -> None:
    """What a side stream writes just before the call is what the call reads."""
    expected = [t.clone() for t in call()]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        found = call()
    torch.cuda.current_stream().wait_stream(stream)
    same(found, tuple(expected))


def test_in_a_captured_graph(call: Call) -> None:
    expected = tuple(t.clone() for t in call())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call()
    for t in found:
        t.zero_()
    graph.replay()
    graph.replay()
    same(found, expected)


def test_bitwise_repeatable_where_asked_for(call: Call) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        first = [t.clone() for t in call()]
        for _ in range(5):
            for got, want in zip(call(), first, strict=True):
                assert torch.equal(got.nan_to_num(), want.nan_to_num())
    finally:
        torch.use_deterministic_algorithms(False)
