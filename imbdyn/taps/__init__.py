"""How a running model is read: functions are watched, not modules.

On a watched step `Watch`, a `TorchFunctionMode`, sees every function that a parameter enters. A function with a rule
gets a tap on its result: a gradient hook that hands over the rows from which the parameter's gradient is made.
"""

from imbdyn.taps import conv2d, linear
from imbdyn.taps.features import FeatureWatch
from imbdyn.taps.mode import Coverage, Watch
from imbdyn.taps.registry import NotCovered, Rows, rule

__all__ = ["Coverage", "FeatureWatch", "NotCovered", "Rows", "Watch", "conv2d", "linear", "rule"]
