"""Thresholds of the rules: named, documented, and nowhere else.

Where a threshold separates two populations it stands at the middle of the gap between them on a
log scale; ``docs/thresholds.md`` shows both sides as measured on the public zoo, made by
``benchmarks.ablation``.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from dataclasses import dataclass

from gradwatch.errors import InvalidInput
from gradwatch.thresholds.causes import CauseThresholds
from gradwatch.thresholds.comparison import ComparisonThresholds
from gradwatch.thresholds.growth import GrowthThresholds
from gradwatch.thresholds.learning import LearningThresholds
from gradwatch.thresholds.precision import PrecisionThresholds
from gradwatch.thresholds.progress import ProgressThresholds
from gradwatch.thresholds.units import UnitThresholds


@dataclass(frozen=True)
class Thresholds(  # a dataclass takes the fields of its last base first
    ComparisonThresholds,
    PrecisionThresholds,
    GrowthThresholds,
    UnitThresholds,
    CauseThresholds,
    ProgressThresholds,
    LearningThresholds,
):
    """When a measurement counts as a sign of a finding; the numbers stand in the bases, by topic.

    Attributes:
        allow_unjudged: ``fnmatch`` patterns of parameters that need not be seen to learn, and that
            no optimizer need hold.
        ignore_kinds: findings to silence, by kind.
        ignore_layers: the same by ``fnmatch`` patterns of layers' names.

    Raises:
        InvalidInput: a number is none, is not finite or is below 0, or ``persistence`` below 1.

    Example:
        >>> Thresholds(saturated_fraction=0.9).saturated_fraction
        0.9
    """

    allow_unjudged: tuple[str, ...] = ()
    ignore_kinds: tuple[str, ...] = ()
    ignore_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in dataclasses.fields(self):
            value = getattr(self, row.name)
            if value is row.default or isinstance(row.default, tuple):
                continue
            if type(value) is float and 0 <= value < math.inf:
                continue  # the usual case: asking whether it is a number takes its time
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise InvalidInput(
                    f"Expected {row.name} to be a number, got {value!r}. Pass a number from 0."
                )
            if not (math.isfinite(value) and float(value) >= 0):
                raise InvalidInput(
                    f"Expected {row.name} to be finite and not below 0, got {value}. "
                    "Leave the field out for its default."
                )
        if self.persistence < 1:
            raise InvalidInput(
                f"Expected persistence to be 1 or more, got {self.persistence}: of no sampled step "
                "at all every weight would count as seen to learn. Leave it out for its default."
            )

    def replace(self, **changes: object) -> Thresholds:
        """A copy with some fields changed.

        Args:
            **changes: fields by name.

        Raises:
            InvalidInput: there is no such threshold, or it cannot have this value.

        Example:
            >>> Thresholds().replace(ignore_kinds=("dead",)).ignore_kinds
            ('dead',)
        """
        known = {row.name for row in dataclasses.fields(self)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise InvalidInput(
                f"Expected thresholds among {', '.join(sorted(known))}, got {unknown[0]!r}."
            )
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


DEFAULTS = Thresholds()
"""Those of a run that chooses none; they cannot be changed, and making them takes its time."""
