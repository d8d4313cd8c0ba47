"""The mode that finds the classifier and reads the features, its input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LINEAR = (F.linear, F.conv1d, F.conv2d, F.conv3d)


class FeatureWatch(TorchFunctionMode):
    """Remember the last linear function with a parameter of `num_classes` rows: the classifier, and its input.

    A convolution of one pixel with one pixel is a linear function, too.

    One object serves all batches: a graph of torch.compile that was made under it holds for the next one too.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight: str | None = None
        """Name of the classifier's weight, once it was seen."""
        self.bias: str | None = None
        self.features: Tensor | None = None
        """[N, D] (or [N, ..., D]), the classifier's input in the last forward pass."""
        self._names: dict[int, str] = {}
        self._num_classes = num_classes
        self._classifier: str | None = None

    def begin(self, names: Mapping[int, str], classifier: str | None) -> None:
        """Watch another batch.

        Args:
            names: id of each parameter, to its name.
            classifier: name of the classifier's weight where it is known: no other function counts then.
        """
        self.weight = self.bias = self.features = None
        if names != self._names:
            self._names = dict(names)
        self._classifier = classifier

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run `func` as it is, and remember what entered it if it is the classifier."""
        kwargs = kwargs or {}
        if func in _LINEAR:
            self._remember(*args, **kwargs)
        return func(*args, **kwargs)

    def _remember(self, input: Tensor, weight: Tensor, bias: Tensor | None = None, *_: Any, **_options: Any) -> None:
        name = self._names.get(id(weight))
        if name is None or not is_classifier(weight, self._num_classes):
            return
        if self._classifier is None or name == self._classifier:
            self.weight = name
            self.bias = None if bias is None else self._names.get(id(bias))
            pixels = weight.dim() - 2
            self.features = input.detach().flatten(-pixels - 1) if pixels else input.detach()


def is_classifier(weight: Tensor, num_classes: int) -> bool:
    """Whether a parameter may be the weight [C, D] (or [C, D, 1, 1]) of a classifier."""
    return weight.dim() >= 2 and weight.shape[0] == num_classes and weight.shape[2:].numel() == 1
