"""A verdict as plain JSON data for the page: words and tables, without pictures.

Small and fast: the banner is painted from it before any chart library has loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradwatch.display.coverage_words import describe_coverage
from gradwatch.display.figures.names import shorten
from gradwatch.display.headline import (
    Sentence,
    headline,
    main_clause,
    name_region,
    since,
    weakest_ratio,
)
from gradwatch.display.trial_page_data import brief_trials
from gradwatch.schema.activations import find_activation
from gradwatch.schema.kinds import describe_cause, find_kind
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.findings import Finding, LayerSummary, Verdict
from gradwatch.verdict.trials import Trial
from gradwatch.wording.phrases import name_number

MAX_TABLE_ROWS = 5000
LONGEST_NAME = 60  # characters of a name in the banner; the full one is a hover away
_RECOVERED = "Recovered"  # how the note of a finding that is over begins
MAX_NAMED_LAYERS = 200  # of one finding; the rest is a count


def write_brief(verdict: Verdict, trials: Sequence[Trial] = ()) -> dict[str, Any]:
    """Everything the page says in words; numbers that are not finite become ``None``."""
    short = _abbreviate([one.fqn for one in verdict.layers])
    return {
        "run": verdict.run,
        "status": verdict.status,
        "healthy": verdict.healthy,
        "severity": _severity(verdict),
        "records": verdict.records,
        "first_step": verdict.first_step,
        "last_step": verdict.last_step,
        "headline": _pieces(headline(verdict), short),
        "summary": _summarise(verdict),
        "gone": _gone(verdict),
        "findings": [_finding(one, verdict, short) for one in verdict.findings],
        "notes": [_finding(one, verdict, short) for one in verdict.notes],
        "trials": brief_trials(trials),
        "unseen": list(verdict.unseen),
        "layers": [_layer(one) for one in verdict.layers[:MAX_TABLE_ROWS]],
    }


def _severity(verdict: Verdict) -> str:
    if not verdict.records:
        return "empty"
    if verdict.findings:
        return verdict.findings[0].severity
    return "healthy" if verdict.healthy else "early"


def _pieces(sentence: Sentence, short: Mapping[str, str]) -> list[list[Any]]:
    """Of each piece its text, whether it is a name, and a long name in short."""
    return [[one.text, one.is_name, short.get(one.text, one.text)] for one in sentence]


def _abbreviate(names: Sequence[str]) -> dict[str, str]:
    """Long names in short, and still apart."""
    if max(map(len, names), default=0) <= LONGEST_NAME:
        return {}
    return dict(zip(names, shorten(names, LONGEST_NAME), strict=True))


def _summarise(verdict: Verdict) -> str:
    """The second line of a healthy run's banner: what was looked at, and the weakest layer."""
    if not verdict.records:
        return "Train at least one step with the watch on, then reload."
    steps = "step" if verdict.records == 1 else "steps"
    looked = f"{verdict.records:,} recorded {steps} looked at, the last at step "
    covered = describe_coverage(verdict.coverage)
    proven = f" {covered}." if covered else ""
    return f"{looked}{verdict.last_step:,}.{proven} {_say_weakest(verdict)}"


def _say_weakest(verdict: Verdict) -> str:
    weakest = weakest_ratio(verdict)
    if weakest >= 0.5:
        return "Every layer gets about as much gradient as the fullest."
    limits = Thresholds()
    judged = verdict.records >= limits.persistence and weakest < limits.profile
    harmless = "; no rule sees harm in it" if judged else ""
    times = name_number(1 / weakest)
    return f"The weakest layer gets {times} times less gradient than the fullest{harmless}."


def _gone(verdict: Verdict) -> list[str]:
    """What was once worth a finding and is over, in words."""
    gone = [one for one in verdict.notes if one.message.startswith(_RECOVERED)]
    return [
        f"{one.kind.capitalize()} from step {one.first_step:,} to {one.last_step:,}; over since."
        for one in gone
        if find_kind(one.kind).is_recalled
    ]


def _shorten_names(text: str, short: Mapping[str, str]) -> str:
    """A sentence with long names in short; the longest first, for one may begin another."""
    for name in sorted((one for one in short if one in text), key=len, reverse=True):
        text = text.replace(name, short[name])
    return text


def _detail(message: str) -> str:
    """What a message says beyond its main clause; the gains, which tell the cause, first."""
    rest = message.removeprefix(main_clause(message)).lstrip(":; ").rstrip(".")
    return "; ".join(reversed(rest.split("; "))) + "." if rest else ""


def _finding(finding: Finding, verdict: Verdict, short: Mapping[str, str]) -> dict[str, Any]:
    message = _shorten_names(finding.message, short)
    return {
        "code": finding.code,
        "kind": finding.kind,
        "title": find_kind(finding.kind).title,
        "severity": finding.severity,
        "where": _pieces(name_region(verdict, finding), short),
        "layers": list(finding.layers[:MAX_NAMED_LAYERS]),
        "cause": describe_cause(finding.cause),
        "message": message,
        "detail": _detail(message) if finding.kind == "vanishing" else message,
        "remedy": finding.remedy,
        "first_step": finding.first_step,
        "last_step": finding.last_step,
        "since": since(finding, verdict),
        "observed": _number(finding.observed),
        "threshold": _number(finding.threshold),
    }


def _layer(layer: LayerSummary) -> list[Any]:
    """A row: name, type, gradient ratio, gain, saturated, dead, update ratio, flagged."""
    row = find_activation(layer.type)
    rectifies = (row is not None and row.rectifies) or math.isfinite(layer.dead_fraction)
    numbers = (
        layer.grad_ratio,
        layer.gain,
        math.nan if rectifies else layer.saturated_fraction,
        layer.dead_fraction,
        layer.update_ratio,
    )
    return [layer.fqn, layer.type, *(_number(one) for one in numbers), layer.flagged]


def _number(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None
