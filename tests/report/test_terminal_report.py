from __future__ import annotations

import io
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from findings.synthetic_traces import curve_reaching, write_trace
from report.growing_runs import GrowingRun

from imbdyn.findings import Finding, single
from imbdyn.report import judge, records, report_console, show_findings, show_runs
from imbdyn.report.terminal import WIDTH
from imbdyn.trace import Trace, open_trace


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


def test_a_row_holds_what_the_trace_says(imbalanced: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    rows = [line.split() for line in printed(imbalanced).splitlines()]
    none = ["-", "-"]  # no shares are in this trace
    assert ["0", "120", "1", "1.00", "██████████", "0.98", "0.02", *none, "1.5", "19.5", "0.20"] in rows
    assert ["*", "2", "6", "12", "1.00", "▁▁▁▁▁▅████", "0.50", "0.50", *none, "1.5", "19.5", "2.20"] in rows
    assert ["others", "(2)", "120", "1.5", "1.00", "▇█████████", "0.99", "0.01", *none, "1.5", "19.5", "0.70"] in rows


def columns(line: str) -> int:
    """Columns of a terminal that a line takes: two a letter of East Asian scripts, and no emoji is used here."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in line)


@pytest.mark.parametrize("width", [None, 80, 100, 120, 160])
@pytest.mark.parametrize("colour", [False, True])
def test_every_line_fits_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int | None, colour: bool
) -> None:
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
    if colour:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
    names = ["鯨" * 9, "b" * 40, "小さい猫"]
    counts = [1_234_567, 120, 6]
    trace = write_trace(
        tmp_path / "run", counts, [curve_reaching(e, 30) for e in (1, 2, 12)], [0.9] * 3, class_names=names
    )
    text = printed(trace)
    assert ("\x1b[1;36m" in text) == colour
    lines = re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()
    # all but the path, which is left whole
    widths = {columns(line.rstrip()) for line in lines if str(trace.path) not in line}
    assert max(widths) <= (width or WIDTH)
    assert max(widths) >= min(width or WIDTH, 100) - 6
    assert all(any(cell in line for line in lines) for cell in ("1234567", "鯨鯨鯨", "小さい猫"))


@pytest.mark.parametrize(("width", "shown"), [("80", False), ("99", False), ("100", True), ("160", True)])
def test_a_wider_terminal_shows_norms_too(
    imbalanced: Trace, monkeypatch: pytest.MonkeyPatch, width: str, shown: bool
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert ("19.5" in printed(imbalanced)) == shown
    assert ("row norm:" in " ".join(printed(imbalanced).split())) == shown


@pytest.mark.parametrize("width", ["", "20", "0", "wide"])
def test_it_is_no_narrower_than_80_columns(imbalanced: Trace, monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    usual = printed(imbalanced)
    monkeypatch.setenv("COLUMNS", width)
    assert printed(imbalanced) == usual


def test_curves_and_shares_are_those_of_the_trace(tmp_path: Path) -> None:
    run = GrowingRun(tmp_path / "run")
    run.epoch([0.0, 0.5, 0.25, 1.0], [0.5, 0.25, 0.125, 0.125])
    run.epoch([1.0, 0.5, 0.75, 1.0], [0.75, 0.5, -0.25, 9.0], absent=[3])
    run.writer.close("finished")
    lines = [line.rstrip() for line in printed(open_trace(tmp_path / "run")).splitlines()]
    table = [line for line in lines if line[:3] in ("  c", "* c", "* r", "  o")]
    assert table == [
        "  c0           120     2   1.00 ▁█            0.50  0.50  0.50  0.75 ▄▄▅▅",
        "  c1           120     1   0.50 ▅▅            0.25  0.25  0.25  0.50 ▂▂▄▄",
        "* c2             6     2   0.75 ▃▇            0.38  0.38  0.12 -0.25 ▁▁--",
        "* c3             6     1   1.00 ██            0.50  0.50  0.12     - ▁▁",
        "* rare (2)       6   1.5   0.88 ▆█            0.44  0.44  0.25 -0.25 ▂▂--",
        "  others (2)   120   1.5   0.75 ▃▇            0.38  0.38  0.75  1.25 ▅▅██",
    ]


def test_without_blocks_in_the_encoding_curves_are_digits(imbalanced: Trace) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show_runs(report_console(file), [imbalanced])
    file.seek(0)
    assert "* 2              6    12   1.00 00000599999" in file.read()


def test_a_name_that_the_encoding_has_not_is_no_error(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run", [120, 120], [[1.0] * 5] * 2, class_names=["Kätzchen" * 9, "b"])
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show_runs(report_console(file), [trace])
    file.seek(0)
    assert "  K?tzchenK" in file.read()


def test_cost_is_read_from_the_run(imbalanced: Trace) -> None:
    assert "added 12.5% to the time of training; 20 of 200 steps" in " ".join(printed(imbalanced).split())


def test_a_class_that_never_got_there_has_a_dash(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run", [120, 6], [curve_reaching(1, 5), curve_reaching(None, 5)])
    row = next(line for line in printed(trace).splitlines() if line.startswith("* 1"))
    assert row.split()[:8] == ["*", "1", "6", "-", "0.00", "▁▁▁▁▁", "-", "-"]


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


def test_beyond_20_classes_groups_are_shown(tmp_path: Path) -> None:
    counts = [500, 500, 300, *[60] * 10, *[5] * 8]
    train = [[0.0, 1.0]] * 3 + [[0.5, 0.5]] * 10 + [[0.0, 0.25]] * 8
    run = GrowingRun(tmp_path / "run", counts)
    for epoch in (0, 1):
        run.epoch([curve[epoch] for curve in train], [0.125] * 3 + [0.025] * 10 + [0.046875] * 8, absent=[20] * epoch)
    run.writer.close("finished")
    text = printed(open_trace(tmp_path / "run"))
    assert [line.rstrip() for line in text.splitlines() if re.match(r"[ *] (few|medium|many) ", line)] == [
        "* few (8)         5     -   0.25 ▁▃           0.12  0.12  0.38  0.33 ████",
        "  medium (10)    60   1.0   0.50 ▅▅           0.25  0.25  0.25  0.25 ▆▆▆▆",
        "  many (3)      433   2.0   1.00 ▁█           0.50  0.50  0.38  0.38 ████",
    ]
    assert "few-shot, fewer than 20; medium-shot, 20 to 100; many-shot, more than 100" in " ".join(text.split())
    assert "c0" not in text


@pytest.mark.parametrize(("classes", "rows"), [(20, 20), (21, 0)])
def test_up_to_20_classes_have_a_row_each(tmp_path: Path, classes: int, rows: int) -> None:
    text = printed(write_trace(tmp_path / "run", [120] * classes, [[1.0] * 5] * classes))
    assert sum(bool(re.match(r"  \d+ ", line)) for line in text.splitlines()) == rows
    assert (f"many ({classes})" in text) == (not rows)


def test_what_is_rounded_to_zero_is_not_negative(tmp_path: Path) -> None:
    run = GrowingRun(tmp_path / "run")
    run.epoch([1.0] * 4, [-0.001, 0.5, 0.25, 0.25])
    run.writer.close("finished")
    assert "-0.00" not in printed(open_trace(tmp_path / "run"))


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


def test_records_keep_their_fields_and_have_shares_besides(imbalanced: Trace) -> None:
    (run,) = records([imbalanced])["runs"]
    assert list(run) == ["path", "status", "train_split", "test_split", "rare_rule", "overhead", "warned", "classes"]
    assert list(run["classes"][0]) == [
        *("class_id", "name", "rare", "count", "epoch_learned", "train_recall", "test_recall", "gap"),
        *("grad_norm_early", "grad_norm_late", "row_norm", "grad_share_early", "grad_share_late"),
    ]


def test_what_was_warned_of_while_it_ran_is_shown(imbalanced: Trace) -> None:
    assert "Warned" not in printed(imbalanced)
    imbalanced.run["problems"] = {
        "not finite": {"message": "the gradient of head.weight is not finite at step 61", "times": 34},
        "coverage": {"message": "class gradients cover 50%", "times": 1},
        "a stranger's": 7,
    }
    text = printed(imbalanced)
    assert "Warned: the gradient of head.weight is not finite at step 61 (34 times).\n" in text
    assert "Warned: class gradients cover 50%.\n" in text
    assert "Warned: a stranger's.\n" in text


def test_a_run_without_a_step_has_no_share_of_its_time(imbalanced: Trace) -> None:
    assert "Instrumentation added" in printed(imbalanced)
    imbalanced.run["overhead"] = {"share": 0.836, "sampled_steps": 0, "steps": 0}
    assert "Instrumentation added" not in printed(imbalanced)
    assert "No step was trained." in printed(imbalanced)
