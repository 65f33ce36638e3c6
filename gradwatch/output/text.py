"""An outcome for a terminal: each verdict, what was tried on it, and what was ruled of it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from gradwatch.display.layer_table import DEFAULT_ROWS, make_printable
from gradwatch.display.terminal import render_report
from gradwatch.display.trial_table import render_trials
from gradwatch.gate.outcome import Outcome, RunOutcome
from gradwatch.output.places import describe_gone


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
        lines = list(_list_rulings(run))
        if lines:
            yield Text("\n".join(lines))


def _list_rulings(run: RunOutcome) -> Iterator[str]:
    for ruling in run.rulings:
        if ruling.reason:
            words = "Fails" if ruling.fails else "Passes"
            text = f"{ruling.finding.kind} [{ruling.finding.code}]: {ruling.reason}"
            yield f"{words}: {make_printable(text)}"
    for known in run.gone:
        yield make_printable(f"Gone since the baseline: {describe_gone(known)}")
