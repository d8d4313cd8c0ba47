"""What was learned of a model: where each parameter meets data, and how its rows lie there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from imbdyn.taps.layout import Layout

_PATIENCE = 4
#: Of a parameter that has a gradient all the same.
_NOT_SEEN = "no function was seen with it: a copy was used, as in torch.func, or code that shows none (TorchScript)"


@dataclass
class Plan:
    """Decisions by use of a parameter ("NAME#k"), made in the first watched step and whenever a new use appears."""

    is_value: dict[str, bool] = field(default_factory=dict)
    """Whether a result is still parameter-like (no batch in it), or the place where a parameter meets data."""
    keeps: dict[str, bool] = field(default_factory=dict)
    """Whether the arguments beside the parameters are needed in the backward pass."""
    overwrites: dict[str, bool] = field(default_factory=dict)
    """Whether the function writes its result into its first argument, which is then copied before."""
    floats: dict[str, list[float]] = field(default_factory=dict)
    """The floats of the call, which a compiled graph may have as symbols."""
    of_leaf: dict[str, bool] = field(default_factory=dict)
    """Whether the result is a view of a parameter itself, which nothing may write to."""
    layouts: dict[str, Layout] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)
    """Parameter to the number of places where it meets data in a forward pass."""
    forced: set[str] = field(default_factory=set)
    """Results without a batch in them although data went in: parameter-like, as it turned out."""
    rule_of: dict[str, str] = field(default_factory=dict)
    """Parameter to the watched function by which it is read."""
    refused: dict[str, str] = field(default_factory=dict)
    """Parameter to the reason why (part of) its gradient cannot be read."""
    unassigned: dict[str, str] = field(default_factory=dict)
    """Result that the experiment did not reach to the reason; its gradient may still come, and is not read."""
    unreached: dict[str, str] = field(default_factory=dict)
    """Parameter to why nothing is known of a use of it, as long as no gradient comes there."""
    unread: set[str] = field(default_factory=set)
    """Results whose gradient came while nothing was known of their rows."""
    lessons: int = 0
    """Batches of more than one sample that were learned from."""
    backward_again: bool = False
    """Whether a second backward pass goes through the same forward pass."""
    complete: bool = False
    """Whether the model is known; if not, the next watched step learns."""

    @property
    def patient(self) -> bool:
        """Whether another lesson is given to what no gradient has reached: layers may begin behind a scale of 0."""
        return self.lessons < _PATIENCE

    def covered(self) -> list[str]:
        """Names of the parameters whose whole gradient is read, in the order of their first use."""
        return [name for name in self.rule_of if name not in self.refused]

    def why_not(self, name: str) -> str:
        """Return why a parameter is not covered."""
        unclear = any(key.startswith(f"{name}#") for key in (*self.is_value, *self.forced, *self.unread))
        so_far = "nothing tells yet which of its rows belong to which sample" if unclear else _NOT_SEEN
        return self.refused.get(name) or self.unreached.get(name, so_far)

    def refuse(self, names: tuple[str, ...], reason: str) -> None:
        """Note why parameters cannot be read; the first reason stays."""
        for name in names:
            self.refused.setdefault(name, reason)
