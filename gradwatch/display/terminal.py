"""A verdict for the terminal: the headline first, then cause and remedy, then the layer table."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from gradwatch.display.coverage_words import describe_coverage
from gradwatch.display.headline import headline, say_region, since
from gradwatch.display.layer_table import (
    DEFAULT_ROWS,
    LEGEND,
    MAX_NOTES,
    Gap,
    TableColumn,
    abridge_rows,
    choose_columns,
    cut_name,
    make_printable,
)
from gradwatch.display.sampling_words import describe_pace, describe_trained
from gradwatch.schema.kinds import describe_cause
from gradwatch.verdict.findings import Finding, LayerSummary, Verdict

# Distinguished by sign and word as well as by colour, which some cannot see.
_STYLES = {"critical": "bold red", "warning": "bold yellow", "healthy": "bold green"}
_SIGNS = {"critical": "✗", "warning": "!", "healthy": "✓"}
_ASCII_SIGNS = {"critical": "X", "warning": "!", "healthy": "OK"}
_DEFAULT_WIDTH = 100
_BAR_CELLS = 8
_BAR_DECADES = 8.0  # an empty bar is 1e-8 of the full gradient
_BAR_FROM_WIDTH = 96  # narrower terminals need the space for names
_TYPE_FROM_WIDTH = 72
_TYPE_WIDTH = 16
_MIN_NAME_WIDTH = 8
_CELL_FRAME = 3  # padding on both sides and a divider
_MAX_FINDINGS = 12
_INDENT = 2  # of a finding's lines
_GAP = 2  # between a label and what it labels
_CODE = re.compile(r"`([^`]*)`")


def render_report(
    verdict: Verdict, *, table: bool | None = None, max_rows: int = DEFAULT_ROWS
) -> VerdictView:
    """The verdict as something that rich prints.

    Args:
        verdict: what to show.
        table: with the layer table; by default only when there are findings.
        max_rows: rows of the table beyond which its middle is left out.
    """
    return VerdictView(verdict, verdict.records > 0 if table else table, max_rows)


def write_text(
    verdict: Verdict,
    *,
    width: int = _DEFAULT_WIDTH,
    encoding: str = "utf-8",
    max_rows: int = DEFAULT_ROWS,
) -> str:
    """The verdict as plain text, as ``print(report)`` shows it.

    Args:
        verdict: to write.
        width: columns.
        encoding: that the text must fit: outside of Unicode the table is drawn in ASCII, and
            characters that the encoding lacks are escaped.
        max_rows: rows of the table beyond which its middle is left out.
    """
    stored = io.BytesIO()
    out = io.TextIOWrapper(stored, encoding=encoding, errors="backslashreplace", newline="")
    console = Console(file=out, width=width, color_system=None, legacy_windows=False)
    console.print(render_report(verdict, max_rows=max_rows))
    out.flush()
    text = stored.getvalue().decode(encoding)
    return "\n".join(line.rstrip() for line in text.splitlines())


def write_layers(verdict: Verdict, *, width: int = _DEFAULT_WIDTH) -> str:
    """The layer table alone, as plain text.

    Args:
        verdict: of one run.
        width: columns of the terminal.
    """
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, legacy_windows=False)
    console.print(_draw_table(verdict.layers, console.options, DEFAULT_ROWS))
    console.print(draw_legend())
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


@dataclass(frozen=True)
class VerdictView:
    """A verdict that rich can print at any width, with or without Unicode and colour."""

    verdict: Verdict
    table: bool | None = None
    max_rows: int = DEFAULT_ROWS

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        verdict = self.verdict
        yield _draw_headline(verdict, options)
        for finding in verdict.findings[:_MAX_FINDINGS]:
            yield Text()
            yield from _lay_out(list(_describe_finding(finding, verdict)), console, options)
        left_out = len(verdict.findings) - _MAX_FINDINGS
        if left_out > 0:
            yield Text(f"  ... and {left_out} more findings", style="dim")
        wanted = bool(verdict.findings) if self.table is None else self.table
        if wanted and verdict.layers:
            yield _draw_table(verdict.layers, options, self.max_rows)
            yield draw_legend()
        covered = describe_coverage(verdict.coverage)
        if covered:
            yield Text(make_printable(f"{covered}."), style="dim")
        if verdict.trains.all_tensors:
            yield Text(f"{describe_trained(verdict.trains)}.", style="dim")
        yield from _draw_remarks(verdict)


def _draw_headline(verdict: Verdict, options: ConsoleOptions) -> Text:
    level = _find_level(verdict)
    signs = _ASCII_SIGNS if options.ascii_only else _SIGNS
    run = "" if verdict.run in ("", ".") else f"{make_printable(verdict.run)}: "
    line = Text(f"{signs[level]} {run}", style=_STYLES[level])
    for piece in headline(verdict):
        line.append(make_printable(piece.text), style="underline" if piece.is_name else "")
    if verdict.records and not verdict.findings:
        steps = f"steps {verdict.first_step:,} to {verdict.last_step:,}"
        pace = describe_pace(verdict)
        line.append(f"  ({verdict.records:,} recorded, {steps}{pace})", style="not bold dim")
    return line


def _find_level(verdict: Verdict) -> str:
    if not verdict.records:
        return "warning"
    if verdict.findings:
        return verdict.findings[0].severity
    return "healthy" if verdict.healthy else "warning"


def _describe_finding(finding: Finding, verdict: Verdict) -> Iterator[tuple[Text, Text]]:
    """Its rows: what each says in a word, and the words."""
    style = _STYLES.get(finding.severity, "bold")
    title = Text(f"{finding.kind.capitalize()} [{finding.code}]. ", style=style)
    title.append(since(finding, verdict), style="not bold default")
    yield Text(finding.severity.upper(), style=style), title
    yield Text("What"), _draw_prose(finding.message)
    if finding.cause:
        words = describe_cause(finding.cause)
        known = f"{finding.cause}: {words}" if words != finding.cause else words
        yield Text("Cause"), Text(known)
    yield Text("Remedy"), _draw_prose(finding.remedy, "bold")
    if finding.layers:
        region = "".join(piece.text for piece in say_region(verdict, finding))
        yield Text("Layers"), Text(make_printable(region))
    if finding.source_apart:
        yield Text("Code"), Text(make_printable(finding.source_apart))


def _lay_out(
    rows: Sequence[tuple[Text, Text]], console: Console, options: ConsoleOptions
) -> Iterator[Segment]:
    """Labels on the left, and beside them what is said; a ``rich.Table`` takes four times as long.

    Of the 2 ms for each run of a large log directory that was most.
    """
    labels = max(label.cell_len for label, _ in rows) + _GAP
    width = max(options.max_width - _INDENT - labels, 1)
    for label, text in rows:
        start = Text(" " * _INDENT).append_text(label)
        for line in text.wrap(console, width, overflow="fold"):
            start.pad_right(_INDENT + labels - start.cell_len)
            yield from start.append_text(line).render(console, end="\n")
            start = Text()


def _draw_prose(text: str, style: str = "") -> Text:
    """A sentence; what stands between backticks is a name, set in colour instead."""
    line = Text(style=style)
    for place, part in enumerate(_CODE.split(make_printable(text))):
        line.append(part, style="cyan" if place % 2 else "")
    return line


def _draw_table(layers: Sequence[LayerSummary], options: ConsoleOptions, max_rows: int) -> Table:
    columns = choose_columns(layers)
    rows = abridge_rows(layers, max_rows)
    style = _TableStyle(
        with_bar=options.max_width >= _BAR_FROM_WIDTH,
        with_type=options.max_width >= _TYPE_FROM_WIDTH,
        ascii_only=options.ascii_only,
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("Layer", no_wrap=True)
    if style.with_type:
        table.add_column("Type", no_wrap=True)
    if style.with_bar:
        table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    name_width = _measure_names(rows, columns, options.max_width, style)
    for row in rows:
        if isinstance(row, Gap):
            table.add_row("", Text(cut_name(f"... {row}", name_width), style="dim"))
        else:
            table.add_row(*_write_cells(row, columns, name_width, style))
    return table


@dataclass(frozen=True)
class _TableStyle:
    with_bar: bool
    with_type: bool
    ascii_only: bool


def _measure_names(
    rows: Sequence[LayerSummary | Gap],
    columns: Sequence[TableColumn],
    max_width: int,
    style: _TableStyle,
) -> int:
    """Cells that the other columns leave for the names."""
    shown = [row for row in rows if not isinstance(row, Gap)]
    widths = [len(_ASCII_SIGNS["critical"])] + [_BAR_CELLS] * style.with_bar
    if style.with_type:
        widths.append(min(max(len(row.type) for row in shown), _TYPE_WIDTH))
    for column in columns:
        widths.append(max(len(column.title), *(len(column.write(row)) for row in shown)))
    frame = _CELL_FRAME * (len(widths) + 1) + 1
    return max(max_width - sum(widths) - frame, _MIN_NAME_WIDTH)


def _write_cells(
    layer: LayerSummary, columns: Sequence[TableColumn], name_width: int, style: _TableStyle
) -> Iterator[Text]:
    signs, dots = (_ASCII_SIGNS, "...") if style.ascii_only else (_SIGNS, "…")
    weight = "bold" if layer.flagged else ""
    yield Text(signs["critical"] if layer.flagged else "", style=_STYLES["critical"])
    yield Text(cut_name(make_printable(layer.fqn), name_width, dots), style=weight)
    if style.with_type:
        yield Text(cut_name(make_printable(layer.type), _TYPE_WIDTH, dots), style="dim")
    if style.with_bar:
        yield _draw_bar(layer, style.ascii_only)
    for column in columns:
        yield Text(column.write(layer), style=weight)


def _draw_bar(layer: LayerSummary, ascii_only: bool) -> Text:
    """How much gradient arrives, on a logarithmic scale."""
    full, empty = ("#", ".") if ascii_only else ("█", "·")
    if math.isnan(layer.grad_ratio):
        return Text()
    decades = math.log10(min(max(layer.grad_ratio, 10**-_BAR_DECADES), 1.0))
    n_full = round(_BAR_CELLS * (1 + decades / _BAR_DECADES))
    bar = Text(full * n_full, style="red" if layer.flagged else "blue")
    return bar.append(empty * (_BAR_CELLS - n_full), style="dim")


def _draw_remarks(verdict: Verdict) -> Iterator[Text]:
    for note in verdict.notes[:MAX_NOTES]:
        yield _draw_prose(f"Note ({note.code}): {note.message}", "dim")
    if len(verdict.notes) > MAX_NOTES:
        yield Text(f"... and {len(verdict.notes) - MAX_NOTES} more notes", style="dim")
    for words in verdict.unseen:
        yield Text(f"Not measured: {make_printable(words)}", style="dim")


def draw_legend() -> Text:
    """What the columns mean, for those who see the table for the first time."""
    return Text(LEGEND, style="dim")
