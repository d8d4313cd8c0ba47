"""No GPU implementation is called verified without a committed result that shows it right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from imbdyn.ops._verified import VERIFIED

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize(("op", "name"), VERIFIED)
def test_a_committed_result_shows_it_right(op: str, name: str) -> None:
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("gpu_*.json"))]
    for gpu in VERIFIED[op, name]:
        (result,) = [r for r in results if r["gpu"] == gpu]
        assert result["parity"]["exit"] in (0, 1), "a run that was stopped shows nothing"
        parity = result["parity"][f"{op}/{name}"]
        assert parity["failed"] == 0
        assert parity["passed"] > 0


def test_every_one_names_a_gpu() -> None:
    assert all(gpus for gpus in VERIFIED.values())


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize(("wanted", "served_by"), [("0", {"portable", "reference"}), ("1", {"triton", "cuda"})])
def test_unverified_ones_serve_a_gpu_only_where_asked_for(wanted: str, served_by: set[str]) -> None:
    script = "import json; from imbdyn.ops._library import IMPLEMENTATIONS, serving\n" + (
        "print(json.dumps({i.op: serving(i.op, 'cuda').name for i in IMPLEMENTATIONS}))"
    )
    environment = os.environ | {"IMBDYN_UNVERIFIED": wanted}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    by_op = json.loads(done.stdout)
    verified = {op for op, _ in VERIFIED}
    assert len(by_op) == 5
    assert {name for op, name in by_op.items() if op not in verified} <= served_by
