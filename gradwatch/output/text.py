"""An outcome for a terminal: each verdict, what was tried on it, and what was ruled of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import RenderableType
from rich.text import Text

from gradwatch.display.layer_table import DEFAULT_ROWS, make_printable
from gradwatch.display.terminal import render_report
from gradwatch.display.trial_table import render_trials
from gradwatch.gate.outcome import Outcome, RunOutcome
from gradwatch.output.ruling_words import list_rulings

MAX_TABLES = 10
"""Layer tables that are drawn; with many runs nobody reads on, and a table takes 10 ms."""


@dataclass(frozen=True)
class RunPart:
    """One run of an outcome, which may be drawn by another process.

    Attributes:
        run: with its rulings.
        has_table: it is shown with its layer table.
        max_rows: rows of the table beyond which its middle is left out.
    """

    run: RunOutcome
    has_table: bool
    max_rows: int

    def render(self) -> Iterator[RenderableType]:
        """What rich prints, one piece after the other."""
        run = self.run
        yield render_report(run.verdict, table=self.has_table, max_rows=self.max_rows)
        if run.trials and run.verdict.findings:
            yield render_trials(run.trials)
        lines = [make_printable(line) for line in list_rulings(run)]
        if lines:
            yield Text("\n".join(lines))


@dataclass(frozen=True)
class LastWords:
    """What is said behind the runs.

    Attributes:
        n_left_out: layer tables that are not drawn.
    """

    n_left_out: int

    def render(self) -> Iterator[RenderableType]:
        """What rich prints."""
        words = f"Layer tables left out: {self.n_left_out}; --run NAME shows one."
        yield Text(words, style="dim")


def list_unread(outcome: Outcome) -> list[str]:
    """A line for each run that is no proof, with the reason.

    Args:
        outcome: of all runs.
    """
    return [
        make_printable(f"! {name}: not judged: {reason}")
        for name, reason in outcome.unreadable.items()
    ]


def list_parts(outcome: Outcome, max_rows: int = DEFAULT_ROWS) -> list[RunPart | LastWords]:
    """What is drawn, one part after the other.

    Args:
        outcome: of all runs; the first ``MAX_TABLES`` with findings are shown with a layer table.
        max_rows: rows of a layer table beyond which its middle is left out.
    """
    parts: list[RunPart | LastWords] = []
    left = MAX_TABLES
    for run in outcome.runs:
        has_findings = bool(run.verdict.findings)
        parts.append(RunPart(run, has_findings and left > 0, max_rows))
        left -= has_findings
    return [*parts, LastWords(-left)] if left < 0 else parts
