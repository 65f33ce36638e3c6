"""Thresholds that remember what they were compared with, so that a run need not be judged again.

A run whose numbers all lie farther from a threshold than it is moved gets the same verdict. Each
comparison tells how far that is; whatever else is done with a threshold (added, sliced, rounded)
counts as a comparison that any move would change.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradwatch.thresholds import Thresholds

Sides = dict[str, tuple[float, float]]
"""By threshold: the nearest values that would have made a comparison come out otherwise, one not
above the threshold, one not below it."""


@dataclass
class Trace:
    """What the thresholds of one run were compared with.

    Attributes:
        sides: see ``Sides``; without the thresholds that were never read.
    """

    sides: Sides = field(default_factory=dict)

    def note(self, name: str, threshold: float, values: Any) -> None:
        """Take in what a threshold was compared with.

        Args:
            name: of the threshold.
            threshold: its value.
            values: of any shape; NaN compares the same way wherever the threshold stands.
        """
        values = np.asarray(values, dtype=np.float64)
        below, above = self.sides.get(name, (-math.inf, math.inf))
        below = max(below, float(np.max(values[values <= threshold], initial=-math.inf)))
        above = min(above, float(np.min(values[values >= threshold], initial=math.inf)))
        self.sides[name] = below, above


class _Traced:
    """Of a number that is a threshold, or a multiple of one."""

    __array_ufunc__ = None  # arrays leave comparisons and products to the methods below

    name: str
    factor: float
    trace: Trace

    def note(self, values: Any) -> None:
        """It is compared with these."""
        if not self.factor > 0:
            self.let_go()
            return
        with np.errstate(all="ignore"):
            scaled = np.asarray(values, dtype=np.float64) / self.factor
        self.trace.note(self.name, self.plain / self.factor, scaled)

    def let_go(self) -> None:
        """It goes where it cannot be followed."""
        value = self.plain / self.factor if self.factor else self.plain
        self.trace.note(self.name, value, value)

    @property
    def plain(self) -> Any:
        """The number alone."""
        if isinstance(self, float):
            return float.__add__(self, 0.0)
        return int.__add__(self, 0)  # type: ignore[operator]


class TracedFloat(_Traced, float):
    """A threshold that is a float."""


class TracedInt(_Traced, int):
    """A threshold that is a whole number."""


def _strip(value: Any) -> Any:
    return value.plain if isinstance(value, _Traced) else value


def _compare(name: str) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def compare(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float, np.number, np.ndarray)):
            return NotImplemented
        self.note(_strip(other))
        return function(self.plain, _strip(other))

    return compare


def _compute(name: str, reflected: bool) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def compute(self: Any, other: Any) -> Any:
        follows = name == "mul" and isinstance(other, (int, float, np.number))
        if follows and not isinstance(other, _Traced):
            return trace_number(
                self.plain * float(other), self.name, self.trace, self.factor * float(other)
            )
        self.let_go()
        pair = (_strip(other), self.plain) if reflected else (self.plain, _strip(other))
        return function(*pair)

    return compute


def _convert(name: str) -> Callable[[Any], Any]:
    def convert(self: Any) -> Any:
        self.let_go()
        return getattr(self.plain, name)()

    return convert


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(_Traced, f"__{_name}__", _compare(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(_Traced, f"__{_name}__", _compute(_name, reflected=False))
    setattr(_Traced, f"__r{_name}__", _compute(_name, reflected=True))
for _name in ("__neg__", "__float__", "__int__", "__round__", "__bool__"):
    setattr(_Traced, _name, _convert(_name))
TracedInt.__index__ = _convert("__index__")  # type: ignore[method-assign]
_Traced.__hash__ = object.__hash__  # type: ignore[method-assign]


def trace_number(value: float, name: str, trace: Trace, factor: float = 1.0) -> float:
    """A number whose comparisons are noted.

    Args:
        value: of a threshold, or ``factor`` times it.
        name: of the threshold.
        trace: that notes them.
        factor: see ``value``.
    """
    kind = TracedInt if isinstance(value, int) else TracedFloat
    number: Any = kind(value)
    number.name, number.factor, number.trace = name, factor, trace
    return number  # type: ignore[no-any-return]


def trace_thresholds(base: Thresholds) -> tuple[Thresholds, Trace]:
    """Thresholds of the same values, and the trace of what they are compared with."""
    trace = Trace()
    traced = {
        row.name: trace_number(value, row.name, trace)
        for row in dataclasses.fields(base)
        if isinstance(value := getattr(base, row.name), int | float)
    }
    thresholds = base.replace(**traced)
    trace.sides.clear()  # of checking them
    return thresholds, trace
