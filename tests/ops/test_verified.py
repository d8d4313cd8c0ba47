"""No GPU implementation is called verified without a committed result that shows it right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imbdyn.ops._verified import VERIFIED

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize(("op", "name"), VERIFIED)
def test_a_committed_result_shows_it_right(op: str, name: str) -> None:
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("gpu_*.json"))]
    for gpu in VERIFIED[op, name]:
        (result,) = [r for r in results if r["gpu"] == gpu]
        parity = result["parity"][f"{op}/{name}"]
        assert parity["failed"] == 0
        assert parity["passed"] > 0


def test_every_one_names_a_gpu() -> None:
    assert all(gpus for gpus in VERIFIED.values())
