"""The page in a real browser: what a person sees and can do."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.pages.browsing import choose_run, read_plot, until
from tests.pages.conftest import Server, start_server, write_run, write_trials
from tests.pages.synthetic import HOSTILE, name_long

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """TensorBoard over a directory of this module's own, to which a test may add."""
    root = tmp_path_factory.mktemp("browsed")
    write_run(root, "sigmoid", histogram_every=20)
    write_trials(root, "sigmoid")
    write_run(root, "healthy", activation="ReLU", gain=1.02)
    write_run(root, "hostile", 5, gain=0.02, naming=lambda index: f"{HOSTILE}{index}")
    write_run(root, "long", 24, naming=name_long)
    write_run(root, "broken", 6, gain=lambda step: 1.0 if step < 40 else math.nan)
    write_run(root, "late", 8, 120, gain=lambda step: 1.0 if step < 60 else 0.05)
    yield from start_server(root)


@pytest.fixture(scope="module")
def seen(context: Any, board: Server) -> Any:
    """The unhealthy run as it opens, for tests that change nothing."""
    page = context.new_page()
    page.goto(f"{board.address}/data/plugin_entry.html?name=gradwatch")
    choose_run(page, "sigmoid")
    return page


@pytest.fixture
def tab(page: Any, board: Server) -> Any:
    """The tab by itself, which loads faster, with the unhealthy run's charts drawn."""
    page.goto(f"{board.address}/data/plugin_entry.html?name=gradwatch")
    choose_run(page, "sigmoid")
    return page


@pytest.fixture
def framed(page: Any, board: Server) -> Any:
    """The tab's frame within TensorBoard."""
    page.goto(f"{board.address}/#gradwatch")
    frame = page.frame_locator("iframe[src*=gradwatch]")
    choose_run(frame, "sigmoid")
    return frame


def test_banner_says_it_in_words(seen: Any) -> None:
    text = seen.locator(".banner h1").inner_text()
    assert text.startswith("Vanishing gradient: fc1 gets ")
    assert text.endswith("times less gradient than fc12")
    assert "Since the first step" in seen.locator(".banner").inner_text()
    assert "Remedy:" in seen.locator(".banner").inner_text()


def test_banner_leads_to_layers_and_step(tab: Any) -> None:
    where = tab.locator(".banner button.link")
    assert where.inner_text() == "fc1 to fc8"
    where.press("Enter")
    until(lambda: len(read_plot(tab, "profile", "chart.layout.shapes")) == 2)
    assert read_plot(tab, "profile", "chart.layout.shapes[0].x0") == 0


def test_remedies_that_were_tried_are_shown(tab: Any) -> None:
    assert (
        "Tried: GELU + He: early layers move 700 million times"
        in tab.locator(".banner").inner_text()
    )
    best = tab.locator("table.trials tbody tr").first.inner_text()
    assert "replace <b>* by GELU" in best
    assert "×700 million" in best
    assert "2.3 → 1.6" in best
    assert tab.locator("table.trials tbody tr").count() == 2
    choose_run(tab, "healthy")
    assert tab.locator("table.trials").count() == 0


def test_slider_lies_under_the_heatmap(seen: Any) -> None:
    plot = read_plot(
        seen,
        "profile",
        "chart.querySelector('.bglayer, .cartesianlayer .xy .plot').getBoundingClientRect()",
    )
    slider = seen.get_by_role("slider", name="Step").evaluate(
        "(one) => one.getBoundingClientRect()"
    )
    assert slider["left"] == pytest.approx(plot["left"], abs=12)
    assert slider["right"] < plot["right"] + 12


def test_what_is_no_number_is_grey_and_said(tab: Any) -> None:
    choose_run(tab, "broken")
    assert "Grey: NaN, Inf" in tab.locator(".first").inner_text()
    assert read_plot(tab, "profile", "chart.layout.shapes.length") == 2


def test_long_names_are_short_and_tell_all_on_hover(tab: Any) -> None:
    choose_run(tab, "long")
    name = tab.locator(".banner h1 code").first
    assert len(name.inner_text()) <= 60
    assert name.get_attribute("title") == name_long(0)
    ticks = "[...chart.querySelectorAll('.ytick text')].map((one) => one.textContent)"
    labels = read_plot(tab, "profile", ticks)
    assert len(set(labels)) == 24
    assert max(map(len, labels)) <= 24


def test_units_are_explained_in_words(seen: Any) -> None:
    said = seen.locator("p.said").inner_text()
    assert "φ′ is nowhere above 0.25" in said
    zero = "[chart.layout.yaxis.range, chart.layout.yaxis2.range].map(([a, b]) => -a / (b - a))"
    shares, curves = read_plot(seen, "units", zero)
    assert shares == pytest.approx(curves, abs=1e-3)


def test_charts_are_there_and_not_empty(seen: Any) -> None:
    kinds = "chart.data.map((trace) => [trace.type, trace.y.length])"
    assert read_plot(seen, "profile", kinds) == [["heatmap", 12], ["bar", 12], ["bar", 12]]
    assert read_plot(seen, "profile", "chart.data[0].z.length") == 12
    assert read_plot(seen, "profile", "chart.querySelectorAll('.heatmaplayer image').length") == 1
    assert seen.locator(".chart").count() == 5
    assert "None" in seen.locator(".card", has_text="Dead units").inner_text()


def test_rows_and_bars_stand_on_one_axis(seen: Any) -> None:
    axes = "Object.keys(chart._fullLayout).filter((key) => /^yaxis/.test(key))"
    assert read_plot(seen, "profile", axes) == ["yaxis"]


def test_slider_moves_the_line_and_the_bars(tab: Any) -> None:
    bars = "Array.from(chart.data[1].x)"
    before = read_plot(tab, "profile", bars)
    slider = tab.get_by_role("slider", name="Step")
    slider.focus()
    slider.press("Home")
    until(lambda: read_plot(tab, "profile", "chart.layout.shapes[0].x0") == 0)
    assert read_plot(tab, "profile", bars) != before
    assert slider.get_attribute("aria-valuetext") == "step 0"


LATE_FIGURES = """
const ask = window.fetch;
const delay = (path) => (path.startsWith("figures") ? 3000 : 0);
const wait = (path) => new Promise((done) => setTimeout(done, delay(path)));
window.fetch = (path, ...rest) => wait(path).then(() => ask(path, ...rest));
"""


def test_looking_for_news_does_not_lose_charts_that_are_loading(page: Any, board: Server) -> None:
    page.add_init_script(LATE_FIGURES)  # the page looks for news every two seconds
    page.goto(f"{board.address}/data/plugin_entry.html?name=gradwatch")
    page.locator(".pane[data-drawn]").wait_for()


def test_run_switch_shows_the_other_verdict(tab: Any) -> None:
    choose_run(tab, "healthy")
    assert tab.locator(".banner.healthy h1").inner_text() == "Every one of 12 weights learns"
    assert tab.locator(".findings").count() == 0


def test_runs_stand_side_by_side(tab: Any) -> None:
    tab.get_by_role("combobox", name="Compare with another run").select_option("healthy")
    tab.locator('.pane[aria-label="Run healthy"][data-drawn]').wait_for()
    boxes = [tab.locator(".pane").nth(place).bounding_box() for place in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[1]["x"] > boxes[0]["x"]
    tops = [
        tab.locator('[data-card="updates"]')
        .nth(place)
        .evaluate("(card) => card.closest('.rest').getBoundingClientRect().top")
        for place in (0, 1)
    ]
    assert tops[0] == tops[1]  # also where only one of them has findings
    assert tab.locator(".banner h1").count() == 2


def test_filter_keeps_matching_layers(tab: Any) -> None:
    tab.get_by_role("searchbox").fill("fc1")
    until(lambda: read_plot(tab, "profile", "chart.data[0].y") == ["fc1", "fc10", "fc11", "fc12"])
    assert read_plot(tab, "profile", "chart.data[1].x.length") == 4
    tab.get_by_role("searchbox").fill("nothing is called so")
    tab.locator(".chart.no-match").first.wait_for()


def test_finding_leads_to_layer_and_step(tab: Any) -> None:
    choose_run(tab, "late")
    assert read_plot(tab, "who_learns", "chart.layout.annotations.length") == 1  # the fall
    tab.locator(".findings td:nth-child(2) button.link").first.press("Enter")
    until(lambda: read_plot(tab, "profile", "chart.layout.shapes[0].x0") == 61)
    until(lambda: len(read_plot(tab, "profile", "chart.layout.shapes")) == 3)
    assert tab.locator("output.readout").inner_text() == "61"


def test_units_can_be_chosen(tab: Any) -> None:
    tab.get_by_role("combobox", name="Activation").select_option("fc3:sigmoid")
    said = tab.locator("p.said")
    until(lambda: said.inner_text().startswith("fc3:sigmoid at step 40"))
    assert "near zero" in said.inner_text()


def test_theme_follows_live(page: Any, framed: Any) -> None:
    root = framed.locator("html")
    colour = "chart.layout.font.color"
    seen = root.get_attribute("data-theme"), read_plot(framed, "profile", colour)
    assert seen[0] == "light"
    page.evaluate("document.body.classList.add('dark-mode')")
    until(lambda: root.get_attribute("data-theme") == "dark")
    until(lambda: read_plot(framed, "profile", colour) != seen[1])


def test_table_tells_what_the_charts_show(tab: Any) -> None:
    tab.locator("details.card > summary", has_text="as a table").press("Enter")
    row = tab.locator("table.layers tbody tr").first
    assert row.locator("th code").inner_text() == "fc1"
    assert "finding" in row.inner_text()
    assert tab.locator("table.layers tbody tr").count() == 23


def test_hostile_names_stay_text(page: Any, tab: Any) -> None:
    choose_run(tab, "hostile")
    assert f"{HOSTILE}0" in tab.locator(".banner h1").inner_text()
    assert tab.locator("img").count() == 0
    assert read_plot(tab, "profile", "window.hacked") is None
    ticks = "[...chart.querySelectorAll('.ytick text')].map((one) => one.textContent)"
    assert len(set(read_plot(tab, "profile", ticks))) == 5
    assert read_plot(tab, "profile", "chart.data[0].y[0]").startswith("&lt;img")


def test_tab_name_and_reload(page: Any, framed: Any, board: Server) -> None:
    runs = json.loads(board.get("data/plugin/gradwatch/runs"))["runs"]
    unhealthy = sum(bool(run["findings"]) for run in runs)
    page.get_by_text(f"GradWatch ({unhealthy})").wait_for()
    write_run(board.logdir, "another")

    def appeared() -> bool:
        page.locator(".reload-button").first.click()
        page.wait_for_timeout(700)
        listed = framed.locator('button.chip[data-run="another"]').count()
        return bool(listed and page.get_by_text(f"GradWatch ({unhealthy + 1})").count())

    until(appeared)


def test_without_plotly_the_words_remain(page: Any, board: Server) -> None:
    page.route("**/plotly.min.js", lambda route: route.fulfill(status=404, body="{}"))
    page.route("**/runs", lambda route: route.fulfill(body=without_plotly(board)))
    page.goto(f"{board.address}/#gradwatch")
    frame = page.frame_locator("iframe[src*=gradwatch]")
    frame.get_by_text("pip install 'gradwatch[plots]'").wait_for()
    assert frame.locator(".banner h1").count() == 1
    assert frame.locator("details.card").count() >= 1


def without_plotly(board: Server) -> str:
    """The answer of a server that has no plotly."""
    answer = json.loads(board.get("data/plugin/gradwatch/runs"))
    return json.dumps({**answer, "plotly": False})
