"""Trials of remedies for the terminal: one table, best first, and what the best one changed."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gradwatch.display.layer_table import join_unique, make_printable, write_number
from gradwatch.verdict.trials import Trial
from gradwatch.wording.phrases import name_number

_DEFAULT_WIDTH = 100
_STYLES = {"healthy": "bold green", "better": "yellow", "blew up": "red"}
_SIGNS = {"healthy": "✓", "better": "+", "blew up": "✗"}
_ASCII_SIGNS = {"healthy": "OK", "better": "+", "blew up": "X"}

_LEGEND = (
    "Update: change of the first third of the weights per step, relative to their size, and how "
    "many times that of the model as it is. Gradient: least relative gradient of all layers "
    "(1 = full)."
)


def render_trials(trials: Iterable[Trial]) -> TrialsView:
    """Trials as something that rich prints, in the order given.

    Args:
        trials: ranked, best first.
    """
    return TrialsView(tuple(trials))


def write_trials(trials: Iterable[Trial], *, width: int = _DEFAULT_WIDTH) -> str:
    """The table as plain text.

    Args:
        trials: ranked, best first.
        width: columns of the terminal.
    """
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, legacy_windows=False)
    console.print(render_trials(trials))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


class RankedTrials(list[Trial]):
    """Trials, best first; printed and shown by a notebook as their table."""

    def __str__(self) -> str:
        return write_trials(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(write_trials(self))}</pre>"


@dataclass(frozen=True)
class TrialsView:
    """Trials that rich can print at any width, with or without Unicode and colour."""

    trials: tuple[Trial, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.trials:
            yield Text("No remedy was tried.")
            return
        yield _draw_advice(self.trials[0])
        yield _draw_table([trial for trial in self.trials if trial.applicable], options)
        yield from _draw_unfit(self.trials)
        yield Text(_LEGEND, style="dim")

    def __str__(self) -> str:
        return write_trials(self.trials)


def _draw_advice(best: Trial) -> Text:
    """What to do, before all numbers."""
    if best.is_baseline and best.outcome == "healthy":
        words = f"Healthy as it is over {best.steps} steps: no remedy is needed."
        return Text(words, style=_STYLES["healthy"])
    if best.is_baseline or best.outcome not in ("healthy", "better"):
        return Text(f"No remedy helped within {best.steps} steps.", style="bold")
    line = Text(f"Best of what was tried, {best.steps} steps each: ", style="bold")
    line.append(f"{make_printable(best.name)}. ", style=_STYLES[best.outcome])
    description = make_printable(best.description)
    return line.append(f"{description[:1].upper()}{description[1:]}.", style="not bold")


def _draw_table(trials: Sequence[Trial], options: ConsoleOptions) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("Remedy")
    table.add_column("Update", justify="right", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("Gradient", justify="right", no_wrap=True)
    table.add_column("Loss", justify="right", no_wrap=True)
    table.add_column("Findings")
    for trial in trials:
        table.add_row(*_write_cells(trial, options.ascii_only))
    return table


def _write_cells(trial: Trial, ascii_only: bool) -> Iterator[Text]:
    after = trial.after
    assert after is not None  # only what could be tried has a row
    signs, arrow = (_ASCII_SIGNS, "->") if ascii_only else (_SIGNS, "→")
    style = _STYLES.get(trial.outcome, "")
    yield Text(signs.get(trial.outcome, ""), style=style)
    yield Text(make_printable(trial.name), style=style)
    yield Text(write_number(after.early_update))
    yield Text("" if trial.is_baseline else write_times(trial.speedup, ascii_only))
    yield Text(write_number(after.attenuation))
    yield Text(f"{write_loss(after.loss_start)} {arrow} {write_loss(after.loss_end)}")
    yield Text(join_unique(finding.kind for finding in after.findings) or "none")


def write_times(speedup: float, ascii_only: bool = False) -> str:
    """``"×3.8 million"``; ``"from 0"`` where there was no movement at all before.

    Args:
        speedup: how many times as far the early weights move; NaN gives an empty text.
        ascii_only: write ``x`` for the sign of multiplication.
    """
    if math.isnan(speedup):
        return ""
    if math.isinf(speedup):
        return "from 0"
    return f"{'x' if ascii_only else '×'}{name_number(speedup)}"


def write_loss(loss: float) -> str:
    """Three significant digits; ``"NaN"`` or ``"Inf"`` where training broke.

    Args:
        loss: mean over some batches.
    """
    if math.isnan(loss):
        return "NaN"
    return f"{loss:.3g}" if math.isfinite(loss) else "Inf"


def group_unfit(trials: Iterable[Trial]) -> list[tuple[str, list[str]]]:
    """Reasons why remedies could not be tried, and for each the remedies.

    Args:
        trials: in any order.
    """
    names: dict[str, list[str]] = {}
    for trial in trials:
        if not trial.applicable:
            names.setdefault(trial.reason, []).append(trial.name)
    return list(names.items())


def _draw_unfit(trials: Iterable[Trial]) -> Iterator[Padding]:
    for reason, names in group_unfit(trials):
        words = make_printable(f"{', '.join(names)}: not applicable, {reason}.")
        yield Padding(Text(words, style="dim"), (0, 0, 0, 2))
