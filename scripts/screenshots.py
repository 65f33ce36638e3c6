"""Make docs/images/*.png: the gradwatch tab on the demo's real runs, in both themes.

    python scripts/screenshots.py [--out docs/images] [--logdir DIR]

Needs ``gradwatch[demo,plots]``, Playwright for Python and Chromium (``GRADWATCH_CHROMIUM``, by
default /usr/bin/chromium). Trains the demo unless ``--logdir`` names a directory that holds it.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradwatch.demo import run_demo
from gradwatch.log.reader import read_runs

STEPS = 600  # of the demo's trainings, as by default
PATIENCE_SECONDS = 60
CARDS = {
    "remedies": "Remedies that were tried",
    "units": "Where the units sit",
    "updates": "Update ratio",
}
"""Pieces of the unhealthy run's page that get a picture of their own, and their titles."""

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SERVE = """
import sys
from tensorboard import default, program
from gradwatch.tensorboard_plugin.loader import GradWatchLoader
server = program.TensorBoard(plugins=[*default.get_static_plugins(), GradWatchLoader()])
server.configure(argv=[None, *sys.argv[1:]])
server.main()
"""


def main() -> None:
    """Train, serve, look."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--logdir", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        logdir = options.logdir or Path(scratch)
        if options.logdir is None:
            run_demo(str(logdir), STEPS)
        names = [run.label for run in read_runs(str(logdir)) if len(run)]
        with serve(logdir) as address, open_browser() as browser:
            for dark in (False, True):
                take_all(browser, address, dark, names, options.out)


@contextmanager
def serve(logdir: Path) -> Iterator[str]:
    """TensorBoard over a directory, at the address that is given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", SERVE, "--logdir", str(logdir), "--port", str(port)]
    process = subprocess.Popen(command)
    address = f"http://127.0.0.1:{port}"
    try:
        await_runs(address)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def await_runs(address: str) -> None:
    """Wait until the tab has read its runs.

    Raises:
        TimeoutError: it has not within a minute.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/data/plugin/gradwatch/runs") as answer:
                if b'"settled":true' in (body := answer.read()) and b'"records"' in body:
                    return
        except OSError:
            pass  # not up yet
        time.sleep(0.5)
    raise TimeoutError(f"{address} has read no run within {PATIENCE_SECONDS} s")


@contextmanager
def open_browser() -> Iterator[Any]:
    """Chromium through Playwright."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("GRADWATCH_CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def take_all(browser: Any, address: str, dark: bool, names: list[str], out: Path) -> None:
    """All pictures of one theme: each run, both side by side, the tab's name from elsewhere."""
    theme = "dark" if dark else "light"
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/?darkMode={str(dark).lower()}#gradwatch")
    frame = page.frame_locator("iframe[src*=gradwatch]")
    for name in names:
        show_run(page, frame, name)
        page.screenshot(path=out / f"tab_{name}_{theme}.png")
        take_cards(frame, theme, out)
    if len(names) > 1:
        others = frame.get_by_role("combobox", name="Compare with another run")
        others.select_option(names[0])
        frame.locator(".pane[data-drawn]").nth(1).wait_for()
        page.set_viewport_size({"width": 1280, "height": 1000})
        page.wait_for_timeout(1500)
        page.screenshot(path=out / f"tab_compare_{theme}.png")
    if not dark:
        page.goto(f"{address}/#scalars")
        page.locator("text=/GradWatch/i").first.wait_for()
        page.screenshot(
            path=out / "tab_name.png", clip={"x": 0, "y": 0, "width": 900, "height": 70}
        )
    page.close()


def take_cards(frame: Any, theme: str, out: Path) -> None:
    """Of an unhealthy run, what lies further down."""
    for card, title in CARDS.items():
        found = frame.locator("section.card", has_text=title)
        if frame.locator("table.trials").count() and found.count():
            found.first.screenshot(path=out / f"card_{card}_{theme}.png")


def show_run(page: Any, frame: Any, name: str) -> None:
    """Press a run's chip and wait until its charts are on the screen."""
    frame.locator(f'button.chip[data-run="{name}"]').click()
    frame.locator(f'.pane[aria-label="Run {name}"][data-drawn]').wait_for()
    page.wait_for_timeout(700)  # the last frame of Plotly's drawing


if __name__ == "__main__":
    main()
