"""How the monitor learns of a model's outputs, be the model eager or compiled."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn


class Receiver(Protocol):
    """Who is told of outputs."""

    def after_forward(self, output: Any) -> None:
        """Take the output of a forward pass."""

    def run_compiled(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a compiled forward pass, `call(*args, **kwargs)`."""


def follow(module: nn.Module, receiver: Receiver) -> Callable[[], None]:
    """Tell `receiver` of every output of `module`; return the function that ends it.

    Eager models get a forward hook. So does what `torch.compile(module)` returns, whose hooks run outside of the graph;
    its compiled forward is run by the receiver. After `module.compile()` the hooks would be traced into the graph, and
    all is done around the compiled call.
    """
    in_place: Callable[..., Any] | None = module._compiled_call_impl
    if in_place is not None:
        return _replace(module, "_compiled_call_impl", CompiledForward(in_place, receiver, tells=True))
    hook = module.register_forward_hook(OutputHook(receiver))
    if not is_optimized(module):
        return hook.remove
    restore = _replace(module, "forward", CompiledForward(module.forward, receiver, tells=False))

    def end() -> None:
        hook.remove()
        restore()

    return end


def is_optimized(module: nn.Module) -> bool:
    """Whether `torch.compile(module)` returned it."""
    return "_orig_mod" in module._modules


def is_compiled_in_place(module: nn.Module) -> bool:
    """Whether `module.compile()` was called."""
    return module._compiled_call_impl is not None


def why_unseen(module: nn.Module) -> str:
    """Return the sentence for a batch in which no output of `module` was seen."""
    if is_compiled_in_place(module) and not isinstance(module._compiled_call_impl, CompiledForward):
        return "model.compile() came after Monitor(model, ...), which then sees no outputs: compile the model before"
    return (
        "no forward pass of the monitored model was seen inside a monitor.batch(...): none in its thread, or that of a "
        "copy (an average of its weights, say), or torch.compile has compiled a function around it (compile the model)"
    )


class OutputHook:
    """The hook on the model. A copy of the model, or one that was saved and loaded, has one that does nothing."""

    def __init__(self, receiver: Receiver | None = None) -> None:
        self._receiver = None if receiver is None else weakref.ref(receiver)

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> None:
        """Hand the output of a forward pass over."""
        if torch.compiler.is_compiling():  # model.compile() came later; see `why_unseen`
            return
        receiver = None if self._receiver is None else self._receiver()
        if receiver is not None:
            receiver.after_forward(output)

    def __reduce__(self) -> tuple[type[OutputHook], tuple[()]]:
        return OutputHook, ()


class CompiledForward:
    """Stands before a compiled forward. Copies of a model have none: torch leaves what was compiled out of them."""

    def __init__(self, call: Callable[..., Any], receiver: Receiver, *, tells: bool) -> None:
        self._call = call
        self._receiver = weakref.ref(receiver)
        self._tells = tells

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it by way of the receiver."""
        receiver = self._receiver()
        if receiver is None:
            return self._call(*args, **kwargs)
        output = receiver.run_compiled(self._call, args, kwargs)
        if self._tells:
            receiver.after_forward(output)
        return output


def _replace(module: nn.Module, name: str, wrapped: CompiledForward) -> Callable[[], None]:
    original = getattr(module, name)
    setattr(module, name, wrapped)

    def restore() -> None:
        if getattr(module, name) is wrapped:
            setattr(module, name, original)

    return restore
