"""What each op costs beside its floor and beside plain torch (`op_cases` says what these are)."""

from __future__ import annotations

import statistics
from time import perf_counter

import torch

from imbdyn.bench.op_cases import CASES, Case
from imbdyn.bench.suite import Measured, Suite, duration, ratio
from imbdyn.ops._library import IMPLEMENTATIONS, serving

#: The medians are of at least so many rounds.
LEAST_ROUNDS = 5


def measure(case: Case, seconds: float) -> Measured:
    """Return median microseconds of floor, op and plain torch.

    They are timed in turn for about `seconds`, so that their ratios hold on a noisy machine.
    """
    for function in case:
        function()
    times: dict[str, list[float]] = {name: [] for name in Case._fields}
    end = perf_counter() + seconds
    while len(times["op"]) < LEAST_ROUNDS or perf_counter() < end:
        for name, function in zip(Case._fields, case, strict=True):
            start = perf_counter()
            function()
            times[name].append(1e6 * (perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def _measure(name: str, seconds: float) -> Measured:
    torch.manual_seed(0)
    return measure(CASES[name](), seconds)


def _line(name: str, us: Measured) -> str:
    over_floor, over_plain = ratio(us["op"] / us["floor"]), ratio(us["op"] / us["plain"])
    return f"{name:<42}{duration(1e-6 * us['op']):>10}{over_floor:>11}{over_plain:>15}"


def _as_json(results: dict[str, Measured]) -> dict[str, object]:
    served = sorted({implementation.op for implementation in IMPLEMENTATIONS})
    return {"serves": {op: serving(op, "cpu").detail for op in served}, "median_us": results}


OPS = Suite(
    names=tuple(CASES),
    measure=_measure,
    heading=f"{'op':<42}{'time':>10}{'/ floor':>11}{'/ plain torch':>15}",
    line=_line,
    legend=(
        "time: median of a call, then as a ratio to the floor and to plain torch. floor: torch's own time for one "
        "read of the inputs (sum); for class_gram its two products A A^T and D D^T, for tokens (32 samples of 128) and "
        "images (3x3 kernels) one weight gradient. plain torch: the same numbers without imbdyn; for class_logits only "
        "F.cross_entropy, one number of eight a class. N samples, D features, C classes, R rows, I inputs, O outputs."
    ),
    as_json=_as_json,
)
