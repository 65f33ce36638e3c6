"""One file per way to be unhealthy; each rule is a pure function of history.

A new rule is a new file with a ``Rule``, and one line in ``DEFAULT_RULES``.
"""

from __future__ import annotations

from gradwatch.verdict.rule import Rule
from gradwatch.verdict.rules.dead import DEAD
from gradwatch.verdict.rules.disconnected import DISCONNECTED
from gradwatch.verdict.rules.exploding import EXPLODING
from gradwatch.verdict.rules.mishandled import MISHANDLED
from gradwatch.verdict.rules.nonfinite import NONFINITE
from gradwatch.verdict.rules.ranks import RANKS
from gradwatch.verdict.rules.saturated import SATURATED
from gradwatch.verdict.rules.through_time import THROUGH_TIME
from gradwatch.verdict.rules.underflow import UNDERFLOW
from gradwatch.verdict.rules.unmoved import UNMOVED
from gradwatch.verdict.rules.vanishing import VANISHING

DEFAULT_RULES: tuple[Rule, ...] = (
    NONFINITE,
    MISHANDLED,
    RANKS,
    UNMOVED,
    UNDERFLOW,
    VANISHING,
    THROUGH_TIME,
    EXPLODING,
    DEAD,
    SATURATED,
    DISCONNECTED,
)
"""In the order in which they look at each step."""
