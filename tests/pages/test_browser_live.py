"""The page while trainings go on: nobody presses anything, and nothing one has chosen is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from tests.pages.browsing import choose_run, read_plot, until
from tests.pages.conftest import Server, start_server, write_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """TensorBoard over a directory that is empty at first."""
    yield from start_server(tmp_path_factory.mktemp("live"))


@pytest.fixture
def entry(page: Any, live: Server) -> Any:
    """The tab by itself."""
    page.goto(f"{live.address}/data/plugin_entry.html?name=gradwatch")
    return page


def train_deep_sigmoid(logdir: Path) -> None:
    torch.manual_seed(0)
    layers = [part for _ in range(10) for part in (nn.Linear(8, 8), nn.Sigmoid())]
    model = nn.Sequential(*layers, nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(16, 8), torch.randint(0, 2, (16,))
    with gradwatch.watch(model, optimizer, logdir=logdir, every_n_steps=5):
        for _ in range(60):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()


def test_a_training_begun_later_brings_its_finding_without_a_click(
    entry: Any, live: Server
) -> None:
    entry.get_by_text("No run with gradwatch data here").wait_for()
    assert entry.title() == "gradwatch"
    train_deep_sigmoid(live.logdir / "deep")
    entry.locator(".banner.critical h1").wait_for()
    assert entry.locator(".banner h1").inner_text().startswith("Vanishing gradient: ")
    until(lambda: entry.locator(".state").first.inner_text() == "ended at step 60")
    assert "10 Sigmoid" in entry.locator(".banner").inner_text()
    until(lambda: entry.title() == "(1) gradwatch")
    about = entry.locator('[data-card="about"]').inner_text()
    assert "SGD" in about
    assert "float32" in about


def wait_for_rest(element: Any) -> dict[str, float]:
    """Where an element stands, once a page that is still being laid out has left it there."""
    boxes = [element.bounding_box()]

    def rests() -> bool:
        boxes.append(element.bounding_box())
        return bool(boxes[-1] == boxes[-2])

    until(rests)
    return boxes[-1]


def test_new_records_keep_zoom_chart_and_choices(entry: Any, live: Server) -> None:
    write_run(live.logdir, "growing", activation="ReLU", gain=1.0)
    choose_run(entry, "growing")
    chart = entry.locator('[data-card="who_learns"] .chart')
    chart.evaluate("(chart) => { chart.dataset.kept = 'yes'; }")
    whole = read_plot(entry, "who_learns", "chart.layout.xaxis.range")
    box = wait_for_rest(chart.locator(".nsewdrag"))
    entry.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 20)
    entry.mouse.down()
    entry.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 100, steps=4)
    entry.mouse.up()
    reset = entry.locator('[data-card="who_learns"]').get_by_role("button", name="Reset zoom")
    reset.wait_for()
    seen = read_plot(entry, "who_learns", "chart.layout.xaxis.range")
    assert whole[0] < seen[0] < seen[1] < whole[1]
    write_run(live.logdir, "growing", n_steps=80, activation="ReLU", gain=1.0)
    until(lambda: read_plot(entry, "profile", "chart.layout.xaxis.range[1]") == 79.5)
    assert read_plot(entry, "who_learns", "chart.dataset.kept") == "yes"
    assert read_plot(entry, "who_learns", "chart.layout.xaxis.range") == seen
    assert entry.locator('button.chip[aria-pressed="true"]').inner_text().startswith("growing")
    reset.click()
    until(lambda: read_plot(entry, "who_learns", "chart.layout.xaxis.range[1]") == 79.5)


def test_address_leads_to_run_step_layer_and_card(page: Any, live: Server) -> None:
    write_run(live.logdir, "growing", n_steps=80, activation="ReLU", gain=1.0)
    place = "run=growing&step=30&layer=fc3&card=updates"
    page.goto(f"{live.address}/data/plugin_entry.html?name=gradwatch#{place}")
    page.locator('.pane[aria-label="Run growing"][data-drawn]').wait_for()
    assert page.locator("output.readout").inner_text() == "30"
    assert len(read_plot(page, "profile", "chart.layout.shapes")) == 2  # step, and fc3's frame
    page.get_by_role("slider", name="Step").press("ArrowRight")
    until(lambda: "step=31" in page.url)
    assert "run=growing" in page.url


def test_two_runs_tell_where_they_part(page: Any, live: Server) -> None:
    write_run(live.logdir, "steady", 6, activation="ReLU", gain=1.0)
    write_run(live.logdir, "falls", 6, activation="ReLU", gain=lambda s: 1.0 if s < 30 else 0.1)
    page.goto(f"{live.address}/data/plugin_entry.html?name=gradwatch#run=steady&with=falls")
    rows = page.locator("table.compared-runs tbody tr")
    until(lambda: rows.count() == 2 and "at step 30: " in rows.nth(1).inner_text())
    assert "times less gradient than steady" in rows.nth(1).inner_text()
    scale = "[chart.data[0].zmin, chart.data[0].z.length]"
    assert read_plot(page, "difference", scale) == [-4, 6]


def test_numbers_of_a_card_are_saved_as_csv(entry: Any, live: Server) -> None:
    write_run(live.logdir, "steady", 6, activation="ReLU", gain=1.0)
    choose_run(entry, "steady")
    with entry.expect_download() as caught:
        entry.locator('[data-card="who_learns"]').get_by_role("button", name="CSV").click()
    lines = Path(caught.value.path()).read_text(encoding="utf-8-sig").splitlines()
    assert lines[0].startswith('"layer",0,1,')
    assert lines[1].startswith('"fc1",0.')
    assert len(lines) == 7


# A browser lets a page save some ten files without a press, and a picture takes a while to draw.
KEEP_DOWNLOADS = """() => {
  const [blobs, make] = [{}, URL.createObjectURL];
  window.saved = {};
  URL.createObjectURL = (blob) => { const url = make(blob); blobs[url] = blob; return url; };
  HTMLAnchorElement.prototype.click = async function () {
    const name = this.download;
    const content = new Uint8Array(await blobs[this.href].arrayBuffer());
    window.saved[name] = [content.length, String.fromCharCode(...content.slice(0, 4000))];
  };
}"""


def test_each_card_is_saved_as_picture_and_as_numbers(entry: Any, live: Server) -> None:
    write_run(live.logdir, "saved", 6, activation="ReLU", gain=1.0, dead=0.9, histogram_every=20)
    choose_run(entry, "saved")
    entry.evaluate(KEEP_DOWNLOADS)
    cards = entry.locator(".card[data-card]", has=entry.get_by_role("button", name="CSV"))
    names = [card.get_attribute("data-card") for card in cards.all()]
    assert names == ["who_learns", "loss", "profile", "dead", "units", "updates"]
    for name in names:
        for label in ("CSV", "PNG"):
            entry.locator(f'[data-card="{name}"]').get_by_role("button", name=label).click()
            file = f"gradwatch_{name}.{label.lower()}"
            until(lambda file=file: entry.evaluate("(file) => file in window.saved", file))
    saved = entry.evaluate("window.saved")
    for name in names:
        size, head = saved[f"gradwatch_{name}.png"]
        assert size > 5000, name
        assert head.startswith("\x89PNG"), name
        _, text = saved[f"gradwatch_{name}.csv"]
        lines = text.removeprefix("ï»¿").split("\r\n")[:4]
        assert len(lines) == 4, name
        assert len({line.count(",") for line in lines}) == 1, name


def test_a_code_opens_what_the_rule_looks_for(entry: Any) -> None:
    choose_run(entry, "deep")
    entry.locator(".findings").get_by_role("button", name="GW101").first.click()
    said = entry.locator("dialog.rule").inner_text()
    assert "Backpropagation multiplies" in said
    assert "||g||*||w||" in said
    assert "*whole" not in said


def test_nothing_that_axe_complains_about(page: Any, server: Server) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.emulate_media(color_scheme="light")
    page.goto(f"{server.address}/data/plugin_entry.html?name=gradwatch#run=sigmoid&with=healthy")
    page.locator("table.compared-runs").wait_for()
    page.locator("details.card > summary").first.press("Enter")
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_timeout(300)  # a theme's colours fade in
        found = axe.Axe().run(page).response["violations"]
        nodes = [
            (violation["id"], [node["html"][:90] for node in violation["nodes"][:2]])
            for violation in found
        ]
        assert nodes == [], theme
