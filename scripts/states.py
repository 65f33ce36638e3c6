"""Picture every card in every state, to be looked at: ``python -m scripts.states --out DIR``.

Made runs, one for each way in which a run can stand and one for each number of layers, as the tab
shows them: whole pages, in both themes, 1280 and 800 pixels wide. Nothing of it goes into the
repository. Needs what ``scripts/screenshots.py`` needs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from scripts.screenshots import open_browser, serve
from tests.pages.conftest import write_trials
from tests.pages.states import HEALTHY, WRITERS, add_loss, write_session
from tests.pages.synthetic import make_layer_set, make_records

WIDTHS = (1280, 800)
THEMES = ("light", "dark")


def main() -> None:
    """Write, serve, take."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(WRITERS), choices=list(WRITERS))
    parser.add_argument("--widths", type=int, nargs="*", default=list(WIDTHS))
    parser.add_argument("--themes", nargs="*", default=list(THEMES), choices=THEMES)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = [*options.only, "running"]
    with tempfile.TemporaryDirectory() as scratch:
        logdir = Path(scratch)
        with (
            write_runs(logdir, options.only) as go_on,
            serve(logdir) as address,
            open_browser() as browser,
        ):
            for theme, width in product(options.themes, options.widths):
                viewport = {"width": width, "height": 900}
                page = browser.new_page(viewport=viewport, color_scheme=theme)
                for name in take(page, address, names, go_on):
                    path = options.out / f"{name}_{theme}_{width}.png"
                    page.screenshot(path=path, full_page=True)
                page.close()


@contextmanager
def write_runs(logdir: Path, names: list[str]) -> Iterator[Callable[[], None]]:
    """All runs; one of them goes on, each time that it is asked to."""
    for name in names:
        WRITERS[name](logdir)
    if "ended" in names:
        write_trials(logdir, "ended")
    live = write_session(logdir, "running", **HEALTHY)
    layers = make_layer_set(12, "ReLU")
    steps = iter(range(60, 10_000))

    def go_on() -> None:
        for record in make_records(layers, [next(steps)], gain=1.02):
            live.write_record(add_loss(record, falls=True))

    yield go_on
    live.close()


def take(page: Any, address: str, names: list[str], go_on: Callable[[], None]) -> Iterator[str]:
    """Shows each run; answers its name when it is on the screen."""
    drawn = ".pane[data-drawn], .pane .banner.empty, .pane .banner.error"
    for name in names:
        go_on()
        page.goto("about:blank")
        page.goto(f"{address}/data/plugin_entry.html?name=gradwatch#run={name}")
        page.locator(f'.pane[aria-label="Run {name}"]').wait_for()
        page.locator(drawn).first.wait_for()
        page.wait_for_timeout(600)  # the last frame of Plotly's drawing
        yield name


if __name__ == "__main__":
    main()
