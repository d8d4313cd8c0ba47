"""Taps in a graph of torch.compile, which cannot hold hooks: an identity whose backward calls an opaque op.

The graph holds two constant numbers, of the watch and of the site, and one that it is given each time it runs, of the
batch; everything else is Python, run in the backward pass as it is run in eager mode.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch._library.effects import EffectType

from imbdyn.taps.calls import Node
from imbdyn.taps.uses import Site

_LIBRARY = torch.library.Library("imbdyn", "FRAGMENT")
_SITES: list[Site] = []
_RECEIVERS: WeakValueDictionary[int, Any] = WeakValueDictionary()


def receive_with(watch: int, owner: Any) -> None:
    """Hand what comes from the graphs compiled under this number over to `owner.receive`, while it lives."""
    _RECEIVERS[watch] = owner


# run while a graph is made, with what is constant in it
@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def site_number(key: str, call: Node, names: tuple[tuple[int, str], ...]) -> int:
    """Keep a site for the graph that is being made; return its number."""
    _SITES.append(Site(key, call, names))
    return len(_SITES) - 1


def _hand_over(
    batch: Tensor,
    grad_output: Tensor,
    tensors: list[Tensor],
    ints: list[int],
    watch: int,
    site: int,
) -> None:
    owner = _RECEIVERS.get(watch)
    if owner is not None:
        owner.receive(int(batch), _SITES[site], tensors, ints, grad_output)


def _hand_over_fake(*_args: Any) -> None:
    return None


_LIBRARY.define(
    "hand_over(Tensor batch, Tensor grad_output, Tensor[] tensors, SymInt[] ints, int watch, int site) -> ()"
)
_LIBRARY.impl("hand_over", _hand_over, "CompositeExplicitAutograd")
torch.library.register_fake("imbdyn::hand_over", _hand_over_fake, lib=_LIBRARY)
# neither dropped, though nothing comes of it, nor moved before what it reads
torch.library._register_effectful_op("imbdyn::hand_over", EffectType.ORDERED, lib=_LIBRARY)


class CompiledTap(torch.autograd.Function):
    """y = result; the backward pass hands dL/dy over beside the call's tensors."""

    @staticmethod
    def forward(
        ctx: Any, result: Tensor, batch: Tensor, watch: int, site: int, ints: tuple[int, ...], *tensors: Tensor
    ) -> Tensor:
        """Return `result` itself."""
        ctx.save_for_backward(batch, *tensors)
        ctx.watch, ctx.site, ctx.ints = watch, site, ints
        ctx.mark_dirty(result)
        return result

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        """Hand over, and let the gradient pass."""
        batch, *tensors = ctx.saved_tensors
        torch.ops.imbdyn.hand_over(batch, grad_output, tensors, list(ctx.ints), ctx.watch, ctx.site)
        return (grad_output, None, None, None, None, *[None for _ in tensors])


class CompiledTapOfView(CompiledTap):
    """The same for a view of a parameter: what is handed on is another view of it."""

    @staticmethod
    def forward(
        ctx: Any, result: Tensor, batch: Tensor, watch: int, site: int, ints: tuple[int, ...], *tensors: Tensor
    ) -> Tensor:
        """Return a view of `result`."""
        ctx.save_for_backward(batch, *tensors)
        ctx.watch, ctx.site, ctx.ints = watch, site, ints
        return result.view_as(result)
