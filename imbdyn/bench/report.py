"""What every result states: date, machine and versions."""

from __future__ import annotations

import json
import platform
import textwrap
from datetime import date
from pathlib import Path
from typing import Any

import torch

import imbdyn
from imbdyn.bench.suite import WIDTH
from imbdyn.ops import _extension
from imbdyn.report.machine import cpu_model


def report(**results: object) -> dict[str, Any]:
    """Return `results`, as JSON can hold them, after what they were measured on; what is not there is None."""
    kernels = _extension.kernels
    return {
        "date": date.today().isoformat(),
        "machine": {
            "processor": cpu_model(),
            "threads": torch.get_num_threads(),
            "instruction_set": None if kernels is None else kernels.active_isa(),
            "system": platform.platform(),
        },
        "versions": {
            "torch": torch.__version__,
            "imbdyn": imbdyn.__version__,
            "python": platform.python_version(),
            "compiler": None if kernels is None else kernels.compiler,
        },
        **results,
    }


def write_report(path: Path, **results: object) -> None:
    """Write `report(**results)` to a JSON file."""
    path.write_text(json.dumps(report(**results), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def measured_on() -> str:
    """Say what machine and versions a table is of."""
    stated = report()
    machine, versions = stated["machine"], stated["versions"]
    kernels = f"{machine['instruction_set']} kernels by {versions['compiler']}"
    return textwrap.fill(
        f"{machine['processor']}, {machine['threads']} threads, torch {versions['torch']}, "
        f"imbdyn {versions['imbdyn']}, {kernels if versions['compiler'] else 'no compiled kernels'}",
        WIDTH,
    )
