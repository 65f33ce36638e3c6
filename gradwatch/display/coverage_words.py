"""What a verdict has proven, in words: who was seen to learn, and what is left and why."""

from __future__ import annotations

import math
from collections import defaultdict

from gradwatch.thresholds import Thresholds
from gradwatch.verdict.coverage import BY_DESIGN, NOT_JUDGED, Coverage, ParamState
from gradwatch.verdict.findings import Verdict
from gradwatch.wording.phrases import name_region

_REASONS = {BY_DESIGN: "", NOT_JUDGED: "not judged, "}


def describe_coverage(coverage: Coverage | None) -> str:
    """``"22 of 24 weights seen to learn; fc9.weight: called at 0 sampled steps"``; ``""`` without.

    Args:
        coverage: of a verdict.
    """
    if coverage is None or not coverage.params:
        return ""
    learned, weights = coverage.counted
    what = "weights" if any(param.is_weight for param in coverage.params) else "tensors"
    parts = [f"{learned:,} of {weights:,} {what} seen to learn"]
    for (state, reason), names in _group(coverage).items():
        parts.append(f"{name_region(names)}: {_REASONS[state]}{reason}")
    return "; ".join(parts)


def _group(coverage: Coverage) -> dict[tuple[str, str], list[str]]:
    """Names by state and reason: all that was not judged, and weights that need not be."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for param in coverage.params:
        if param.state == NOT_JUDGED or (param.state == BY_DESIGN and param.is_weight):
            groups[param.state, param.reason].append(param.fqn)
    return groups


def say_healthy(verdict: Verdict) -> str:
    """What a pass proves, and no more: ``"Every one of 24 weights learns"``.

    Weights that move while the loss stays where it was are trained; what they learn is not known.

    Args:
        verdict: that has no finding.
    """
    coverage = verdict.coverage
    if coverage is None or not coverage.params:
        return "No finding"
    learned, weights = coverage.counted
    if not weights:
        return "No finding"
    verbs = ("learn", "learns")
    ending = ""
    if verdict.history is not None and verdict.history.losses.is_at_start:
        verbs = ("are trained", "is trained")
        ending = f", but the loss shows no fall by step {verdict.last_step:,}"
    elif verdict.history is not None and verdict.history.losses.has_hardly_fallen:
        verbs = ("are trained", "is trained")
        fall = math.ceil(100 * max(verdict.history.losses.fall_lately[0], 0.001))
        ending = f", but the loss has levelled off within {fall} % of where it began"
    if learned < weights:
        return f"{learned:,} of {weights:,} weights {verbs[0]}; the others need not{ending}"
    every = f"Every one of {weights:,} weights" if weights > 1 else "The weight"
    return f"{every} {verbs[1]}{ending}"


def say_not_judged(verdict: Verdict) -> str:
    """Why nothing is proven: ``"Not judged: head.weight was not seen to learn"``.

    Args:
        verdict: without a finding, and not healthy.
    """
    if verdict.failure:
        return "Not judged: gradwatch itself has failed"
    if verdict.unstepped:
        return (
            f"Not judged: backward ran on for some {verdict.unstepped:,} steps, and the optimizer "
            "was not stepped again"
        )
    least = Thresholds().persistence
    if verdict.records < least:
        steps = "step is" if verdict.records == 1 else "steps are"
        return f"Not judged yet: {verdict.records} recorded {steps} too few to tell"
    left = () if verdict.coverage is None else verdict.coverage.of_state(NOT_JUDGED)
    if not left:
        return "Not judged: nothing was seen to learn"
    return f"Not judged: {_name(left)} not seen to learn"


def _name(params: tuple[ParamState, ...]) -> str:
    names = name_region([param.fqn for param in params])
    return f"{names} {'was' if len(params) == 1 else 'were'}"
