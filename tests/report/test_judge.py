"""Which runs are judged together, by what, and beside which."""

from __future__ import annotations

from pathlib import Path

import pytest
from findings.synthetic_traces import write_trace

from imbdyn.report.judge import judged
from imbdyn.trace import Trace

ROLES = ("balanced", "imbalanced", "scarce")
COUNTS = {"balanced": [120] * 4, "imbalanced": [120, 120, 6, 6], "scarce": [6] * 4}


def experiment(folder: Path, method: str, test: float) -> list[Trace]:
    """The three runs of an experiment; the rare classes' test recall in the imbalanced one is given."""
    return [
        write_trace(
            folder / role,
            COUNTS[role],
            [[1.0, 1.0]] * 4,
            [1.0, 1.0, test, test],
            config={
                "experiment": {"method": {"name": method}},
                "run": role,
                "class_counts": COUNTS[role],
                "rare_classes": [2, 3],
            },
        )
        for role in ROLES
    ]


@pytest.mark.parametrize("method", ["cross_entropy", "ldam"])
def test_an_experiment_is_judged_by_its_three_runs_whatever_its_method(tmp_path: Path, method: str) -> None:
    told = judged(experiment(tmp_path, method, 0.5))
    assert [one.title for one in told][:2] == [
        "The three claims on these runs (arXiv 2605.24908)",
        "What else the imbalanced run shows",
    ]
    assert {one.trace.path.name for one in told} == {"imbalanced"}


def test_two_experiments_are_judged_apart_and_named_by_their_folders(tmp_path: Path) -> None:
    traces = experiment(tmp_path / "ce", "cross_entropy", 0.5) + experiment(tmp_path / "la", "logit_adjustment", 0.8)
    titles = [one.title for one in judged(traces) if one.title.startswith("The three")]
    assert titles == [
        "The three claims on ce/imbalanced, balanced and scarce (arXiv 2605.24908)",
        "The three claims on la/imbalanced, balanced and scarce (arXiv 2605.24908)",
    ]
    assert all(len(one.findings) for one in judged(traces))


def test_runs_that_make_no_experiment_are_judged_alone_under_names_that_differ(tmp_path: Path) -> None:
    traces = [experiment(tmp_path / name, name, 0.5)[1] for name in ("focal", "ldam")]
    assert [one.title for one in judged(traces) if one.title.startswith("The three")] == [
        "The three claims on focal/imbalanced alone (arXiv 2605.24908)",
        "The three claims on ldam/imbalanced alone (arXiv 2605.24908)",
    ]
    twice = experiment(tmp_path / "a", "focal", 0.5) + experiment(tmp_path / "b", "focal", 0.5)
    assert sum("alone" in one.title for one in judged(twice)) >= 6, "two seeds of one name are no experiment"


def test_the_balanced_run_of_a_study_stands_beside_every_imbalance_ratio(tmp_path: Path) -> None:
    counts = {
        "seed-0/balanced": (2, [120] * 4),
        "ratio-2/imbalanced": (2, [120, 120, 60, 60]),
        "ratio-2/scarce": (2, [60] * 4),
        "ratio-20/imbalanced": (20, [120, 120, 6, 6]),
        "ratio-20/scarce": (20, [6] * 4),
        "less/imbalanced": (10, [60, 60, 6, 6]),
        "less/scarce": (10, [6] * 4),
    }
    traces = [
        write_trace(
            tmp_path / name,
            of_class,
            [[1.0, 1.0]] * 4,
            [1.0, 1.0, 0.5, 0.5],
            config={
                "experiment": {"method": {"name": "focal"}, "imbalance": {"ratio": ratio}},
                "run": name.rpartition("/")[2],
                "class_counts": of_class,
                "rare_classes": [2, 3],
            },
        )
        for name, (ratio, of_class) in counts.items()
    ]
    assert [one.title for one in judged(traces) if one.title.startswith("The three")] == [
        "The three claims on ratio-2/imbalanced, balanced and scarce (arXiv 2605.24908)",
        "The three claims on ratio-20/imbalanced, balanced and scarce (arXiv 2605.24908)",
        "The three claims on less/imbalanced alone (arXiv 2605.24908)",
        "The three claims on less/scarce alone (arXiv 2605.24908)",
    ], "the balanced run has other counts than the last experiment's would have"
    of_20 = next(one for one in judged(traces) if one.title.startswith("What else ratio-20"))
    assert all(set(finding.beside or {}) == {"balanced", "scarce"} for finding in of_20.findings)
