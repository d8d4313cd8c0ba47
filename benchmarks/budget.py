"""What does a whole training under the default budget cost, and does run.json say so?

A bare and a monitored training take turns, step block by step block, in one process; the Monitor's clock stands still
while the bare one has its turn.

    realised     wall-clock time of the monitored training over the bare one's
    said         1 + overhead.share of run.json
    resolved     steps of a thousand that were resolved by class at that price
    of peers     what each peer could resolve for 1% of the training, from results/peers.json

A case takes long: with --json only what was measured replaces what the file holds.

    python benchmarks/budget.py [--json benchmarks/results/budget.json]
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path

import imbdyn
from imbdyn.bench.networks import CASES, TINY, Case
from imbdyn.bench.report import write_report
from imbdyn.bench.steps import Loop
from imbdyn.monitor import clocks

PEERS = Path(__file__).parent / "results" / "peers.json"
BUDGET = 0.01


class StoppableClock:
    """Seconds while it runs: the Monitor must not take the bare loop's turns for its own training time."""

    def __init__(self) -> None:
        self.stopped_for = 0.0

    def __call__(self) -> float:
        return time.perf_counter() - self.stopped_for


def measure(case: Case, seconds: float) -> dict[str, float]:
    clock = clocks.perf_counter = StoppableClock()  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        bare, monitored = Loop(case), Loop(case, Path(folder) / "run")
        bare.step()
        steps = 1 + int(0.1 / bare.seconds(2))
        bare_seconds = monitored_seconds = 0.0
        while bare_seconds < seconds:
            turn = bare.seconds(steps) * steps
            clock.stopped_for += turn
            bare_seconds += turn
            monitored_seconds += monitored.seconds(steps) * steps
        monitored.close()
        overhead = imbdyn.open_trace(Path(folder) / "run").run["overhead"]
    clocks.perf_counter = time.perf_counter
    return {
        "steps": overhead["steps"],
        "realised": monitored_seconds / bare_seconds,
        "said": 1 + overhead["share"],
        "resolved": 1000 * overhead["sampled_steps"] / overhead["steps"],
        "logits": 1000 * overhead["logits_steps"] / overhead["steps"],
    }


def affordable(case: str) -> dict[str, float]:
    """Return the steps of a thousand that each peer could resolve for the same budget."""
    ways = json.loads(PEERS.read_text())["cases"].get(case, {}) if PEERS.exists() else {}
    return {
        way: 1000 * min(1.0, BUDGET / (result["ratio"] - 1))
        for way, result in ways.items()
        if way not in ("bare", "imbdyn") and result.get("ratio", 0) > 1
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="bare seconds of the training of a case")
    parser.add_argument("--cases", default="", help="only those whose name matches this regular expression")
    parser.add_argument("--samples", type=int, help="batches of so many samples: more steps in the same time")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'':<34}{'steps':>7}{'realised':>10}{'said':>9}{'resolved':>10}   of peers")
    results = {}
    for name, case in (CASES | TINY).items():
        if re.search(options.cases, name):
            if options.samples is not None:
                case = case._replace(shape=(options.samples, *case.shape[1:]))
            r = measure(case, options.seconds)
            peers = affordable(name)
            results[name] = r | {"samples": case.shape[0], "of peers": peers}
            shown = ", ".join(f"{way} {count:.2g}" for way, count in peers.items())
            print(
                f"{name:<34}{r['steps']:>7}{r['realised']:>9.3f}x{r['said']:>8.3f}x{r['resolved']:>10.1f}   {shown}",
                flush=True,
            )
    if options.json:
        before = json.loads(options.json.read_text())["cases"] if options.json.exists() else {}
        write_report(options.json, cases=before | results)


if __name__ == "__main__":
    main()
