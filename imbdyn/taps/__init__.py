"""How a running model is read: functions are watched, not modules.

On a watched step `Watch`, a `TorchFunctionMode`, sees every function that a parameter enters. A function with a rule
gets a tap on its result: a gradient hook that hands over the rows from which the parameter's gradient is made.
"""

from imbdyn.taps import batch_norm, conv2d, embedding, group_norm, layer_norm, linear, rms_norm
from imbdyn.taps.features import FeatureWatch
from imbdyn.taps.mode import Coverage, Watch
from imbdyn.taps.registry import NotCovered, Rows, rule, sample_gradients

__all__ = [
    "Coverage",
    "FeatureWatch",
    "NotCovered",
    "Rows",
    "Watch",
    "batch_norm",
    "conv2d",
    "embedding",
    "group_norm",
    "layer_norm",
    "linear",
    "rms_norm",
    "rule",
    "sample_gradients",
]
