"""The page as text: what is in it, what cannot be. How it behaves in a browser is in test_page_in_chromium.py."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from findings import synthetic_traces
from findings.synthetic_traces import write_rows
from matplotlib import pyplot as plt
from report import full_traces

from imbdyn import Monitor
from imbdyn.findings import per_class, single
from imbdyn.findings.finding import Finding
from imbdyn.findings.intervals import wilson
from imbdyn.report.figures import FIGURES, Lines, Source
from imbdyn.report.finding_cards import card
from imbdyn.report.html import _measured, page
from imbdyn.report.names import run_names
from imbdyn.report.overview import class_rows, measures
from imbdyn.report.page_data import DIGITS, embedded
from imbdyn.trace import Trace, open_trace

#: Of a number with so many significant digits, relative to it.
ROUNDING = 0.51 * 10.0 ** (1 - DIGITS)

COUNTS = [200, 150, 120, 110, 8, 5]
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    '"><b>&amp;',
    "]]>\u2028--><!--",
    "{{ 7 * 7 }}",
    "$x_1$",
]


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list[Trace]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        full_traces.write_full(folder / "cross-entropy", COUNTS),
        full_traces.write_full(folder / "ldam", COUNTS, test_factor=1.2),
    ]


@pytest.fixture(scope="module")
def text(traces: list[Trace]) -> str:
    return page(traces)


class Elements(HTMLParser):
    """Every element with its attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is not None:
            self.inside[self.cdata_elem][-1] += data
        else:
            self.words.append(data)


def embedded_data(text: str) -> dict[str, Any]:
    return json.loads(Elements(text).inside["script"][0])


def test_nothing_in_the_page_can_ask_for_anything(text: str) -> None:
    elements = Elements(text)
    pairs = [pair for _, attributes in elements.found for pair in attributes.items()]
    places = [value for name, value in pairs if name in ("href", "src")]
    assert places
    assert all(value is not None and value.startswith("#") for value in places)
    assert not {"link", "img", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in elements.found}
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest|WebSocket|import\(|sendBeacon", text)


def test_the_policy_names_the_hashes_of_the_only_script_and_style(text: str) -> None:
    elements = Elements(text)
    policy = next(a["content"] for tag, a in elements.found if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    data, script = elements.inside["script"]
    for kind, content in (("script", script), ("style", elements.inside["style"][0])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy + ";"
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "<" not in data
    attributes = {name for _, found in elements.found for name in found}
    assert not {name for name in attributes if name.startswith("on") or name == "style"}


def test_names_from_a_trace_are_text(tmp_path: Path) -> None:
    trace = full_traces.write_full(
        tmp_path / "<b>run</b>", COUNTS, class_names=HOSTILE, config={"note": HOSTILE[0], "<i>": HOSTILE[1]}
    )
    text = page([trace])
    elements = Elements(text)
    assert [a.get("type") for tag, a in elements.found if tag == "script"] == ["application/json", None]
    assert not {"img", "b", "i"} & {tag for tag, _ in elements.found}
    assert {name.strip() for name in HOSTILE} <= {words.strip() for words in elements.words}
    recall = next(figure for figure in embedded_data(text)["figures"] if figure["name"] == "recall")
    assert [series["label"] for series in recall["variants"]["test"]["charts"][0]["series"]] == HOSTILE


def test_a_network_whose_gradients_are_zero_has_a_page(tmp_path: Path) -> None:
    """No class has a share of nothing."""
    model = torch.nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, 2, tmp_path / "run", interval=1) as monitor:
        for monitor.epoch in (1, 2):
            with monitor.batch(torch.tensor([0, 1])):
                torch.nn.functional.cross_entropy(model(torch.zeros(2, 3)), torch.tensor([0, 1])).backward()
            optimizer.step()
    figures = embedded_data(page([open_trace(tmp_path / "run")]))["figures"]
    shares = next(figure for figure in figures if figure["name"] == "gradient_shares")
    told = {chart.get("missing") for variant in shares["variants"].values() for chart in variant["charts"]}
    assert "No sampled step has shares: the whole gradient is zero." in told


def test_embedded_json_cannot_end_its_element() -> None:
    found = embedded({"a": HOSTILE, "<!--": "&\u2029"})
    assert not set("<>&\u2028\u2029") & set(found)
    assert json.loads(found) == {"a": HOSTILE, "<!--": "&\u2029"}


def drawn_lines(ax: mpl.axes.Axes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """x and y of every line but the levels, which reach from side to side."""
    for line in ax.lines:
        if list(line.get_xdata()) != [0, 1]:
            yield np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in ("gap", "gradient_cosines")])
def test_page_and_matplotlib_show_the_same_numbers(traces: list[Trace], text: str, name: str) -> None:
    figure = next(figure for figure in embedded_data(text)["figures"] if figure["name"] == name)
    with mpl.rc_context({"backend": "agg"}):
        for choice in figure["choices"] or [None]:
            for value in choice["values"][:2] if choice else [None]:
                chosen = {c["name"]: c["values"][0]["value"] for c in figure["choices"]}
                if choice:
                    chosen[choice["name"]] = value["value"]
                chart = figure["variants"]["|".join(chosen.values())]["charts"][1]
                ax = getattr(traces[1].plot, name)(plt.figure().gca(), **chosen)
                lines = list(drawn_lines(ax))
                assert len(lines) == len(chart["series"])
                for (x, y), series in zip(lines, chart["series"], strict=True):
                    places = [chart["grid"][i] for i in series.get("at", range(len(chart["grid"])))]
                    np.testing.assert_allclose(places, x, rtol=ROUNDING)
                    np.testing.assert_allclose(series["y"], y, rtol=ROUNDING)
                plt.close("all")


def test_the_matrix_of_the_page_is_that_of_matplotlib(traces: list[Trace], text: str) -> None:
    figure = next(figure for figure in embedded_data(text)["figures"] if figure["name"] == "gradient_cosines")
    chart = figure["variants"]["*"]["charts"][0]
    with mpl.rc_context({"backend": "agg"}):
        for moment in range(len(chart["frames"])):
            ax = traces[0].plot.gradient_cosines(plt.figure().gca(), moment=moment)
            shown = np.ma.getdata(ax.images[0].get_array())[np.tril_indices(6, -1)]
            np.testing.assert_allclose(chart["values"][moment], shown, atol=6e-4)
            assert ax.get_xlabel() == chart["frames"][moment]
            plt.close("all")


def test_spans_of_the_page_are_those_of_matplotlib(traces: list[Trace], text: str) -> None:
    figure = next(figure for figure in embedded_data(text)["figures"] if figure["name"] == "gap")
    spans = figure["variants"][""]["charts"][0]["spans"]
    with mpl.rc_context({"backend": "agg"}):
        ax = traces[0].plot.gap(plt.figure().gca())
        joins = [line.get_xdata() for line in ax.lines[1::2]]
        np.testing.assert_allclose([[s["start"], s["end"]] for s in spans], joins, rtol=ROUNDING)
        assert [label.get_text() for label in ax.get_yticklabels()] == [span["label"] for span in spans]
        plt.close("all")


def test_plot_names_what_there_is(traces: list[Trace]) -> None:
    assert set(FIGURES) <= set(dir(traces[0].plot))
    assert "Where a group's two" in (traces[0].plot.train_test.__doc__ or "")
    with pytest.raises(AttributeError, match="no figure 'recal'; there are progress, recall"):
        traces[0].plot.recal()
    with pytest.raises(Exception, match=r"one run: trace.runs\[NAME\].plot, where NAME is cross-entropy or ldam"):
        _ = open_trace([str(trace.path) for trace in traces]).plot
    assert isinstance(traces[0].plot.chart("loss"), Lines)


def test_plot_makes_axes_of_its_own(traces: list[Trace]) -> None:
    with mpl.rc_context({"backend": "agg"}):
        ax = traces[0].plot.recall(split="test")
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "recall (share)")
        assert ax.get_title(loc="left") == "Recall of each class"
        assert [entry.get_text() for entry in ax.get_legend().get_texts()] == ["other classes", "c4", "c5"]
        plt.close("all")


def test_differences_of_runs_are_computed_from_the_same_curves(traces: list[Trace], text: str) -> None:
    figure = next(figure for figure in embedded_data(text)["figures"] if figure["name"] == "recall")
    first, second = (FIGURES["recall"].chart(Source(trace), split="test") for trace in traces)
    against = figure["variants"]["test"]["against"]
    assert against[0] is None
    for mine, other, shown in zip(second.series, first.series, against[1]["series"], strict=True):
        np.testing.assert_allclose(shown["y"], mine.y - other.y, rtol=ROUNDING, atol=1e-12)
    assert figure["variants"]["test"]["against_names"][1] == "ldam minus cross-entropy"


def test_measures_are_means_with_intervals_and_differences(traces: list[Trace]) -> None:
    found = measures([Source(trace) for trace in traces], reference=0)
    assert list(found) == ["All classes", "Rare classes", "Classes that are not rare"]
    rare = {measure.label: measure for measure in found["Rare classes"]}
    held_out = rare["Held-out recall"]
    expected = [factor * full_traces.recall(5, 6, "test")[4:].mean() for factor in (1.0, 1.2)]
    assert [run.value for run in held_out.runs if run] == pytest.approx(expected)
    assert held_out.differences[0] is None
    difference = held_out.differences[1]
    assert difference is not None
    assert difference.lower is not None
    assert difference.upper is not None
    assert difference.value == pytest.approx(expected[1] - expected[0])
    assert difference.lower < difference.value < difference.upper
    norms = rare["Norm of the classifier's rows"]
    assert norms.are_ratios
    assert norms.differences[1] is not None
    assert norms.differences[1].value == pytest.approx(1.0)


def test_no_interval_begins_at_minus_zero(tmp_path: Path) -> None:
    trace = synthetic_traces.write_trace(tmp_path / "run", [500, 6, 6], [[1.0]] * 3, [1.0, 1.0, 1.0])
    (gap,) = next(m for m in measures([Source(trace)], reference=0)["Rare classes"] if m.label.startswith("Gap")).runs
    assert gap is not None
    assert "[0.000, " in _measured(replace(gap, lower=-1e-17), ".3f")


def test_where_no_class_is_rare_none_is_told_as_another(tmp_path: Path) -> None:
    trace = synthetic_traces.write_trace(tmp_path / "run", [500, 500], [[1.0]] * 2, [0.9, 0.7])
    assert list(measures([Source(trace)], reference=0)) == ["All classes", "Classes that are not rare"]


def test_the_gap_is_that_of_the_last_epoch_with_both_recalls(tmp_path: Path) -> None:
    rows = [
        synthetic_traces.class_rows(10, "train_eval", epoch=1, accuracy=[0.5, 0.9], count=[6, 120]),
        synthetic_traces.class_rows(10, "test", epoch=1, accuracy=[0.4, 0.8], count=100),
        synthetic_traces.class_rows(20, "train_eval", epoch=2, accuracy=[1.0, 1.0], count=[6, 120]),
    ]
    trace = write_rows(tmp_path / "run", [6, 120], rows, rare=[0])
    (gap,) = next(m for m in measures([Source(trace)], reference=0)["Rare classes"] if m.label.startswith("Gap")).runs
    assert gap is not None
    assert gap.value == pytest.approx(0.5 - 0.4) == per_class(trace)["gap"][0]
    assert gap.upper == pytest.approx(0.5 - wilson(0.4, 100).lower)


def test_one_run_has_no_differences(traces: list[Trace]) -> None:
    text = page(traces[:1])
    assert "What it came to" in text
    assert "against" not in embedded_data(text)["figures"][1]["variants"]["test"]


def test_runs_are_named_as_shortly_as_tells_them_apart(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("ce/seed0", "ce/seed1", "ldam/seed0")]
    opened = [full_traces.write_full(run, [9, 5], epochs=1) for run in runs]
    assert run_names(opened[:2]) == ["seed0", "seed1"]
    assert run_names(opened) == ["ce/seed0", "ce/seed1", "ldam/seed0"]
    assert run_names([opened[0], opened[0]]) == ["seed0 (1)", "seed0 (2)"]


def test_a_finding_card_says_what_the_finding_has(traces: list[Trace]) -> None:
    finding = single(traces[0])[2]
    shown = card(finding)
    assert shown["title"] == finding.claim
    assert shown["sentence"] == finding.sentence
    assert shown["drawn"] is not None
    assert shown["drawn"]["lower"] < shown["drawn"]["value"] < shown["drawn"]["upper"]
    bare = card(replace(finding, value=None, lower=None, upper=None, p_value=None))
    assert (bare["value"], bare["interval"], bare["drawn"]) == (None, None, None)


def test_a_card_has_a_label_for_what_else_is_known() -> None:
    finding = Finding(
        name="nc9",
        claim="it collapses",
        value=0.5,
        null=0.0,
        compared_with="no collapse",
        effect_size=0.8,
        effect="rare / others",
        steps=(0, 1300),
        by_class={0: 1.5, 7: -2.0},
        beside={"balanced": 0.25, "scarce": None},
    )
    assert card(finding)["facts"] == [
        ("Compared with", "no collapse"),
        ("Without the phenomenon", "0"),
        ("Effect size", "0.8, rare / others"),
        ("Steps", "before the first to 1,300"),
        ("In other runs", "balanced 0.25"),
    ]
    assert card(finding, ["cat"])["by_class"] == {
        "label": "Per class",
        "classes": [("cat", "1.5"), ("class 7", "\N{MINUS SIGN}2")],
    }
    assert card(replace(finding, steps=(20, 20), effect=""))["facts"][2:4] == [("Effect size", "0.8"), ("Steps", "20")]


def test_a_card_leaves_out_what_there_is_not() -> None:
    bare = card(Finding(name="nc9", claim="it collapses", null=0.0, compared_with="none", beside={"balanced": None}))
    assert (bare["facts"], bare["by_class"]) == ([], None)


def test_of_many_classes_a_card_has_the_lowest_and_the_highest() -> None:
    found = card(Finding(name="nc9", claim="it collapses", by_class={c: float((c * 7) % 100) for c in range(100)}))
    assert found["by_class"]["label"] == "Per class, the lowest and highest of 100"
    assert [value for _, value in found["by_class"]["classes"]] == [*"012345", *map(str, range(94, 100))]


def test_the_page_has_no_raw_field_and_no_none_in_its_cards(text: str) -> None:
    cards = text[text.index('<section id="findings"') : text.index('<section id="runs"')]
    assert cards.count('<dl class="found">') > 5
    assert not re.search(r"None|effect size:|by class:|null:", cards, re.IGNORECASE)


def test_headings_go_down_one_level_at_a_time(text: str) -> None:
    levels = [int(tag[1]) for tag, _ in Elements(text).found if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_runs_of_other_classes_keep_their_own_names(tmp_path: Path) -> None:
    first = full_traces.write_full(tmp_path / "animals", [200, 150, 5], class_names=["cat", "dog", "owl"])
    second = full_traces.write_full(tmp_path / "tools", [90, 90, 90, 4], class_names=["saw", "dog", "axe", "nut"])
    rows = class_rows([Source(first), Source(second)])
    assert [(row["name"], row["rare"], row["runs"][1] is None) for row in rows] == [
        ("owl", True, True),
        ("dog", False, False),
        ("cat", False, True),
    ]
    text = page([first, second])
    assert "a run whose class of that number has another name has no numbers" in text
    assert ">nut<" in text, "findings of the second run have its names"
    assert "has another name" not in page([first, first])
