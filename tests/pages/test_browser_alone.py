"""The page where there is no run to show, and where there is no TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradwatch.display.html import write_page
from gradwatch.verdict.engine import diagnose
from tests.pages.conftest import start_server
from tests.pages.synthetic import HOSTILE, make_layer_set, make_records

pytestmark = pytest.mark.browser


def test_empty_logdir_tells_what_to_do(page: Any, tmp_path: Path) -> None:
    for server in start_server(tmp_path):
        page.goto(f"{server.address}/data/plugin_entry.html?name=gradwatch")
        page.get_by_text("No run with gradwatch data here").wait_for()


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
