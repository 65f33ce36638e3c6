"""A verdict as plain JSON data for the page: words and tables, without pictures.

Small and fast: the banner is painted from it before any chart library has loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradwatch.display.coverage_words import describe_coverage
from gradwatch.display.figures.events import Event
from gradwatch.display.figures.names import shorten
from gradwatch.display.headline import (
    Sentence,
    headline,
    main_clause,
    say_region,
    since,
    weakest_ratio,
)
from gradwatch.display.run_facts import RunFacts, describe_facts, describe_gaps, describe_state
from gradwatch.display.trial_page_data import brief_trials
from gradwatch.schema.activations import find_activation
from gradwatch.schema.kinds import describe_cause, find_kind
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.findings import Finding, LayerSummary, Verdict
from gradwatch.verdict.rule import Rule
from gradwatch.verdict.rules import DEFAULT_RULES
from gradwatch.verdict.trials import Trial
from gradwatch.wording.phrases import name_number, name_percent

MAX_TABLE_ROWS = 5000
_NEAR = 0.75  # of the share from which units can be a finding: worth a word
LONGEST_NAME = 60  # characters of a name in the banner; the full one is a hover away
_RECOVERED = "Recovered"  # how the note of a finding that is over begins
MAX_NAMED_LAYERS = 200  # of one finding; the rest is a count


def write_brief(
    verdict: Verdict,
    trials: Sequence[Trial] = (),
    events: Sequence[Event] = (),
    facts: RunFacts | None = None,
) -> dict[str, Any]:
    """Everything the page says in words; numbers that are not finite become ``None``.

    Args:
        verdict: of one run.
        trials: remedies that were tried on its model, best first.
        events: its sudden changes.
        facts: what its log says besides the records.
    """
    short = _abbreviate([layer.fqn for layer in verdict.layers])
    return {
        "run": verdict.run,
        "status": verdict.status,
        "healthy": verdict.healthy,
        "severity": _severity(verdict, events, facts),
        "records": verdict.records,
        "first_step": verdict.first_step,
        "last_step": verdict.last_step,
        "headline": _pieces(headline(verdict), short),
        "summary": _summarise(verdict),
        "events": [*map(_say_event, events), *_say_units(verdict), *_say_gaps(facts)],
        "gone": _gone(verdict),
        "findings": [_finding(finding, verdict, short) for finding in verdict.findings],
        "notes": [_finding(note, verdict, short) for note in verdict.notes],
        "trials": brief_trials(trials),
        "unseen": [*verdict.unseen, *(describe_gaps(facts) if facts else ())],
        "state": describe_state(facts) if facts else None,
        "about": describe_facts(facts or RunFacts(), verdict),
        "layers": [_layer(layer) for layer in verdict.layers[:MAX_TABLE_ROWS]],
    }


def write_rules(rules: Sequence[Rule] = DEFAULT_RULES) -> dict[str, dict[str, str]]:
    """What ``gradwatch explain`` says of each rule, by code: a press on a code opens it.

    Args:
        rules: whose pages the page can show.
    """
    return {rule.code: {"title": rule.title, "doc": rule.doc} for rule in rules}


def _severity(verdict: Verdict, events: Sequence[Event], facts: RunFacts | None) -> str:
    """``"noted"``: healthy, yet a picture shows what wants a word, so that it is not green."""
    if not verdict.records:
        return "empty"
    if verdict.findings:
        return verdict.findings[0].severity
    if not verdict.healthy:
        return "early"
    has_broken = facts is not None and (
        bool(facts.gaps or facts.missing) or (facts.end is not None and facts.end.how != "detached")
    )
    return "noted" if has_broken or _is_striking(verdict, events) else "healthy"


def _is_striking(verdict: Verdict, events: Sequence[Event]) -> bool:
    gets_little = weakest_ratio(verdict) < _limits(verdict).profile
    shows_harm = bool(_say_units(verdict)) or any(event.is_worse for event in events)
    return gets_little or verdict.course.is_at_start or shows_harm


def _say_units(verdict: Verdict) -> list[str]:
    """Units that are silent or saturated nearly as often as in a finding, the worst of each."""
    limits, said = _limits(verdict), []
    for name, limit in (("dead", limits.dead_fraction), ("saturated", limits.saturated_fraction)):
        shares = [float(getattr(layer, f"{name}_fraction")) for layer in verdict.layers]
        known = [place for place, share in enumerate(shares) if share == share]
        worst = max(known, key=shares.__getitem__, default=None)
        if worst is not None and shares[worst] >= _NEAR * limit:
            said.append(
                f"{name_percent(shares[worst])} of the units of {verdict.layers[worst].fqn} are "
                f"{name}; it can be a finding from {name_percent(limit)} on."
            )
    return said


def _say_gaps(facts: RunFacts | None) -> list[str]:
    """What of the log is missing, as sentences."""
    return [f"{line[0].upper()}{line[1:]}." for line in (describe_gaps(facts) if facts else ())]


def _limits(verdict: Verdict) -> Thresholds:
    return verdict.history.thresholds if verdict.history is not None else Thresholds()


def _say_event(event: Event) -> str:
    sentence = event.to_dict()["text"]
    return f"{sentence[0].upper()}{sentence[1:]}; marked in the charts."


def _pieces(sentence: Sentence, short: Mapping[str, str]) -> list[list[Any]]:
    """Of each piece its text, whether it is a name, and a long name in short."""
    return [[piece.text, piece.is_name, short.get(piece.text, piece.text)] for piece in sentence]


def _abbreviate(names: Sequence[str]) -> dict[str, str]:
    """Long names in short, and still apart."""
    if max(map(len, names), default=0) <= LONGEST_NAME:
        return {}
    return dict(zip(names, shorten(names, LONGEST_NAME), strict=True))


def _summarise(verdict: Verdict) -> str:
    """The second line of a healthy run's banner: what was looked at, and the weakest layer."""
    if not verdict.records:
        return "Train at least one step with the watch on, and it appears here."
    steps = "step" if verdict.records == 1 else "steps"
    judged = f"Judged from {verdict.records:,} recorded {steps}, up to step "
    covered = describe_coverage(verdict.coverage)
    proven = f" {covered}." if covered else ""
    return f"{judged}{verdict.last_step:,}.{proven} {_say_weakest(verdict)}"


def _say_weakest(verdict: Verdict) -> str:
    """What a healthy picture may still show, and why no rule sees harm in it."""
    weakest = weakest_ratio(verdict)
    if weakest >= 0.5:
        return "All layers get about the same amount of gradient."
    times = name_number(1 / weakest)
    said = f"The weakest layer gets {times} times less gradient than the strongest"
    if verdict.healthy and weakest < _limits(verdict).profile:
        return f"{said}; what is to learn was seen to learn all the same."
    return f"{said}."


def _gone(verdict: Verdict) -> list[str]:
    """What was once worth a finding and is over, in words."""
    gone = [note for note in verdict.notes if note.message.startswith(_RECOVERED)]
    return [
        f"{note.kind.capitalize()} from step {note.first_step:,} to {note.last_step:,}; over since."
        for note in gone
        if find_kind(note.kind).is_recalled
    ]


def _shorten_names(text: str, short: Mapping[str, str]) -> str:
    """A sentence with long names in short; the longest first, for one may begin another."""
    for name in sorted((long for long in short if long in text), key=len, reverse=True):
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
        "where": _pieces(say_region(verdict, finding), short),
        "layers": list(finding.layers[:MAX_NAMED_LAYERS]),
        "source": finding.source,
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
    return [layer.fqn, layer.type, *(_number(number) for number in numbers), layer.flagged]


def _number(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None
