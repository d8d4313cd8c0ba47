from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from findings.synthetic_traces import curve_reaching, write_trace

from imbdyn.findings import Finding, single
from imbdyn.report import judge, records, report_console, show_findings, show_runs
from imbdyn.report.terminal import WIDTH
from imbdyn.trace import Trace


def printed(*traces: Trace) -> str:
    file = io.StringIO()
    out = report_console(file)
    show_runs(out, traces)
    for trace in traces:
        show_findings(out, "The claims", single(trace))
    return file.getvalue()


@pytest.fixture
def imbalanced(tmp_path: Path) -> Trace:
    return write_trace(
        tmp_path / "imbalanced",
        [120, 120, 6],
        [curve_reaching(1, 20), curve_reaching(2, 20), curve_reaching(12, 20)],
        [0.98, 1.0, 0.5],
    )


def test_a_row_holds_what_the_trace_says(imbalanced: Trace) -> None:
    rows = [line.split() for line in printed(imbalanced).splitlines()]
    assert ["0", "120", "1", "1.00", "0.98", "0.02", "1.5", "19.5", "0.20"] in rows
    assert ["*", "2", "6", "12", "1.00", "0.50", "0.50", "1.5", "19.5", "2.20"] in rows
    assert ["mean", "of", "rest", "120", "1.5", "1.00", "0.99", "0.01", "1.5", "19.5", "0.70"] in rows


def test_every_line_fits_and_the_table_fills_80_columns(imbalanced: Trace) -> None:
    # all but the path, which is left whole
    lengths = [len(line.rstrip()) for line in printed(imbalanced).splitlines() if str(imbalanced.path) not in line]
    assert max(lengths) <= WIDTH
    table = [line for line in printed(imbalanced).splitlines() if line.startswith("* 2 ")]
    assert len(table[0]) == WIDTH


def test_cost_is_read_from_the_run(imbalanced: Trace) -> None:
    assert "added 12.5% to the time of training; 20 of 200 steps" in " ".join(printed(imbalanced).split())


def test_a_class_that_never_got_there_has_a_dash(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run", [120, 6], [curve_reaching(1, 5), curve_reaching(None, 5)])
    row = next(line for line in printed(trace).splitlines() if line.startswith("* 1"))
    assert row.split()[:7] == ["*", "1", "6", "-", "0.00", "-", "-"]


def test_class_names_are_text_not_markup_nor_escape_sequences(tmp_path: Path) -> None:
    names = ["[red]cat[/red]", "\x1b[31mdog", "[/]"]
    trace = write_trace(tmp_path / "run", [120, 120, 120], [[1.0] * 5] * 3, class_names=names)
    text = printed(trace)
    assert "[red]cat[/red]" in text
    assert "\x1b" not in text
    assert "[/]" in text


def test_a_long_class_name_is_cut_and_numbers_are_not(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run", [120_000, 120_000], [[1.0] * 5] * 2, class_names=["n" * 60, "b"])
    row = next(line for line in printed(trace).splitlines() if "nnn" in line)
    assert len(row) == WIDTH
    assert "120000" in row


def test_many_classes_show_the_largest_and_the_smallest(tmp_path: Path) -> None:
    counts = list(range(1000, 940, -1))
    text = printed(write_trace(tmp_path / "run", counts, [[1.0] * 5] * 60))
    assert "(20 more)" in text
    shown = [int(line.split()[1]) for line in text.splitlines() if line.startswith("  ") and line.split()[0].isdigit()]
    assert shown == counts[:20] + counts[-20:]


def test_no_color_leaves_the_mark_and_no_escape(imbalanced: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1;32m" in printed(imbalanced) or "\x1b[1;31m" in printed(imbalanced)
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(imbalanced)
    assert "\x1b[1;3" not in text
    assert "* 2" in text


def claimed(traces: list[Trace]) -> int:
    """How often the claims are judged on these runs."""
    return sum(title.startswith("The three claims") for title, _ in judge(traces))


def test_three_runs_of_one_experiment_are_judged_together(tmp_path: Path) -> None:
    traces = [
        write_trace(tmp_path / name, [9, 9], [[1.0]] * 2, config={"experiment": {"seed": 1}, "run": name})
        for name in ("scarce", "imbalanced", "balanced")
    ]
    titles = [title for title, _ in judge(traces)]
    assert titles == ["The three claims on these runs (arXiv 2605.24908)", "What else the imbalanced run shows"]
    assert claimed(traces[:2]) == 2
    assert dict(judge(traces))[titles[1]][0].beside == {"balanced": None, "scarce": None}


def test_a_run_with_a_method_stands_beside_an_experiment(tmp_path: Path) -> None:
    experiment = {"experiment": {"seed": 1}}
    traces = [
        write_trace(tmp_path / name, [9, 9], [[1.0]] * 2, config=experiment | {"run": name})
        for name in ("scarce", "imbalanced", "balanced")
    ]
    method = experiment | {"run": "imbalanced", "method": "logit_adjustment"}
    traces.append(write_trace(tmp_path / "adjusted", [9, 9], [[1.0]] * 2, config=method))
    titles = [title for title, _ in judge(traces)]
    assert titles[0] == "The three claims on these runs (arXiv 2605.24908)"
    assert titles[2] == "The three claims on adjusted alone (arXiv 2605.24908)"


def test_other_findings_are_a_line_or_two_with_the_runs_beside() -> None:
    found = Finding(
        name="row_rotation",
        claim="",
        value=0.00351,
        sentence="Rows [of] rare classes turn by 0.0035 rad a step, those of others by 0.0032 rad (p = 0.508).",
        beside={"balanced": 0.0, "scarce": None},
    )
    step = Finding(name="more_samples", kind="next step", claim="", sentence="Try more samples of them. " * 5)
    file = io.StringIO()
    out = report_console(file)
    show_findings(out, "What else it shows", [found, replace(found, name="nc4", value=None, sentence="No features.")])
    show_findings(out, "What may be tried next", [step])
    assert file.getvalue().splitlines() == [
        "",
        "What else it shows [balanced, scarce]",
        "row rotation 0.0035 [0.00, -]: Rows [of] rare classes turn by 0.0035 rad a step,",
        "  those of others by 0.0032 rad (p = 0.508).",
        "Without a value (trace.findings() says why): nc4.",
        "",
        "What may be tried next",
        "- Try more samples of them. Try more samples of them. Try more samples of them.",
        "  Try more samples of them. Try more samples of them.",
    ]


def test_runs_of_different_experiments_are_judged_alone(tmp_path: Path) -> None:
    traces = [
        write_trace(tmp_path / name, [9, 9], [[1.0]] * 2, config={"experiment": {"seed": seed}, "run": name})
        for seed, name in enumerate(("balanced", "imbalanced", "scarce"))
    ]
    assert claimed(traces) == 3


def test_records_have_none_where_the_trace_has_nothing(tmp_path: Path) -> None:
    found = records([write_trace(tmp_path / "run", [120, 6], [curve_reaching(1, 5), curve_reaching(None, 5)])])
    common, rare = found["runs"][0]["classes"]
    assert (common["class_id"], common["epoch_learned"], common["rare"]) == (0, 1.0, False)
    assert (rare["epoch_learned"], rare["gap"], rare["rare"]) == (None, None, True)
    assert found["findings"][0]["name"] == "alike_when_balanced"
