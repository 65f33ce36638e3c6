"""What a verdict has proven, in words: who was seen to learn, and what is left and why."""

from __future__ import annotations

import math
from collections import defaultdict

from gradwatch.thresholds import Thresholds
from gradwatch.verdict.course import Course
from gradwatch.verdict.coverage import BY_DESIGN, NOT_JUDGED, Coverage, ParamState
from gradwatch.verdict.findings import Verdict
from gradwatch.wording.phrases import name_number, name_percent, name_region, say_no_fall

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
    level = _say_level(verdict)
    verbs = ("are trained", "is trained") if level else ("learn", "learns")
    ending = level + _say_loose(verdict)
    if learned < weights:
        return f"{learned:,} of {weights:,} weights {verbs[0]}; the others need not{ending}"
    every = f"Every one of {weights:,} weights" if weights > 1 else "The weight"
    return f"{every} {verbs[1]}{ending}"


def _say_loose(verdict: Verdict) -> str:
    """What trains and is left out of every optimizer, as a clause: that may be meant, or not."""
    left = [
        layer
        for note in verdict.notes
        if note.cause == "not_optimized" and note.last_step == verdict.last_step
        for layer in note.layers
    ]
    return f"; no optimizer holds {name_region(left)}" if left else ""


def _say_level(verdict: Verdict) -> str:
    """What the loss leaves open, as a clause: it does not fall, or has levelled off too soon."""
    course = verdict.course
    if course.climbs:
        return ""
    if course.is_at_start:
        return f", {say_no_fall(verdict.last_step)}"
    if not math.isnan(course.levelled_at):
        verb = "is" if course.is_slow else "has levelled off"
        fall = math.ceil(100 * max(course.levelled_at, 0.001))
        return f", but the loss {verb} within {fall} % of where it began"
    return ""


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
    stays = verdict.course.is_at_start or verdict.course.is_slow
    if stays and all(param.records >= least for param in left):
        return f"Not judged: {_say_stay(left, verdict)}"
    return f"Not judged: {_name(left)} not seen to learn"


def _say_stay(left: tuple[ParamState, ...], verdict: Verdict) -> str:
    """``"24 weights are trained, but the loss shows no fall by step 400"``, with what steps do."""
    count = sum(param.is_weight for param in left) or len(left)
    weights = f"{count:,} weights are" if count > 1 else "the weight is"
    return f"{weights} trained{_say_level(verdict)}{_say_promise(verdict.course)}"


def _say_promise(course: Course) -> str:
    """What the steps were to do to the loss, where that is far too much or too little."""
    promise = course.promise
    if promise.overshoot:
        share = name_percent(promise.overshoot)
        return f", where each step was to take {share} off it: lower the rate"
    if promise.leap > 1:
        return f", after a step that took it to {name_number(promise.leap)} times that"
    if course.is_slow or promise.way < promise.scatter:
        share = f"{100 * promise.way:.1g} %"
        share = f"no more than {share}" if course.is_slow else f"{share}, less than it scatters"
        words = f"all steps together promise {share}"
        advice = "raise the rate or train longer" if promise.lacks_rate else "the gradient is weak"
        return f", and {words}: {advice}"
    return ""


def _name(params: tuple[ParamState, ...]) -> str:
    names = name_region([param.fqn for param in params])
    return f"{names} {'was' if len(params) == 1 else 'were'}"
