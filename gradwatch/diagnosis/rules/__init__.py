"""One file per disease; each rule is a pure function of history.

A new rule is a new file with a ``Rule``, and one line in ``DEFAULT_RULES``.
"""

from __future__ import annotations

from gradwatch.diagnosis.rules.dead import DEAD
from gradwatch.diagnosis.rules.disconnected import DISCONNECTED
from gradwatch.diagnosis.rules.exploding import EXPLODING
from gradwatch.diagnosis.rules.nonfinite import NONFINITE
from gradwatch.diagnosis.rules.saturated import SATURATED
from gradwatch.diagnosis.rules.through_time import THROUGH_TIME
from gradwatch.diagnosis.rules.underflow import UNDERFLOW
from gradwatch.diagnosis.rules.vanishing import VANISHING
from gradwatch.diagnosis.signs import Rule

DEFAULT_RULES: tuple[Rule, ...] = (
    NONFINITE,
    UNDERFLOW,
    VANISHING,
    THROUGH_TIME,
    EXPLODING,
    DEAD,
    SATURATED,
    DISCONNECTED,
)
"""In the order in which they look at each step."""
