"""The page in a real browser: it draws, answers to mouse and keyboard, and passes axe-core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from report import full_traces

from imbdyn.report.html import page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

COUNTS = [200, 150, 120, 110, 8, 5]
EPOCHS = 13
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    names = ["zero", "one", "two", "three", HOSTILE, "five"]
    runs = [
        full_traces.write_full(folder / "ce", COUNTS, class_names=names, epochs=EPOCHS),
        full_traces.write_full(folder / "ldam", COUNTS, class_names=names, test_factor=1.2, epochs=EPOCHS),
    ]
    path = folder / "page.html"
    path.write_text(page(runs), encoding="utf-8")
    return path


def opened(browser: Browser, file: Path, width: int = 1280, theme: str = "light") -> Iterator[Page]:
    """A tab with the page, which must not complain nor ask the network for anything."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: None if request.url == file.as_uri() else complaints.append(request.url))
    tab.goto(file.as_uri())
    yield tab
    assert complaints == []
    context.close()


@pytest.fixture
def tab(chromium: Browser, file: Path) -> Iterator[Page]:
    yield from opened(chromium, file)


def figure(tab: Page, name: str) -> Locator:
    found = tab.locator(f"#figure-{name}")
    found.scroll_into_view_if_needed()
    found.locator("svg.chart").first.wait_for()
    return found


def test_every_figure_has_a_chart_for_each_run(tab: Page) -> None:
    tab.evaluate("page.drawAll()")
    charts = tab.evaluate(
        "[...document.querySelectorAll('.figure')].map(f => [f.id, f.querySelectorAll('svg.chart').length])"
    )
    assert len(charts) == 20
    assert all(count == 2 for _, count in charts), charts
    assert tab.locator(".missing").count() == 0
    shapes = tab.evaluate("[...document.querySelectorAll('path')].map(p => p.getAttribute('d'))")
    assert not [shape for shape in shapes if "NaN" in shape or "Infinity" in shape]


def test_hostile_names_are_shown_as_text(tab: Page) -> None:
    recall = figure(tab, "recall")
    button = recall.locator(".legend [data-key='class 4']")
    assert HOSTILE[:20] in (button.text_content() or "")
    assert button.get_attribute("title") == HOSTILE
    assert tab.locator("#classes th", has_text=HOSTILE).count() == 1
    assert tab.title() == "What each class did: ce, ldam"
    assert tab.locator("main img, main script").count() == 0


def test_no_other_script_may_run(tab: Page) -> None:
    blocked = """
        new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "document.title = 'owned'";
            document.body.append(script);
        })"""
    context = tab.context.new_page()  # its console has the violation, which is what is wanted
    context.goto(tab.url)
    assert context.evaluate(blocked) == "script-src-elem"
    assert context.title() != "owned"
    context.close()


def test_the_legend_hides_a_class_in_all_panels(tab: Page) -> None:
    recall = figure(tab, "recall")
    before = recall.locator("svg.chart .series").count()
    button = recall.locator(".legend [data-key='class 5']")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert recall.locator("svg.chart .series").count() == before - 2
    recall.locator(".legend button.family", has_text="other classes").click()
    assert recall.locator("svg.chart .series").count() == 2
    button.click()
    assert recall.locator("svg.chart .series").count() == 4


def test_the_slider_moves_the_matrices_of_all_runs(tab: Page) -> None:
    cosines = figure(tab, "gradient_cosines")
    moments = cosines.locator(".moment")
    assert moments.all_text_contents() == ["step 130"] * 2
    cells = cosines.locator("svg.chart").first.locator(".cell-text")
    before = cells.all_text_contents()
    slider = cosines.locator("input[type=range]")
    slider.focus()
    tab.keyboard.press("Home")
    assert moments.all_text_contents() == ["steps 5 to 10 (2 sampled)"] * 2
    assert cosines.locator("output").text_content() == "moment 1 of 20"
    assert "ce steps 5 to 10" in (slider.get_attribute("aria-valuetext") or "")
    assert cells.all_text_contents() == ["−.50" if (a + b) % 2 else ".25" for a in range(6) for b in range(6) if a != b]
    assert cells.all_text_contents() != before


def test_a_choice_and_the_difference_redraw_the_panels(tab: Page) -> None:
    recall = figure(tab, "recall")
    shape = recall.locator(".series path.line").first
    train = shape.get_attribute("d")
    recall.get_by_label("test").check(force=True)
    assert shape.get_attribute("d") != train
    recall.get_by_label("Difference from ce").check(force=True)
    assert recall.locator(".panel-title").all_text_contents() == ["ldam minus ce"]
    assert recall.locator(".axis-title").first.text_content() == "recall, difference (share)"


def test_dragging_zooms_all_panels_and_reset_shows_all(tab: Page) -> None:
    recall = figure(tab, "recall")
    ticks = "[...document.querySelectorAll('#figure-recall svg.chart path.line')].map(p => p.getAttribute('d'))"
    whole = tab.evaluate(ticks)
    recall.locator("svg.chart").first.scroll_into_view_if_needed()
    box = recall.locator("svg.chart").first.bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 80)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 90, steps=4)
    tab.mouse.up()
    zoomed = tab.evaluate(ticks)
    assert all(before != after for before, after in zip(whole, zoomed, strict=True))
    recall.locator("button", has_text="Reset").click()
    assert tab.evaluate(ticks) == whole


def test_hovering_shows_the_point_and_marks_the_class_everywhere(tab: Page) -> None:
    recall = figure(tab, "recall")
    recall.get_by_label("test").check(force=True)
    place = tab.evaluate(
        """(() => {
            const panel = page.figures.find((f) => f.name === "recall").panels[0];
            const series = panel.chart.series.find((s) => s.key === "class 5");
            const bounds = panel.svg.getBoundingClientRect();
            return [bounds.left + panel.x.of(series.x[3]), bounds.top + panel.y.of(series.y[3])];
        })()"""
    )
    tab.mouse.move(*place)
    tip = recall.locator(".tip:visible")
    assert tip.locator("strong").text_content() == "five"
    assert tip.locator("span").all_text_contents() == [f"{full_traces.recall(4, 6, 'test')[5]:.4g} share", "epoch 4"]
    assert recall.locator("svg.chart.focused .series.focus").count() == 2
    tab.mouse.move(5, 5)
    assert recall.locator(".tip:visible").count() == 0


def test_a_chart_is_read_with_the_keyboard(tab: Page) -> None:
    chart = figure(tab, "recall").locator("svg.chart").first
    chart.focus()
    tab.keyboard.press("ArrowLeft")
    said = tab.locator("#live")
    assert said.text_content() == f"five, epoch 13: {full_traces.recall(13, 6, 'train_eval')[5]:.4g} share"
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowDown")
    assert (said.text_content() or "").startswith("</script>")
    tab.keyboard.press("ArrowDown")
    assert said.text_content() == f"three, epoch 12: {full_traces.recall(12, 6, 'train_eval')[3]:.4g} share"
    tab.keyboard.press("Escape")
    assert tab.locator(".tip:visible").count() == 0


def test_numbers_stand_in_a_table_and_are_saved(tab: Page) -> None:
    recall = figure(tab, "recall")
    recall.locator("details.numbers summary").click()
    head = recall.locator("table").first.locator("thead th").all_text_contents()
    assert head == ["epoch", "zero", "one", "two", "three", HOSTILE, "five"]
    assert recall.locator("table").first.locator("tbody tr").count() == EPOCHS
    with tab.expect_download() as download:
        recall.locator("button", has_text="Save ce as CSV").click()
    text = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert download.value.suggested_filename == "recall-ce.csv"
    assert text[0] == '"series","epoch","recall (share)"'
    assert len(text) == 1 + 6 * EPOCHS


def test_themes_are_followed_and_kept(chromium: Browser, file: Path) -> None:
    background = "getComputedStyle(document.querySelector('.card')).backgroundColor"
    for tab in opened(chromium, file, theme="dark"):
        assert tab.evaluate(background) == "rgb(24, 27, 31)"
        tab.select_option("#theme", "light")
        assert tab.evaluate(background) == "rgb(255, 255, 255)"
        tab.reload()
        assert tab.evaluate(background) == "rgb(255, 255, 255)"


def test_paper_is_light_and_has_every_figure(chromium: Browser, file: Path) -> None:
    for tab in opened(chromium, file, theme="dark"):
        assert len(tab.pdf()) > 50_000
        assert tab.evaluate("page.figures.every((f) => f.drawn)")
        tab.emulate_media(media="print")
        assert tab.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor") == "rgb(255, 255, 255)"


def test_nothing_is_wider_than_the_window(tab: Page) -> None:
    tab.evaluate("page.drawAll()")
    for width in (390, 820, 1440):
        tab.set_viewport_size({"width": width, "height": 900})
        tab.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
        assert tab.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), pytest.param(1280, "light", marks=pytest.mark.nightly)])
def test_axe_finds_nothing(chromium: Browser, file: Path, width: int, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra test").Axe()
    for tab in opened(chromium, file, width, theme):
        tab.evaluate("page.drawAll()")
        tab.locator("#figure-recall details.numbers summary").click()
        tab.evaluate("document.querySelectorAll('#methods details').forEach((d) => { d.open = true; })")
        found = axe.run(tab).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []


def test_without_scripts_findings_and_tables_can_be_read(chromium: Browser, file: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(file.as_uri())
    told = tab.locator(".finding").all_inner_texts()
    assert sum("NC1" in text for text in told) == 2, "each of the two runs has its findings"
    assert all(len(text.split()) > 5 for text in told)
    assert tab.locator("#classes tbody tr").count() == 6
    assert tab.locator("noscript").is_visible()
    context.close()


def test_a_long_name_and_a_run_of_one_step(chromium: Browser, tmp_path: Path) -> None:
    names = ["x" * 300, "two"]
    runs = [
        full_traces.write_full(
            tmp_path / "one", [50, 5], class_names=names, epochs=1, steps_per_epoch=1, sampled_every=1
        ),
        full_traces.write_full(
            tmp_path / "long", [50, 5], class_names=names, epochs=2, steps_per_epoch=400, sampled_every=1
        ),
    ]
    file = tmp_path / "page.html"
    file.write_text(page(runs), encoding="utf-8")
    for tab in opened(chromium, file, width=390):
        tab.evaluate("page.drawAll()")
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        ticks = "[...document.querySelectorAll('#figure-recall svg.chart')].map(s => s.textContent)"
        assert not [text for text in tab.evaluate(ticks) if "1.05" in text], "there is no step 1.05"
        notes = tab.locator("#figure-weight_norms .notes p").all_text_contents()
        assert len(notes) == 1
        assert notes[0].startswith("long: At most 300 of 800 readings")
