"""A page of a large run: 1,000 classes, 100,000 steps, 500 of them sampled."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from report import full_traces

from imbdyn.report.html import page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CLASSES, STEPS = 1000, 100_000

#: What the issue asks for.
MOST_MEGABYTES, MOST_SECONDS = 10.0, 3.0


@pytest.mark.nightly
def test_a_large_run_makes_a_small_page_that_draws_quickly(chromium: Browser, tmp_path: Path) -> None:
    counts = (2000 * 0.994 ** np.arange(CLASSES)).astype(int) + 5
    trace = full_traces.write_full(
        tmp_path / "run", counts.tolist(), epochs=100, steps_per_epoch=STEPS // 100, sampled_every=200, present=100
    )
    began = time.perf_counter()
    file = tmp_path / "page.html"
    file.write_text(page([trace]), encoding="utf-8")
    made = time.perf_counter() - began
    megabytes = file.stat().st_size / 1e6
    tab = chromium.new_page(viewport={"width": 1280, "height": 900})
    tab.goto(file.as_uri())
    # From the start of loading to all figures drawn, those below the window included.
    seconds = tab.evaluate("(page.drawAll(), document.body.offsetHeight, performance.now() / 1000)")
    assert megabytes < MOST_MEGABYTES
    assert seconds < MOST_SECONDS, f"{megabytes:.2f} MB, made in {made:.1f} s"
    notes = " ".join(tab.locator(".notes p").all_text_contents())
    assert "10% to their 90% quantile" in notes
    assert "Of 1,000 classes the 25 with the most and the 25 with the fewest samples are shown" in notes
    assert "At most 300 of 500 readings a curve are drawn" in notes
    tab.close()
