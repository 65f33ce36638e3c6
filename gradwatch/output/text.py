"""An outcome for a terminal: each verdict, what was tried on it, and what was ruled of it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from gradwatch.display.layer_table import DEFAULT_ROWS, make_printable
from gradwatch.display.terminal import render_report
from gradwatch.display.trial_table import render_trials
from gradwatch.gate.outcome import Outcome
from gradwatch.output.ruling_words import list_rulings

MAX_TABLES = 10
"""Layer tables that are drawn; with many runs nobody reads on, and a table takes 10 ms."""


def render_outcome(outcome: Outcome, max_rows: int = DEFAULT_ROWS) -> Iterator[RenderableType]:
    """What rich prints, one piece after the other.

    Args:
        outcome: of all runs; the first ``MAX_TABLES`` with findings are shown with a layer table.
        max_rows: rows of a layer table beyond which its middle is left out.
    """
    left = MAX_TABLES
    for run in outcome.runs:
        has_table = bool(run.verdict.findings) and left > 0
        left -= bool(run.verdict.findings)
        yield render_report(run.verdict, table=has_table, max_rows=max_rows)
        if run.trials and run.verdict.findings:
            yield render_trials(run.trials)
        lines = [make_printable(line) for line in list_rulings(run)]
        if lines:
            yield Text("\n".join(lines))
    if left < 0:
        yield Text(f"Layer tables left out: {-left}; --run NAME shows one.", style="dim")
