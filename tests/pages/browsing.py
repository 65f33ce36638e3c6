"""What tests of the page do again and again: choose a run, read a chart, wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.pages.conftest import PATIENCE


def choose_run(frame: Any, name: str) -> None:
    """Press a run's chip and wait for its charts."""
    frame.locator(f'button.chip[data-run="{name}"]').click()
    frame.locator(f'.pane[aria-label="Run {name}"][data-drawn]').first.wait_for()


def until(check: Callable[[], bool]) -> None:
    """Wait until something holds in the page."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not check():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.05)


def read_plot(frame: Any, card: str, expression: str) -> Any:
    """Something of the chart of this card."""
    chart = frame.locator(f'[data-card="{card}"] .chart').first
    return chart.evaluate(f"(chart) => {expression}")
