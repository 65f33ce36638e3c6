"""The page where there is no run to show, and where there is no TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradwatch.display.html import write_page
from gradwatch.verdict.engine import diagnose
from tests.pages.browsing import choose_run
from tests.pages.conftest import start_server
from tests.pages.states import WRITERS
from tests.pages.synthetic import HOSTILE, make_layer_set, make_records

pytestmark = pytest.mark.browser


def test_empty_logdir_tells_what_to_do(page: Any, tmp_path: Path) -> None:
    for server in start_server(tmp_path):
        page.goto(f"{server.address}/data/plugin_entry.html?name=gradwatch")
        page.get_by_text("No run with gradwatch data here").wait_for()


def test_each_state_is_said_in_words_that_axe_accepts(page: Any, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    said = {
        "nothing": ("running, started ", "No training step has been recorded yet"),
        "early": ("running, last record ", "Not judged yet: 1 recorded step is too few to tell"),
        "stopped": ("stopped answering: last record 30 min ago", "Every one of 12 weights learns"),
        "crashed": ("crashed at step 60 (RuntimeError)", "Every one of 12 weights learns"),
        "noted": ("ended at step 60", "Every one of 12 weights learns"),
        "damaged": ("ended at step 60", "Every one of 12 weights learns"),
        "healthy": ("ended at step 60", "Every one of 12 weights learns"),
    }
    for state in said:
        WRITERS[state](tmp_path)
    for server in start_server(tmp_path):
        page.goto(f"{server.address}/data/plugin_entry.html?name=gradwatch")
        for place, (state, (stands, title)) in enumerate(said.items()):
            page.emulate_media(color_scheme=("light", "dark")[place % 2])
            if state == "nothing":
                page.locator('button.chip[data-run="nothing"]').click()
                page.get_by_text(title).wait_for()
            else:
                choose_run(page, state)
            assert page.locator(".banner h1").inner_text() == title
            assert page.locator(".state").inner_text().startswith(stands)
            assert page.locator(".chip[aria-pressed=true]").inner_text().count("healthy until") == (
                state in ("stopped", "crashed")
            )
            assert ("1 record missing" in page.locator(".banner").inner_text()) == (
                state == "damaged"
            )
            page.wait_for_timeout(300)  # a theme's colours fade in
            assert [row["id"] for row in axe.Axe().run(page).response["violations"]] == [], state
            green = "rgb(11, 107, 80)", "rgb(127, 220, 184)"
            mark = page.locator(".banner .mark").evaluate("(mark) => getComputedStyle(mark).color")
            assert (mark in green) == (state == "healthy"), state


def test_report_opens_from_disk_without_a_network(page: Any, tmp_path: Path) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    verdicts = [
        diagnose(make_records(make_layer_set(12), list(range(40))), run="sigmoid"),
        diagnose(make_records(make_layer_set(4, name=lambda i: f"{HOSTILE}{i}"), [0, 1]), run="h"),
    ]
    path = tmp_path / "report.html"
    path.write_text(write_page(verdicts), encoding="utf-8")
    page.goto(path.as_uri())
    page.locator(".pane[data-drawn]").wait_for()
    assert page.locator(".banner h1").inner_text().startswith("Vanishing gradient: fc1 gets")
    rows = page.locator(".chart").first.evaluate("(chart) => chart.data[0].z.length")
    assert rows == 12
    assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []
