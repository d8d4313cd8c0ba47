"""The mode that is entered on a watched step and puts the taps where parameters meet data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from imbdyn.taps.registry import RULES, NotCovered, Rows, Rule, function_name


@dataclass
class Coverage:
    """What is known of how each parameter is read, by its name in `named_parameters()`."""

    rule_of: dict[str, str] = field(default_factory=dict)
    """Parameter to the watched function whose rule reads it."""
    refused: dict[str, str] = field(default_factory=dict)
    """Parameter to the reason why (part of) its gradient cannot be read."""

    def covered(self) -> list[str]:
        """Names of the parameters whose whole gradient is read, in the order of their first use."""
        return [name for name in self.rule_of if name not in self.refused]


class Watch(TorchFunctionMode):
    """Watch one forward pass; `rows` fills up in the backward pass that follows.

    Args:
        names: id of each parameter to watch, to its name.
        labels: int64 [N] of the batch; only results whose first dimension is N can be read.
        coverage: told which parameters are read by which rule, and which are not.

    A tap is a hook on the result: it changes neither values nor graph, so training stays bit-identical.
    """

    def __init__(self, names: Mapping[int, str], labels: Tensor, coverage: Coverage) -> None:
        super().__init__()
        self.labels = labels.clone()  # a loader may fill the same buffer again before the step
        self.rows: dict[str, list[Callable[[], Rows]]] = {}
        """Parameter to the rows of each of its uses, made only when called: unfolded pixels are many."""
        self.seconds = 0.0
        """Time spent here, beside the watched functions themselves."""
        self.held_bytes = 0
        """Memory of the output gradients that wait in `rows`."""
        self.reduced_precision = False
        """Whether an output gradient came in bfloat16 or float16."""
        self._handles: list[RemovableHandle] = []
        self._paused = False
        self._names = names
        self._coverage = coverage

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run `func` as it is, and tap its result if a watched parameter entered it."""
        kwargs = kwargs or {}
        if func is torch.autograd.grad or (func in _BACKWARD and kwargs.get("inputs") is not None):
            self._paused = True  # these gradients do not go into p.grad
            try:
                return func(*args, **kwargs)
            finally:
                self._paused = False
        result = func(*args, **kwargs)
        if any(result is argument for argument in args):
            return result  # requires_grad_ and the like hand the parameter back
        started = perf_counter()
        entered = [self._names[id(a)] for a in _tensors((*args, *kwargs.values())) if id(a) in self._names]
        if entered and torch.is_grad_enabled() and _needs_grad(result):
            function_rule = RULES.get(func)
            if function_rule is None:
                self._refuse(entered, f"{function_name(func)} has no rule")
            else:
                self._tap(func, function_rule, args, kwargs, result, entered)
        self.seconds += perf_counter() - started
        return result

    def _tap(
        self,
        func: Callable[..., Any],
        function_rule: Rule,
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        result: Tensor,
        entered: list[str],
    ) -> None:
        if result.dim() == 0 or result.shape[0] != self.labels.shape[0]:
            batch = self.labels.shape[0]
            self._refuse(
                entered,
                f"{function_name(func)}: first dimension of {tuple(result.shape)} is not the batch of {batch}",
            )
            return
        try:
            taps = [
                (self._names[id(parameter)], rows)
                for parameter, rows in function_rule(*args, **kwargs)
                if parameter is not None and id(parameter) in self._names
            ]
        except NotCovered as reason:
            self._refuse(entered, f"{function_name(func)} with {reason}")
            return
        except Exception as error:  # a rule may be a user's, and must not break the forward pass
            self._refuse(entered, f"the rule of {function_name(func)} failed: {type(error).__name__}: {error}")
            return
        for name, _ in taps:
            self._coverage.rule_of[name] = function_name(func)
        unread = [name for name in entered if name not in {name for name, _ in taps}]
        self._refuse(unread, f"{function_name(func)} reads it in a place without a rule")

        shape = result.shape

        def hand_over(grad_output: Tensor) -> None:
            if self._paused:
                return
            started = perf_counter()
            grad_output = grad_output.detach().reshape(shape)
            self.held_bytes += grad_output.nbytes
            self.reduced_precision |= grad_output.element_size() < 4
            for name, rows in taps:
                self.rows.setdefault(name, []).append(partial(rows, grad_output))
            self.seconds += perf_counter() - started

        self._handles.append(_hooked(result).register_hook(hand_over))

    def release(self) -> None:
        """Let go of what the backward pass needed, which a loss that somebody keeps would hold on to."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.rows.clear()

    def _refuse(self, names: Iterable[str], reason: str) -> None:
        for name in names:
            self._coverage.refused.setdefault(name, reason)


_BACKWARD = (Tensor.backward, torch.autograd.backward)


def _hooked(result: Tensor) -> Tensor:
    """Return the tensor whose gradient hook sees the gradient of `result`.

    F.linear returns a view of its product where the input has more than two dimensions. An in-place function that
    follows would give the view another history, and a hook on it would never be called; its base keeps the hook.
    """
    base = result._base
    whole = base is not None and base.numel() == result.numel() and base.is_contiguous() and result.is_contiguous()
    return base if whole and base is not None and base.requires_grad and not base.is_leaf else result


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _needs_grad(result: Any) -> bool:
    return any(tensor.requires_grad for tensor in _tensors((result,)))
