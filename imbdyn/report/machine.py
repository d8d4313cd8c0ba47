"""What a machine offers to imbdyn: versions, processor, GPU, and the implementations of each op."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from imbdyn import __version__
from imbdyn.ops import _extension
from imbdyn.ops._library import IMPLEMENTATIONS, serving

_PACKAGES = ("torch", "triton", "numpy", "pyarrow", "pandas", "scikit-learn")
_DEVICES = ("cpu", "cuda")


def machine() -> dict[str, Any]:
    """Return what a bug report needs, as JSON can hold it; what is not there is None."""
    return {
        "imbdyn": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "cpu": {
            "model": cpu_model(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "kernels": {
            "instruction_set": None if _extension.kernels is None else _extension.kernels.active_isa(),
            "why_missing": _extension.why_missing or None,
        },
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "ops": {op: _op(op) for op in sorted({implementation.op for implementation in IMPLEMENTATIONS})},
    }


def show_machine(out: Console, found: dict[str, Any]) -> None:
    """Print what `machine` returned."""
    cpu, kernels = found["cpu"], found["kernels"]
    packages = ", ".join(f"{name} {version or 'not installed'}" for name, version in found["packages"].items())
    for name, value in (
        ("imbdyn", f"{found['imbdyn']}, Python {found['python']}"),
        ("packages", packages),
        ("system", found["system"]),
        ("CPU", f"{cpu['model']}, {cpu['cores']} cores, {cpu['threads']} threads"),
        ("kernels", kernels["why_missing"] or f"C++ for {kernels['instruction_set']}"),
        ("GPU", found["gpu"] or "none that torch can use"),
    ):
        out.print(f"{name:<10}{value}", markup=False)
    table = Table(box=None, pad_edge=False, header_style="underline")
    for column in ("op", "implementation", "serves", "made of, or why not"):
        table.add_column(column, overflow="fold")
    for op, entry in found["ops"].items():
        for position, implementation in enumerate(entry["implementations"]):
            table.add_row(
                op if position == 0 else "",
                implementation["name"],
                ", ".join(implementation["serves"]) or "-",
                implementation["why_not"] or implementation["detail"],
            )
    out.print()
    out.print(table, markup=False)


def cpu_model() -> str:
    """Return the processor's name; Linux has it in a file, elsewhere the platform module knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _op(op: str) -> dict[str, Any]:
    serves = {device: serving(op, device) for device in _DEVICES}
    return {
        **{device: implementation.name for device, implementation in serves.items()},
        "implementations": [
            {
                "name": i.name,
                "device": i.device,
                "detail": i.detail,
                "serves": (here := [device for device in _DEVICES if serves[device] is i]),
                "why_not": i.why_not or (None if here else "another one is preferred on every device"),
            }
            for i in IMPLEMENTATIONS
            if i.op == op
        ],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
