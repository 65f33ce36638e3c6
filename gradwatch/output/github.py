"""An outcome as workflow commands, which GitHub Actions shows as annotations of a pull request.

Names of layers are untrusted text: what is escaped here is all that GitHub's runner gives a meaning
to (in a command's message ``%``, CR and LF; in its properties ``:`` and ``,`` as well).
"""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.display.layer_table import make_printable
from gradwatch.gate.outcome import Outcome, Ruling, RunOutcome
from gradwatch.output.locations import find_location
from gradwatch.output.ruling_words import describe_gone, describe_unjudged
from gradwatch.schema.kinds import find_kind

_IN_MESSAGE = (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"))
_IN_PROPERTY = (*_IN_MESSAGE, (":", "%3A"), (",", "%2C"))


def write_annotations(outcome: Outcome) -> str:
    """One command a line, those that fail the job first: GitHub shows ten of a level in a step.

    Args:
        outcome: of all runs.

    Source:
        GitHub Docs, "Workflow commands for GitHub Actions", and its limits on annotations.
    """
    lines = sorted(_list_commands(outcome), key=_rank)
    n_failing = sum(run.fails for run in outcome.runs)
    words = f"gradwatch: {n_failing} of {len(outcome.runs)} runs fail, status {outcome.status}"
    return "\n".join([*lines, words])


def _rank(command: str) -> int:
    return ("::error", "::warning", "::notice").index(command.partition(" ")[0])


def _list_commands(outcome: Outcome) -> Iterator[str]:
    for name, reason in outcome.unreadable.items():
        yield write_command("error", f"{name}: {reason}", title="gradwatch: not judged")
    for run in outcome.runs:
        unjudged = describe_unjudged(run)
        if unjudged:
            text = f"{run.verdict.run}: {unjudged}"
            yield write_command("error", text, title="gradwatch: not judged")
        yield from (_write_ruling(ruling, run) for ruling in run.rulings)
        for known in run.gone:
            text = f"{run.verdict.run}: {describe_gone(known)} is gone; write the baseline again"
            yield write_command("notice", text, title="gradwatch: gone")


def _write_ruling(ruling: Ruling, run: RunOutcome) -> str:
    finding, place = ruling.finding, find_location(ruling.finding)
    words = find_kind(finding.kind).title
    properties = {} if place is None else {"file": place.file}
    if place is not None and place.line is not None:
        properties["line"] = str(place.line)
    properties["title"] = f"{words} ({finding.code}) in {run.verdict.run or 'the model'}"
    reason = f" ({ruling.reason})" if ruling.reason else ""
    text = f"{finding.message}{reason}\nRemedy: {finding.remedy}"
    return write_command("error" if ruling.fails else "notice", text, **properties)


def write_command(level: str, message: str, **properties: str) -> str:
    """One workflow command, such as ``::error title=...::message``.

    Args:
        level: ``"error"``, ``"warning"`` or ``"notice"``.
        message: may have several lines.
        **properties: ``title``, ``file``, ``line``; as text.

    Example:
        >>> write_command("notice", "50 % dead", title="act: 2")
        '::notice title=act%3A 2::50 %25 dead'
    """
    pairs = ",".join(
        f"{key}={_escape(make_printable(text), _IN_PROPERTY)}" for key, text in properties.items()
    )
    body = "\n".join(make_printable(line) for line in message.splitlines())
    return f"::{level} {pairs}::{_escape(body, _IN_MESSAGE)}"


def _escape(text: str, table: tuple[tuple[str, str], ...]) -> str:
    for plain, escaped in table:
        text = text.replace(plain, escaped)
    return text
