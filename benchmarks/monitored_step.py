"""What does a monitored training step cost beside the bare one?

`imbdyn bench steps`, for a result file and with more time: see imbdyn/bench/steps.py and imbdyn/bench/networks.py.
benchmarks/budget.py asks what a whole training under a budget costs, benchmarks/peers.py what other tools do.

    python benchmarks/monitored_step.py [--json benchmarks/results/monitored_step.json]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from imbdyn.bench.report import write_report
from imbdyn.bench.steps import STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="time for each line (default: 30)")
    parser.add_argument("--cases", default="", help="only those whose name contains this")
    parser.add_argument("--json", type=Path, help="also write the medians to this file")
    options = parser.parse_args()
    results = STEPS.run(STEPS.matching(options.cases), options.seconds, partial(print, flush=True))
    if options.json:
        write_report(options.json, **STEPS.as_json(results))


if __name__ == "__main__":
    main()
