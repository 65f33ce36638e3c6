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


def render_outcome(outcome: Outcome, max_rows: int = DEFAULT_ROWS) -> Iterator[RenderableType]:
    """What rich prints, one piece after the other.

    Args:
        outcome: of all runs.
        max_rows: rows of a layer table beyond which its middle is left out.
    """
    for run in outcome.runs:
        yield render_report(run.verdict, max_rows=max_rows)
        if run.trials and run.verdict.findings:
            yield render_trials(run.trials)
        lines = [make_printable(line) for line in list_rulings(run)]
        if lines:
            yield Text("\n".join(lines))
