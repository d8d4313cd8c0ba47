"""The object in the training loop: it counts steps, decides what to read, and hands the numbers to the trace."""

from imbdyn.monitor.monitor import Monitor
from imbdyn.monitor.problems import ImbdynWarning

__all__ = ["ImbdynWarning", "Monitor"]
