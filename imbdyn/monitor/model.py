"""What the instrument must know of the model: names, classifier, logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from imbdyn.monitor.ranks import own_module
from imbdyn.taps import FeatureWatch, is_classifier


class WatchedModel:
    """A model, its parameters by name, and its classifier as far as it is known.

    Raises:
        ValueError: if no parameter has `num_classes` rows or columns, or the module named by `classifier` has none.
    """

    def __init__(
        self, module: nn.Module, num_classes: int, classifier: str | None, logits: Callable[[Any], Tensor] | None
    ) -> None:
        self.module = module
        # torch.compile wraps the module it was given, and that may wrap another
        self.inner: nn.Module = own_module(getattr(module, "_orig_mod", module))
        self._num_classes = num_classes
        self._logits = logits
        self._feature_watch = FeatureWatch(num_classes)
        self.classifier_weight: str | None = None
        """Name of the classifier's weight [C, D] (or [C, D, 1, 1]); None until its function was seen, or was named."""
        self.classifier_bias: str | None = None
        parameters = dict(self.inner.named_parameters())
        self._some_parameter = next(iter(parameters.values()), None)
        self._gradients_left: dict[int, int] = {}
        self._watched: dict[str, nn.Parameter] = {}
        if classifier is not None:
            self._name_classifier(classifier, parameters)
        elif not any(p.dim() > 1 and num_classes in (p.shape[0], p.shape[-1]) for p in parameters.values()):
            raise ValueError(
                f"the model has no classifier: no parameter of shape [num_classes={num_classes}, features]; "
                f"{_what_may_be_wrong(num_classes, parameters)}"
            )

    def _name_classifier(self, classifier: str, parameters: dict[str, nn.Parameter]) -> None:
        weight = parameters.get(f"{classifier}.weight")
        if weight is None or not is_classifier(weight, self._num_classes):
            if weight is not None:
                raise ValueError(
                    f"classifier={classifier!r} has a weight of shape {list(weight.shape)}, not "
                    f"[num_classes={self._num_classes}, features]"
                )
            layers = [name for name, m in self.inner.named_modules() if isinstance(m, nn.Linear)]
            near = get_close_matches(classifier, layers, 1) or layers[-1:] or ["none"]
            raise ValueError(
                f"classifier={classifier!r} names no layer with a weight [num_classes={self._num_classes}, features]; "
                f"the nearest linear layer is {near[0]!r}"
            )
        self.classifier_weight = f"{classifier}.weight"
        if f"{classifier}.bias" in parameters:
            self.classifier_bias = f"{classifier}.bias"

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that require a gradient now, by name."""
        return {name: p for name, p in self.inner.named_parameters() if p.requires_grad}

    def names(self) -> dict[int, str]:
        """Return the id of each parameter that requires a gradient now, to its name."""
        self._watched = self.trainable()
        return {id(p): name for name, p in self._watched.items()}

    def watched(self) -> dict[str, nn.Parameter]:
        """Return what `trainable` would, but for parameters that came after the last `names`.

        A walk through a large model takes milliseconds: one a step, not three.
        """
        if not self._watched:
            return self.trainable()
        return {name: p for name, p in self._watched.items() if p.requires_grad}

    @property
    def device(self) -> torch.device:
        """Where the model is, or its first parameter."""
        return torch.device("cpu") if self._some_parameter is None else self._some_parameter.device

    def remember_gradients(self) -> None:
        """Remember the gradients as they are, for `gradients_were_dropped`."""
        self._gradients_left = {id(p.grad): p.grad._version for p in self.watched().values() if p.grad is not None}

    def gradients_were_dropped(self) -> bool:
        """Whether every gradient is None or zero, as after zero_grad().

        A gradient that nobody has written to since `remember_gradients` is not looked at, which on a GPU would wait.
        """
        gradients = [p.grad for p in self.trainable().values() if p.grad is not None]
        if any(self._gradients_left.get(id(grad)) == grad._version for grad in gradients):
            return False
        return not any(bool(grad.any()) for grad in gradients)

    def parameter(self, name: str) -> nn.Parameter:
        """Return the parameter of that name."""
        return self.inner.get_parameter(name)

    def knows_classifier(self) -> bool:
        """Whether the classifier was found and is still there: where the head was changed it is to be found anew."""
        weight, bias = self._find(self.classifier_weight), self._find(self.classifier_bias)
        gone = weight is None or not is_classifier(weight, self._num_classes)
        if gone or (bias is None and self.classifier_bias is not None):
            self.classifier_weight = self.classifier_bias = None
        return self.classifier_weight is not None

    def _find(self, name: str | None) -> nn.Parameter | None:
        try:
            return None if name is None else self.parameter(name)
        except AttributeError:
            return None

    def feature_watch(self) -> FeatureWatch:
        """Return a mode that reads the classifier's input, and finds the classifier if it is not known."""
        self.knows_classifier()
        self._feature_watch.begin({id(p): name for name, p in self.inner.named_parameters()}, self.classifier_weight)
        return self._feature_watch

    def learn_classifier(self, watch: FeatureWatch) -> None:
        """Take over what a feature watch found."""
        if watch.weight is not None:
            self.classifier_weight, self.classifier_bias = watch.weight, watch.bias

    @property
    def layer(self) -> str | None:
        """Name in `named_modules()` of the module that holds the classifier's weight."""
        return None if self.classifier_weight is None else self.classifier_weight.rpartition(".")[0]

    def mixing_layers(self) -> list[str]:
        """Return the modules that mix the samples of a batch in training mode: batch normalisation."""
        return [name for name, m in self.inner.named_modules() if isinstance(m, _BatchNorm)]

    def logits_of(self, output: Any, labels: Tensor) -> Tensor:
        """Return the logits [N, C] in a model's output.

        Raises:
            TypeError: if the output is no tensor, has no `.logits`, and no `logits=` function was given.
            ValueError: if they are not [N, C] for N labels.
        """
        logits = self._logits(output) if self._logits is not None else getattr(output, "logits", output)
        if self._logits is not None and not isinstance(logits, Tensor):
            raise TypeError(f"logits=... must return a tensor [N, C], got {type(logits).__name__}")
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"the model returns {type(output).__name__}, in which the logits are not known: "
                "give Monitor(..., logits=lambda output: ...)"
            )
        if logits.shape != (labels.shape[0], self._num_classes):
            raise ValueError(
                f"the logits must be [N, C] = [{labels.shape[0]}, {self._num_classes}] for the labels of this batch, "
                f"got {list(logits.shape)}"
            )
        return logits


def _what_may_be_wrong(num_classes: int, parameters: Mapping[str, Tensor]) -> str:
    if num_classes == 2 and any(p.dim() > 1 and p.shape[0] == 1 for p in parameters.values()):
        return "a single logit is not read: end the model in two outputs, and train it with cross_entropy"
    return "is num_classes right?"
