"""Sudden changes of a run: the steps at which a quantity jumps and stays, marked on every chart.

An event is no finding: a loss that doubles, or a gradient that falls a hundred times between two
sampled steps, is worth a mark whether a rule sees harm in it or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwatch.display.figures.palette import Matrix, log10
from gradwatch.display.figures.series import Series
from gradwatch.wording.phrases import name_number, name_region

_BESIDE = 3  # columns on each side that must all lie beyond the jump
_LEAST_BESIDE = 2  # ... of which so many suffice at the end of a run
_MOST_EVENTS = 8  # more marks would hide the chart


@dataclass(frozen=True)
class Event:
    """One sudden change.

    Attributes:
        before, step: the sampled steps that it lies between; ``step`` is the first that shows it.
        is_worse: a gradient that fell or a loss that rose.
        text: one clause, such as ``"the gradient of fc1 to fc11 fell 120 times"``.
        size: decades.
    """

    before: int
    step: int
    is_worse: bool
    text: str
    size: float

    @property
    def when(self) -> str:
        """``"at step 61"`` or ``"between steps 201 and 210"``."""
        if self.step - self.before == 1:
            return f"at step {self.step:,}"
        return f"between steps {self.before:,} and {self.step:,}"

    def to_dict(self) -> dict[str, Any]:
        """What the page draws and says of it."""
        return {"step": self.step, "worse": self.is_worse, "text": f"{self.when}, {self.text}"}


def find_events(series: Series) -> list[Event]:
    """The largest sudden changes of the gradients and of the loss, in order of their steps.

    Args:
        series: of one run; ``thresholds.sudden_change`` says from which factor on.
    """
    least = float(np.log10(series.thresholds.sudden_change))
    if len(series.steps) <= _BESIDE or least <= 0:
        return []
    found = [*_find_gradients(series, least), *_find_losses(series, least)]
    largest = sorted(found, key=lambda event: -event.size)[:_MOST_EVENTS]
    return sorted(largest, key=lambda event: event.step)


def _find_gradients(series: Series, least: float) -> list[Event]:
    jumps = _measure_jumps(log10(series.relative), least)
    events = []
    for at in _pick_peaks(np.abs(jumps).max(axis=0, initial=0.0), least):
        for sign, word in ((-1, "fell"), (1, "grew")):
            sizes = sign * jumps[:, at]
            rows = np.flatnonzero(sizes >= least)
            if rows.size:
                names = name_region([series.names[row] for row in rows])
                size = float(sizes[rows].max())
                text = f"the gradient of {names} {word} {name_number(10**size)} times"
                events.append(_make(series, at, sign < 0, text, size))
    return events


def _find_losses(series: Series, least: float) -> list[Event]:
    jumps = _measure_jumps(log10(series.loss[None]), least)[0]
    return [
        _make(series, at, True, f"the loss grew {name_number(10 ** float(jumps[at]))} times",
              float(jumps[at]))
        for at in _pick_peaks(np.maximum(jumps, 0.0), least)
    ]  # fmt: skip


def _make(series: Series, at: int, is_worse: bool, text: str, size: float) -> Event:
    return Event(series.steps[at - 1], series.steps[at], is_worse, text, size)


def _measure_jumps(logs: Matrix, least: float) -> Matrix:
    """Of each row and column, how far all of the next values lie beyond all of those before."""
    rows, columns = logs.shape
    jumps = np.zeros((rows, columns), np.float32)
    for at in range(_BESIDE, columns - _LEAST_BESIDE + 1):
        before, after = logs[:, at - _BESIDE : at], logs[:, at : at + _BESIDE]
        up = after.min(axis=1) - before.max(axis=1)
        down = before.min(axis=1) - after.max(axis=1)
        jumps[:, at] = np.where(up >= least, up, np.where(down >= least, -down, 0.0))
    return np.nan_to_num(jumps, nan=0.0, posinf=0.0, neginf=0.0)


def _pick_peaks(sizes: Sequence[float] | Matrix, least: float) -> list[int]:
    """Columns of the largest jumps; those within one jump's own width are the same change."""
    order = np.argsort(-np.asarray(sizes), kind="stable")
    picked: list[int] = []
    for at in order.tolist():
        if sizes[at] < least:
            break
        if all(abs(at - other) > _BESIDE for other in picked):
            picked.append(at)
    return picked
