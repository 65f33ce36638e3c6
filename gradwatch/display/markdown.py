"""A verdict as Markdown, for a pull request or TensorBoard's Text tab.

Layer names are untrusted: nothing of theirs may become markup, end a table cell or break a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gradwatch.display.coverage_words import describe_coverage
from gradwatch.display.headline import Sentence, headline, say_region, since
from gradwatch.display.layer_table import (
    DEFAULT_ROWS,
    LEGEND,
    MAX_NOTES,
    Gap,
    abridge_rows,
    choose_columns,
    make_printable,
)
from gradwatch.display.sampling_words import describe_pace, describe_trained
from gradwatch.schema.kinds import describe_cause
from gradwatch.verdict.findings import Finding, LayerSummary, Verdict

_PLAIN_NAME = re.compile(r"[^`|\\<>&]+")  # may stand between backticks, in a table too
_CODE = re.compile(r"`([^`]*)`")
_MARKUP = re.compile(r"[&<>|\\`*_\[\]{}#~$!@]")
_SIGNS = {"critical": "❌", "warning": "⚠️", "note": "🛈"}
_HEALTHY_SIGN = "✅"


def write_report(verdict: Verdict, *, max_rows: int = DEFAULT_ROWS) -> str:
    """The whole verdict: headline, findings with cause and remedy, layer table, notes.

    Args:
        verdict: of one run.
        max_rows: rows of the layer table beyond which its middle is left out.
    """
    return "\n".join(_write_report(verdict, max_rows)).strip() + "\n"


def _write_report(verdict: Verdict, max_rows: int) -> Iterator[str]:
    name = "" if verdict.run in ("", ".") else f" {write_name(verdict.run)}"
    yield f"## gradwatch{name}"
    yield ""
    yield f"{_choose_sign(verdict)} **{_write_sentence(headline(verdict))}**"
    yield ""
    if verdict.records:
        steps = f"{verdict.first_step:,} to {verdict.last_step:,}"
        said = describe_trained(verdict.trains), _escape(describe_coverage(verdict.coverage))
        what = "".join(f" {text}." for text in said if text)
        yield f"{verdict.records:,} recorded steps, {steps}{describe_pace(verdict)}.{what}"
    for finding in verdict.findings:
        yield ""
        yield write_finding(finding, verdict)
    if verdict.findings and verdict.layers:
        yield ""
        yield write_table(verdict.layers, max_rows)
    yield from _write_remarks(verdict)


def _choose_sign(verdict: Verdict) -> str:
    if verdict.records and verdict.healthy:
        return _HEALTHY_SIGN
    return _SIGNS[verdict.findings[0].severity] if verdict.findings else _SIGNS["warning"]


def write_finding(finding: Finding, verdict: Verdict | None = None) -> str:
    """One finding: what, since when, cause, remedy, layers.

    Args:
        finding: what to write.
        verdict: the run it belongs to, for "still so"; without it the steps are given as numbers.
    """
    when = (
        since(finding, verdict)
        if verdict is not None
        else f"Steps {finding.first_step:,} to {finding.last_step:,}."
    )
    lines = [
        f"### {_SIGNS.get(finding.severity, '')} {finding.kind.capitalize()} "
        f"({finding.severity}, {finding.code})",
        "",
        escape_prose(finding.message),
        "",
        f"- **When:** {when}",
    ]
    if finding.cause:
        words = describe_cause(finding.cause)
        lines.append(
            f"- **Cause:** {write_name(finding.cause)}"
            + (f", {words}" if words != finding.cause else "")
        )
    lines.append(f"- **Remedy:** {escape_prose(finding.remedy)}")
    if finding.layers:
        region = say_region(verdict or Verdict((finding,)), finding)
        lines.append(f"- **Layers:** {_write_sentence(region)}")
    if finding.source_apart:
        lines.append(f"- **Code:** {write_name(finding.source_apart)}")
    return "\n".join(lines)


def write_table(layers: Sequence[LayerSummary], max_rows: int = DEFAULT_ROWS) -> str:
    """The layer table with its legend; flagged layers carry a cross.

    Args:
        layers: in forward order.
        max_rows: rows beyond which the middle is left out.
    """
    columns = choose_columns(layers)
    lines = [
        "| | Layer | Type | " + " | ".join(column.title for column in columns) + " |",
        "|---|---|---|" + "---:|" * len(columns),
    ]
    for row in abridge_rows(layers, max_rows):
        if isinstance(row, Gap):
            cells = ["", f"… {row}", "", *("" for _ in columns)]
        else:
            sign = _SIGNS["critical"] if row.flagged else ""
            numbers = (column.write(row) for column in columns)
            cells = [sign, write_name(row.fqn), write_name(row.type), *numbers]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", LEGEND])


def _write_remarks(verdict: Verdict) -> Iterator[str]:
    if verdict.notes or verdict.unseen:
        yield ""
        yield "### Notes"
        yield ""
    for note in verdict.notes[:MAX_NOTES]:
        yield f"- {note.code}: {escape_prose(note.message)}"
    if len(verdict.notes) > MAX_NOTES:
        yield f"- and {len(verdict.notes) - MAX_NOTES} more"
    for words in verdict.unseen:
        yield f"- Not measured: {escape_prose(words)}"


def _write_sentence(sentence: Sentence) -> str:
    return "".join(
        write_name(piece.text) if piece.is_name else escape_prose(piece.text) for piece in sentence
    )


def write_name(name: str) -> str:
    """A name as code, or, where it holds what code cannot, with every mark of it escaped.

    Args:
        name: untrusted; empty for the model itself.
    """
    name = make_printable(name)
    if not name.strip():
        return "(the model)"
    return f"`{name}`" if _PLAIN_NAME.fullmatch(name) else _escape(name)


def escape_prose(text: str) -> str:
    """A sentence whose code spans stay, as far as they hold plain names, and nothing else does.

    Args:
        text: with names between backticks.

    Example:
        >>> escape_prose("`fc1` is *dead*")
        '`fc1` is &#42;dead&#42;'
    """
    parts = _CODE.split(make_printable(text))
    return "".join(
        write_name(part) if place % 2 else _escape(part) for place, part in enumerate(parts)
    )


def _escape(text: str) -> str:
    """Character references: unlike backslashes they work in table cells of every Markdown."""
    return _MARKUP.sub(lambda match: f"&#{ord(match.group())};", text)
