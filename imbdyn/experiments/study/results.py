"""What the traces of a study say of each experiment: a row a claim, in one Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from imbdyn.experiments.study.plan import Planned
from imbdyn.findings import claims, per_class
from imbdyn.findings.recall import held_out_split
from imbdyn.trace import Trace, open_trace
from imbdyn.trace._files import whole_file
from imbdyn.trace._store import below, filesystem_of, is_remote, shown

RESULTS_FILE = "results.parquet"

#: The measure beside the claims: what of the gap of the rare classes is not due to their few samples.
BEYOND_SCARCITY = "gap_beyond_scarcity"

_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("cell", pa.string(), "folder of the experiment's traces, below the study's"),
    ("group", pa.string(), "what the experiments of one table have in common: all but seed and imbalance"),
    ("data", pa.string(), "data.name"),
    ("model", pa.string(), "model.name"),
    ("method", pa.string(), "method.name"),
    ("profile", pa.string(), "imbalance.profile"),
    ("imbalance", pa.string(), "the section [imbalance], as JSON"),
    ("seed", pa.int64(), "seed"),
    ("ir", pa.float64(), "imbalance ratio: largest over smallest class count of the imbalanced run"),
    ("measure", pa.string(), "name of the claim, or gap_beyond_scarcity: the rare classes' gap between train and test "
     "recall in the imbalanced run minus that of the same classes in the scarce run"),
    ("claim", pa.string(), "the claim in words"),
    ("value", pa.float64(), "effect size, in `unit`; null where the runs do not have it"),
    ("unit", pa.string(), "unit of value, lower, upper and threshold"),
    ("lower", pa.float64(), "95% interval of this experiment alone, where the claim has one"),
    ("upper", pa.float64(), "95% interval of this experiment alone, where the claim has one"),
    ("threshold", pa.float64(), "what the claim is judged against; null for what is no claim"),
    ("verdict", pa.string(), "of this experiment alone: supported, refuted, not decided"),
    ("rare_train_recall", pa.float64(), "mean train recall of the rare classes, last epoch, imbalanced run"),
    ("rare_unlearned", pa.int64(), "rare classes that never reached 50% train recall in the imbalanced run"),
    ("test_error", pa.float64(), "1 - accuracy of the imbalanced run on held-out data, last epoch"),
    ("best_test_error", pa.float64(), "the lowest test_error of any epoch, as LDAM's code reports it: chosen on test"),
    ("balanced_test_error", pa.float64(), "1 - mean recall of the classes on held-out data, last epoch"),
    ("config", pa.string(), "the experiment's configuration, as JSON"),
    ("balanced", pa.string(), "where the trace of the balanced run is"),
    ("imbalanced", pa.string(), "where the trace of the imbalanced run is"),
    ("scarce", pa.string(), "where the trace of the scarce run is"),
)  # fmt: skip

SCHEMA = pa.schema(
    [pa.field(name, kind, metadata={"description": text}) for name, kind, text in _COLUMNS],
    metadata={"imbdyn.study": "1"},
)


def results(planned: Iterable[Planned]) -> pa.Table:
    """Return the rows of all experiments whose runs are finished.

    Raises: TraceError if a trace cannot be read.
    """
    rows: list[dict[str, Any]] = []
    for cell in planned:
        traces = {name: open_trace(str(task.out)).frozen() for name, task in cell.tasks.items()}
        if all(trace.run["status"] == "finished" for trace in traces.values()):
            rows += _rows(cell, traces)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write_results(table: pa.Table, folder: str | Path) -> str:
    """Write the rows into the study's folder, a path or a URI, and return what messages call the file."""
    place = below(folder, RESULTS_FILE)
    filesystem, path = filesystem_of(place)
    if is_remote(place):
        with filesystem.open_output_stream(path) as file:
            pq.write_table(table, file)
    else:
        with whole_file(Path(path)) as file:
            pq.write_table(table, file)
    return shown(place)


def _rows(cell: Planned, traces: Mapping[str, Trace]) -> list[dict[str, Any]]:
    config, imbalanced = cell.cell.config.as_dict(), cell.tasks["imbalanced"].run
    classes = per_class(traces["imbalanced"])
    rare = classes[classes["rare"]]
    common = {
        "cell": cell.cell.label,
        "group": _group(config),
        "data": config["data"]["name"],
        "model": config["model"]["name"],
        "method": config["method"]["name"],
        "profile": config["imbalance"]["profile"],
        "imbalance": json.dumps(config["imbalance"], sort_keys=True),
        "seed": config["seed"],
        "ir": max(imbalanced.class_counts) / min(imbalanced.class_counts),
        "rare_train_recall": float(rare["train_recall"].mean()),
        "rare_unlearned": int(rare["epoch_learned"].isna().sum()),
        **_test_errors(traces["imbalanced"]),
        "config": json.dumps(config, sort_keys=True),
        **{name: shown(task.out) for name, task in cell.tasks.items()},
    }
    rows = [
        {
            **common,
            "measure": finding.name,
            "claim": finding.claim,
            "value": finding.value,
            "unit": finding.unit,
            "lower": finding.lower,
            "upper": finding.upper,
            "threshold": finding.threshold,
            "verdict": finding.verdict,
        }
        for finding in claims(traces)
    ]
    scarce = per_class(traces["scarce"])
    beyond = float(rare["gap"].mean() - scarce.loc[rare.index, "gap"].mean())
    words = "What of the rare classes' gap is left when the same classes are as scarce in balanced data."
    return [*rows, {**common, "measure": BEYOND_SCARCITY, "claim": words, "value": _known(beyond), "unit": "recall"}]


def _group(config: Mapping[str, Any]) -> str:
    """Return, as JSON, what experiments have in common that differ in seed and imbalance only."""
    kept = {key: value for key, value in config.items() if key not in ("seed", "imbalance")}
    return json.dumps({**kept, "imbalance": {"profile": config["imbalance"]["profile"]}}, sort_keys=True)


def _test_errors(trace: Trace) -> dict[str, float | None]:
    steps = trace.steps
    tested = steps[steps["split"] == held_out_split(trace)].sort_values("step")
    if tested.empty:
        return {"test_error": None, "best_test_error": None, "balanced_test_error": None}
    return {
        "test_error": _known(1.0 - float(tested["accuracy"].iloc[-1])),
        "best_test_error": _known(1.0 - float(tested["accuracy"].max())),
        "balanced_test_error": _known(1.0 - float(tested["balanced_accuracy"].iloc[-1])),
    }


def _known(value: float) -> float | None:
    return None if pd.isna(value) else value
