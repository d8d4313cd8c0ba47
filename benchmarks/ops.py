"""What does each op cost on this machine, beside the floor and beside plain torch?

`imbdyn bench ops`, for a result file: the cases are in imbdyn/bench/op_cases.py, the table says what the floor is.

    python benchmarks/ops.py [--json benchmarks/results/ops.json]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from imbdyn.bench.ops import OPS
from imbdyn.bench.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2, help="time for each line (default: 2)")
    parser.add_argument("--cases", default="", help="only those whose name contains this")
    parser.add_argument("--json", type=Path, help="also write the medians to this file")
    options = parser.parse_args()
    results = OPS.run(OPS.matching(options.cases), options.seconds, partial(print, flush=True))
    if options.json:
        write_report(options.json, **OPS.as_json(results))


if __name__ == "__main__":
    main()
