"""The trace of a run: one folder of Parquet tables and a run.json, written while the model trains.

The format is described in docs/trace-format.md; `schema` names every table and column.
"""

from imbdyn.trace._damage import TraceDamage
from imbdyn.trace._rows import Names, Nullable
from imbdyn.trace.live import LiveTrace
from imbdyn.trace.reader import Trace
from imbdyn.trace.run_file import NoTraceError, TraceError
from imbdyn.trace.several import TraceSet, open_trace
from imbdyn.trace.writer import TraceWriter

__all__ = [
    "LiveTrace",
    "Names",
    "NoTraceError",
    "Nullable",
    "Trace",
    "TraceDamage",
    "TraceError",
    "TraceSet",
    "TraceWriter",
    "open_trace",
]
