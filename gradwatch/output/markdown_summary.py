"""An outcome as Markdown: a pull request's comment, or the summary page of a CI job."""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.display.markdown import escape_prose, write_name, write_report
from gradwatch.gate.outcome import Outcome, RunOutcome
from gradwatch.output.ruling_words import list_rulings

_NOT_JUDGED = "⚠️ not judged"


def write_summary(outcome: Outcome) -> str:
    """A table of the runs where there are several, then each of them.

    Args:
        outcome: of all runs.
    """
    return "\n".join(_write_parts(outcome))


def _write_parts(outcome: Outcome) -> Iterator[str]:
    if len(outcome.runs) > 1 or outcome.unreadable:
        yield from _write_overview(outcome)
    for run in outcome.runs:
        yield write_report(run.verdict)
        rulings = [f"- {escape_prose(line)}" for line in list_rulings(run)]
        yield from (*rulings, "") if rulings else ()


def _write_overview(outcome: Outcome) -> Iterator[str]:
    yield "| Run | Result | Findings |"
    yield "|---|---|---|"
    for run in outcome.runs:
        kinds = ", ".join(dict.fromkeys(ruling.finding.kind for ruling in run.rulings))
        yield f"| {write_name(run.verdict.run)} | {name_result(run)} | {kinds} |"
    for name, reason in outcome.unreadable.items():
        yield f"| {write_name(name)} | {_NOT_JUDGED} | {escape_prose(reason)} |"
    yield ""


def name_result(run: RunOutcome) -> str:
    """``"❌ fails"``, or the status of a run that does not.

    Args:
        run: with its rulings.
    """
    if run.fails:
        return "❌ fails"
    if run.leaves_unjudged:
        return _NOT_JUDGED
    return "✅ passes" if run.rulings else "✅ healthy"
