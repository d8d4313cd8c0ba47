"""How a running model is read: functions are watched, not modules.

On a watched step `Watch`, a `TorchFunctionMode`, sees every function that a parameter enters. Where parameters meet
data it taps the result; in the backward pass each `Use` is handed over: what was called, with what, and the gradient
of its result. The rules (`imbdyn.taps.rules`, one file a function) say what the parameters' gradients are made of.
"""

from imbdyn.taps import rules
from imbdyn.taps.features import FeatureWatch, is_classifier
from imbdyn.taps.layout import Layout
from imbdyn.taps.learning import Lesson
from imbdyn.taps.mode import Watch
from imbdyn.taps.parts import Broadcast, ChannelStatistics, Convolution, Lookup, Normalised, Part, Rows, RowStatistics
from imbdyn.taps.plan import Plan
from imbdyn.taps.registry import NotCovered, rule
from imbdyn.taps.uses import Again, Source, Use
from imbdyn.taps.watched import WatchedBatch

__all__ = [
    "Again",
    "Broadcast",
    "ChannelStatistics",
    "Convolution",
    "FeatureWatch",
    "Layout",
    "Lesson",
    "Lookup",
    "Normalised",
    "NotCovered",
    "Part",
    "Plan",
    "RowStatistics",
    "Rows",
    "Source",
    "Use",
    "Watch",
    "WatchedBatch",
    "is_classifier",
    "rule",
    "rules",
]
