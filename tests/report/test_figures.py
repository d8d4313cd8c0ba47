from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from report import full_traces

from imbdyn.findings.intervals import wilson
from imbdyn.findings.recall import recall_curves
from imbdyn.report.figures import FIGURES, Lines, Matrix, NothingToDrawError, Source, Spans
from imbdyn.report.figures.chart import Axis, Series
from imbdyn.report.figures.compare import compare
from imbdyn.report.figures.summary import number, summary
from imbdyn.report.figures.thinning import thinned
from imbdyn.trace import Trace, TraceWriter, open_trace

COUNTS = [200, 150, 120, 110, 8, 5]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return full_traces.write_full(tmp_path_factory.mktemp("full") / "run", COUNTS)


@pytest.fixture
def source(trace: Trace) -> Source:
    return Source(trace)


def by_key(chart: Lines) -> dict[str, Series]:
    return {series.key: series for series in chart.series}


@pytest.mark.parametrize("name", FIGURES)
def test_every_choice_of_a_figure_draws_finite_numbers_within_its_axes(source: Source, name: str) -> None:
    choices = FIGURES[name].choices(source)
    assert all(values for values in choices.values())
    for key, values in {**choices, "": [""]}.items():
        for value in values:
            chart = FIGURES[name].chart(source, **({key: value} if key else {}))
            assert summary(chart).endswith(".")
            if isinstance(chart, Lines):
                assert chart.series
                for series in chart.series:
                    assert len(series.x) == len(series.y) > 0
                    assert np.isfinite(series.y).all()
                    assert not chart.y.log or (series.y > 0).all()


def test_recall_is_what_the_findings_read(source: Source, trace: Trace) -> None:
    for split in ("train_eval", "test"):
        chart = FIGURES["recall"].chart(source, split=split)
        curves, _ = recall_curves(trace, split)
        for class_id in range(len(COUNTS)):
            series = by_key(chart)[f"class {class_id}"]
            assert series.x.tolist() == curves.index.tolist()
            np.testing.assert_allclose(series.y, curves[class_id], rtol=1e-12)


def test_rare_classes_have_colours_and_are_drawn_last(source: Source) -> None:
    chart = FIGURES["recall"].chart(source)
    assert [series.key for series in chart.series] == [f"class {c}" for c in range(6)]
    assert [series.colour for series in chart.series] == [None] * 4 + [0, 1]
    assert [series.family for series in chart.series][-1] == "rare classes"


def test_epoch_means_are_over_the_sampled_steps_of_the_epoch(source: Source) -> None:
    rows = by_key(FIGURES["gradient_norms"].chart(source, over="epochs"))["class 2"]
    expected = [
        np.mean([full_traces.grad_norm(step, 6)[2] for step in (10 * epoch - 5, 10 * epoch)]) for epoch in range(1, 6)
    ]
    assert rows.x.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(rows.y, expected, rtol=1e-12)
    steps = by_key(FIGURES["gradient_norms"].chart(source, over="steps", parameter="head.weight"))["class 2"]
    assert steps.x.tolist() == list(range(5, 51, 5))
    np.testing.assert_allclose(steps.y, [full_traces.grad_norm(step, 6)[2] / 2 for step in steps.x], rtol=1e-12)


def test_shares_of_the_groups_are_sums_over_their_classes(source: Source) -> None:
    chart = by_key(FIGURES["gradient_shares"].chart(source, of="groups", over="steps"))
    rare, others = chart["group rare"], chart["group others"]
    np.testing.assert_allclose(rare.y + others.y, 1.0, rtol=1e-12)
    np.testing.assert_allclose(rare.y, [full_traces.grad_share(int(s), 6)[4:].sum() for s in rare.x], rtol=1e-12)


def test_a_cosine_is_the_mean_over_the_steps_of_its_moment(source: Source) -> None:
    chart = FIGURES["gradient_cosines"].chart(source)
    assert isinstance(chart, Matrix)
    assert chart.labels == ("c0", "c1", "c2", "c3", "c4", "c5")
    assert chart.frames[0] == "step 5"
    assert chart.values.shape == (10, 6, 6)
    assert chart.values[0, 0, 1] == chart.values[0, 1, 0] == pytest.approx(-0.5 + 5e-4)
    assert np.isnan(np.diagonal(chart.values, axis1=1, axis2=2)).all()
    assert (chart.counts[:, 0, 1] == 1).all()


def test_classes_that_were_never_together_have_no_cosine(tmp_path: Path) -> None:
    trace = full_traces.write_full(tmp_path / "run", COUNTS, present=2, epochs=20, steps_per_epoch=10)
    chart = FIGURES["gradient_cosines"].chart(Source(trace))
    assert chart.values.shape[0] == 20
    assert chart.frames[0] == "steps 5 to 10 (2 sampled)"
    assert (np.isnan(chart.values) == (chart.counts == 0)).all()
    assert np.isnan(chart.values).any()


def test_gap_has_wilsons_interval_of_held_out_recall(source: Source) -> None:
    chart = FIGURES["gap"].chart(source)
    assert isinstance(chart, Spans)
    assert [span.label for span in chart.spans] == ["c5", "c4", "c3", "c2", "c1", "c0"]
    expected = wilson(full_traces.recall(5, 6, "test")[5], 20)
    assert (chart.spans[0].end, chart.spans[0].lower, chart.spans[0].upper) == pytest.approx(expected)
    assert chart.spans[0].start == full_traces.recall(5, 6, "train_eval")[5]


def test_many_classes_are_bands_of_groups(tmp_path: Path) -> None:
    counts = [500] * 30 + [50] * 20 + [5] * 10
    source = Source(full_traces.write_full(tmp_path / "run", counts))
    chart = FIGURES["recall"].chart(source, split="test")
    assert [series.label for series in chart.series] == [
        "many-shot, more than 100 samples, 30 classes",
        "medium-shot, 20 to 100 samples, 20 classes",
        "few-shot, fewer than 20 samples, 10 classes",
    ]
    few = chart.series[-1]
    values = full_traces.recall(5, 60, "test")[50:]
    assert few.lower is not None
    assert few.upper is not None
    np.testing.assert_allclose(
        [few.lower[-1], few.y[-1], few.upper[-1]], np.quantile(values, [0.1, 0.5, 0.9]), rtol=1e-12
    )
    assert "10% to their 90% quantile" in chart.notes[0]
    matrix = FIGURES["gradient_cosines"].chart(source)
    assert len(matrix.labels) == 50
    assert matrix.notes == ("Of 60 classes the 25 with the most and the 25 with the fewest samples are shown.",)


def test_thinning_keeps_every_extreme_and_both_ends() -> None:
    y = np.sin(np.arange(100_000) / 3000)
    y[31_234], y[77_777] = 40.0, -40.0
    drawn = thinned(y)
    assert len(drawn) <= 300
    assert {0, 31_234, 77_777, 99_999} <= set(drawn.tolist())
    assert (np.diff(drawn) > 0).all()
    assert thinned(y[:300]).tolist() == list(range(300))


def test_a_thinned_curve_says_so(tmp_path: Path) -> None:
    trace = full_traces.write_full(tmp_path / "run", [30, 5], epochs=4, steps_per_epoch=100, sampled_every=1)
    chart = FIGURES["gradient_norms"].chart(Source(trace), over="steps")
    assert max(len(series.x) for series in chart.series) <= 300
    assert chart.notes[0].startswith("At most 300 of 400 readings a curve are drawn")


def test_what_a_logarithmic_axis_cannot_show_is_said(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run")
    writer.update_run(
        num_classes=2, class_names=["a", "b"], class_counts=[9, 9], config=None,
        overhead={"share": None, "sampled_steps": 1, "steps": 1},
    )  # fmt: skip
    for epoch, losses in ((1, [0.0, float("inf")]), (2, [1.0, 2.0])):
        writer.append(
            "classes", step=epoch, since_step=epoch, epoch=epoch, split="test", class_id=[0, 1], count=5, loss=losses
        )  # fmt: skip
    writer.close("finished")
    chart = FIGURES["loss"].chart(Source(open_trace(tmp_path / "run")))
    assert [series.x.tolist() for series in chart.series] == [[2.0], [2.0]]
    assert chart.notes == (
        "1 infinite values are not drawn.",
        "1 values of 0 or below are not drawn: the axis is logarithmic.",
    )


def test_a_run_without_epochs_is_shown_by_step(tmp_path: Path) -> None:
    source = Source(full_traces.write_full(tmp_path / "run", COUNTS, says_epoch=False))
    assert FIGURES["recall"].chart(source).x.label == "optimizer step"
    assert FIGURES["gradient_norms"].choices(source)["over"] == ["steps"]
    assert FIGURES["neural_collapse"].chart(source).series[0].x.tolist() == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("name", FIGURES)
def test_what_a_trace_does_not_have_is_one_sentence(tmp_path: Path, name: str) -> None:
    writer = TraceWriter(tmp_path / "run")
    writer.update_run(
        num_classes=2, class_names=["a", "b"], class_counts=[3, 3], config=None,
        overhead={"share": None, "sampled_steps": 0, "steps": 0},
    )  # fmt: skip
    writer.close("failed")
    with pytest.raises(NothingToDrawError, match=r"^(The trace has no|No class) [^.]*\.$"):
        FIGURES[name].chart(Source(open_trace(tmp_path / "run")))


def test_an_unknown_choice_names_the_known_ones(source: Source) -> None:
    with pytest.raises(ValueError, match="split is one of train_eval, test, got 'valid'"):
        FIGURES["recall"].chart(source, split="valid")
    with pytest.raises(ValueError, match="recall has the choices split, not layer"):
        FIGURES["recall"].chart(source, layer="head")


def lines(x: list[float], y: list[float], label: str = "epoch", key: str = "class 0") -> Lines:
    return Lines(Axis(label), Axis("recall", "share"), (Series(key, "a", np.array(x), np.array(y)),))


def test_runs_are_compared_where_both_have_a_point() -> None:
    mine, other = lines([1, 2, 4], [0.5, 0.75, 1.0]), lines([1, 2, 3], [0.25, 0.25, 0.5])
    difference = compare(mine, other, "difference")
    assert difference is not None
    assert difference.series[0].x.tolist() == [1, 2]
    assert difference.series[0].y.tolist() == [0.25, 0.5]
    ratio = compare(mine, other, "ratio")
    assert ratio is not None
    assert ratio.series[0].y.tolist() == [2.0, 3.0]
    assert ratio.levels == ((1.0, "alike"),)


def test_steps_of_two_trainings_and_curves_of_one_are_not_compared() -> None:
    assert compare(lines([1, 2], [1, 1], "optimizer step"), lines([1, 2], [1, 1], "optimizer step"), "ratio") is None
    assert compare(lines([1, 2], [1, 1]), lines([1, 2], [1, 1], key="class 1"), "difference") is None


def test_numbers_are_written_as_people_do() -> None:
    assert [number(v) for v in (0.5, -0.25, 1.25e-7, 1234.0, 2e9)] == ["0.5", "−0.25", "1.25×10⁻⁷", "1.23×10³", "2×10⁹"]


def test_matplotlib_has_whole_epochs_and_every_name_in_its_legend(tmp_path: Path) -> None:
    names = ["_background", "a_b", "c", "d"]
    trace = full_traces.write_full(tmp_path / "run", [50, 50, 50, 5], epochs=2, class_names=names[1:] + names[:1])
    ax = trace.plot.recall()
    ax.figure.canvas.draw()
    shown = [tick for tick in ax.get_xticks() if ax.get_xlim()[0] <= tick <= ax.get_xlim()[1]]
    assert shown == [round(tick) for tick in shown]
    assert " _background" in [text.get_text() for text in ax.get_legend().get_texts()]
    plt.close(ax.figure)


@pytest.mark.parametrize("name", ["classifier_alignment", "gradient_per_sample"])
def test_the_label_of_a_y_axis_stays_on_the_figure(trace: Trace, name: str) -> None:
    figure = getattr(trace.plot, name)().figure
    figure.canvas.draw()
    label = figure.axes[0].yaxis.label.get_window_extent()
    assert 0 <= label.y0 < label.y1 <= figure.bbox.height
    assert label.x0 >= 0
    plt.close(figure)
