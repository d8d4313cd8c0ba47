"""What every result file states: date, machine and versions."""

from __future__ import annotations

import json
import platform
from datetime import date
from pathlib import Path

import torch

import imbdyn


def write_report(path: Path, **results: object) -> None:
    """Write `results` to a JSON file, after what they were measured on."""
    machine = {"processor": _processor(), "threads": torch.get_num_threads(), "system": platform.platform()}
    versions = {"torch": torch.__version__, "imbdyn": imbdyn.__version__, "python": platform.python_version()}
    report = {"date": date.today().isoformat(), "machine": machine, "versions": versions, **results}
    path.write_text(json.dumps(report, indent=1) + "\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
