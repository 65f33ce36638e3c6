"""An outcome as SARIF 2.1.0 (OASIS, errata 01), for code scanning and for editors.

Every rule is listed with its help text, also those that found nothing. A finding that carries no
file stands at the log of its run, since GitHub takes no result without one. Section numbers below
are those of the standard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gradwatch.gate.baseline import KnownFinding
from gradwatch.gate.outcome import (
    FAILS,
    IGNORED,
    KNOWN,
    NOTHING_TO_JUDGE,
    Outcome,
    Ruling,
    RunOutcome,
)
from gradwatch.output.locations import Location, find_location
from gradwatch.output.ruling_words import describe_gone, describe_unjudged
from gradwatch.verdict.own_rules import list_rules
from gradwatch.verdict.rule import Rule

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_LEVELS = {"critical": "error", "warning": "warning", "note": "note"}
_FINGERPRINT = "gradwatch/v1"


def write_sarif(outcome: Outcome) -> str:
    """One run of SARIF's, whatever the number of trainings.

    Args:
        outcome: of all runs.

    Source:
        OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0", errata 01.
    """
    driver = {
        "name": "gradwatch",
        "version": outcome.version,
        "rules": [_describe_rule(rule) for rule in list_rules()],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [_describe_invocation(outcome)],
        "results": list(_list_results(outcome)),
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _describe_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.kind.split("_")) + rule.code,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": _first_paragraph(rule)},
        "help": {"text": rule.doc.strip(), "markdown": rule.doc.strip()},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["gradients", rule.kind]},
    }


def _first_paragraph(rule: Rule) -> str:
    for block in rule.doc.strip().split("\n\n"):
        words = " ".join(line for line in block.splitlines() if not line.startswith("#"))
        if words:
            return words
    return rule.title


def _describe_invocation(outcome: Outcome) -> dict[str, Any]:
    unjudged = [(run.verdict.run, describe_unjudged(run)) for run in outcome.runs]
    notices = [
        {"level": "error", "message": {"text": _clean(f"{name}: {reason}")}}
        for name, reason in (*outcome.unreadable.items(), *unjudged)
        if reason
    ]
    return {
        "executionSuccessful": outcome.status != NOTHING_TO_JUDGE,
        "exitCode": outcome.status,
        "toolExecutionNotifications": notices,
    }


def _list_results(outcome: Outcome) -> Iterator[dict[str, Any]]:
    for run in outcome.runs:
        for ruling in run.rulings:
            yield _describe_finding(ruling, run, outcome)
        for known in run.gone:
            yield _describe_gone(known, run, outcome)


def _describe_finding(ruling: Ruling, run: RunOutcome, outcome: Outcome) -> dict[str, Any]:
    finding = ruling.finding
    result = {
        "ruleId": finding.code,
        **_point_to_rule(finding.code),
        "level": _LEVELS.get(finding.severity, "warning") if ruling.fails else "note",
        "message": {"text": _clean(f"{finding.message}\nRemedy: {finding.remedy}")},
        "locations": [_locate(find_location(finding), run, outcome, finding.layers)],
        "partialFingerprints": {_FINGERPRINT: _fingerprint(run, finding.kind, finding.layers)},
        "properties": {"run": _clean(run.verdict.run), "ruling": ruling.ruling},
    }
    if ruling.ruling in (KNOWN, IGNORED):  # 3.35: decided outside the tool, and by people
        reason = {"kind": "external", "justification": _clean(ruling.reason)}
        result["suppressions"] = [reason]
    if outcome.has_baseline and ruling.ruling in (FAILS, KNOWN):  # 3.27.24
        result["baselineState"] = _name_state(ruling)
    return result


def _name_state(ruling: Ruling) -> str:
    if ruling.ruling == KNOWN:
        return "unchanged"
    return "updated" if ruling.reason.startswith("worse") else "new"


def _describe_gone(known: KnownFinding, run: RunOutcome, outcome: Outcome) -> dict[str, Any]:
    return {
        "ruleId": known.code,
        **_point_to_rule(known.code),
        "level": "none",
        "kind": "pass",
        "message": {"text": _clean(f"Gone: {describe_gone(known)}")},
        "locations": [_locate(None, run, outcome, known.layers)],
        "partialFingerprints": {_FINGERPRINT: _fingerprint(run, known.kind, known.layers)},
        "baselineState": "absent",
    }


def _point_to_rule(code: str) -> dict[str, int]:
    codes = [rule.code for rule in list_rules()]
    return {"ruleIndex": codes.index(code)} if code in codes else {}


def _locate(
    place: Location | None, run: RunOutcome, outcome: Outcome, layers: tuple[str, ...]
) -> dict[str, Any]:
    found = place or Location(_name_log(run, outcome))
    physical: dict[str, Any] = {"artifactLocation": {"uri": quote(_clean(found.file))}}
    if found.line is not None:
        physical["region"] = {"startLine": found.line}
    logical = [{"fullyQualifiedName": _clean(layer), "kind": "module"} for layer in layers]
    return {"physicalLocation": physical, "logicalLocations": logical}


def _name_log(run: RunOutcome, outcome: Outcome) -> str:
    """The log directory, relative to the working directory where it lies below it."""
    root, here = Path(outcome.logdir or "."), Path.cwd()
    path = root if root.name == run.verdict.run else root / run.verdict.run.partition("#")[0]
    absolute = (here / path).absolute()
    return (absolute.relative_to(here) if absolute.is_relative_to(here) else absolute).as_posix()


def _fingerprint(run: RunOutcome, kind: str, layers: tuple[str, ...]) -> str:
    """The same from one training to the next while kind and layers are."""
    text = "\0".join((run.verdict.run, kind, *sorted(layers)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _clean(text: str) -> str:
    """Lone surrogates are no text to other programs."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
