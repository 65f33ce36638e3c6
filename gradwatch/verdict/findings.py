"""Findings as data: what is wrong, where, since when, why, and what to change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from html import escape
from typing import Any

from gradwatch.errors import InvalidInput, NothingToJudge, UnhealthyGradients
from gradwatch.evidence.history import History
from gradwatch.verdict.course import Course
from gradwatch.verdict.coverage import HEALTHY, NOT_JUDGED, UNHEALTHY, Coverage
from gradwatch.verdict.layer_rows import LayerSummary, Trained
from gradwatch.verdict.own_rules import list_kinds

__all__ = [
    "Finding",
    "LayerSummary",
    "Severity",
    "Trained",
    "Verdict",
    "announce",
    "describe_findings",
]


class Severity(IntEnum):
    """How bad; compares and sorts. In dictionaries and JSON it is its lower-case name."""

    NOTE = 0
    WARNING = 1
    CRITICAL = 2

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """What is unhealthy in one connected region of the network.

    Attributes:
        code: of the rule, such as ``"GW101"``; ``gradwatch explain GW101`` explains it.
        kind: a name in ``schema.kinds.KINDS``.
        severity: ``"warning"`` or ``"critical"`` (``"note"`` in ``Verdict.notes``).
        cause: a name in ``schema.kinds.CAUSES``, the dominant one; ``None`` when it is not known.
        layers: fully qualified names, worst first.
        first_step: global step at which it began.
        last_step: last sampled step at which it was still there.
        observed: the number that was judged.
        threshold: what it was judged against.
        message: one sentence with the numbers.
        remedy: what to change, and where.
        source: line of the user's code that is to blame, such as ``"path/model.py:42"``; where no
            line is, the one that called the first of the layers; empty where it is not known.
    """

    code: str
    kind: str
    severity: str
    cause: str | None
    layers: tuple[str, ...]
    first_step: int
    last_step: int
    observed: float
    threshold: float
    message: str
    remedy: str
    source: str = ""

    @property
    def source_apart(self) -> str:
        """``source`` where the message does not name that line already; else empty."""
        return "" if self.source in self.message else self.source

    def __repr__(self) -> str:
        first, *others = self.layers or ("the model",)
        where = first + (f" and {len(others)} more" if others else "")
        return f"<Finding {self.code} {self.kind}, {self.severity}: {where}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        title = f"{self.code} {self.kind}, {self.severity}"
        parts = (title, self.message, f"Remedy: {self.remedy}", self.source and f"In {self.source}")
        head, *rest = (escape(part) for part in parts if part)
        return f"<div><b>{head}</b><br>{'<br>'.join(rest)}</div>"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in ``Verdict.to_json``."""
        return {**asdict(self), "layers": list(self.layers)}


@dataclass(frozen=True, repr=False)
class Verdict:
    """What diagnosis says of a run so far, as data; ``gradwatch.Report`` adds ways to show it.

    Attributes:
        findings: worst first; empty when healthy.
        notes: worth saying, but no reason to wake someone.
        run: name of the run, or ``""``.
        first_step, last_step: global steps of the first and last record judged.
        records: how many records were judged.
        layers: the layer table over the last window.
        trains: how much of the model trains; frozen by mistake is seen here and nowhere else.
        unseen: what could not be measured, in words.
        failure: the error of gradwatch's own that ended the watching early, or ``""``.
        unstepped: steps' worth of backward passes after the optimizer's last step; 0 where there
            are too few to say that steps have stopped.
        coverage: which parameters were seen to learn; ``None`` where nobody has measured it.
        course: what words need to know of the run besides; not part of the data.
        history: the records behind it, for figures; not part of the data. ``None``: let go of.
    """

    findings: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
    run: str = ""
    first_step: int = 0
    last_step: int = 0
    records: int = 0
    layers: tuple[LayerSummary, ...] = ()
    trains: Trained = field(default_factory=Trained)
    unseen: tuple[str, ...] = ()
    failure: str = ""
    unstepped: int = 0
    coverage: Coverage | None = None
    course: Course = field(default=Course(), repr=False, compare=False)
    history: History | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """One line; ``print(report)`` and ``to_dict()`` have the rest."""
        run = f" of {self.run}" if self.run else ""
        codes = ", ".join(
            dict.fromkeys(f"{finding.code} {finding.kind}" for finding in self.findings)
        )
        found = f", {codes}" if codes else ""
        steps = f"{self.records} records, steps {self.first_step} to {self.last_step}"
        return f"<{type(self).__name__}{run}: {self.status}{found}; {steps}>"

    @property
    def status(self) -> str:
        """``"healthy"``, ``"unhealthy"`` or ``"not_judged"``.

        Healthy is what was seen to learn: at least one parameter, and none left that forward used
        and no record showed to learn.
        """
        if self.findings:
            return UNHEALTHY
        if self.failure or not self.records or self.unstepped:
            return NOT_JUDGED
        proven = self.coverage is None or self.coverage.proves_learning
        return HEALTHY if proven else NOT_JUDGED

    @property
    def healthy(self) -> bool:
        """True when everything that was judged was seen to learn, and nothing is left unjudged."""
        return self.status == HEALTHY

    def of_kind(self, *kinds: str) -> tuple[Finding, ...]:
        """Findings of these kinds; all when none is given.

        Args:
            *kinds: names in ``schema.kinds.KINDS``, or of an own rule.

        Raises:
            InvalidInput: an unknown kind.
        """
        known = list_kinds() if kinds else ()
        unknown = [kind for kind in kinds if kind not in known]
        if unknown:
            raise InvalidInput(f"Expected kinds among {', '.join(known)}, got {unknown[0]!r}.")
        return tuple(finding for finding in self.findings if not kinds or finding.kind in kinds)

    def raise_if(self, *kinds: str) -> None:
        """Raise when there is a finding of one of these kinds (of any kind when none is given).

        Args:
            *kinds: names in ``schema.kinds.KINDS``, or of an own rule.

        Raises:
            UnhealthyGradients: with the findings as text.
            NothingToJudge: no step was recorded, a parameter was not seen to learn, or gradwatch
                itself failed; in CI no data is a failure, never a pass.
        """
        found = self.of_kind(*kinds)
        if found:
            raise UnhealthyGradients(describe_findings(found), found)
        if self.failure:
            raise NothingToJudge(
                f"Expected a complete record of the run, got an error of gradwatch's own: "
                f"{self.failure}. Please report it; until then watch less of the model."
            )
        if self.unstepped:
            raise NothingToJudge(
                f"Expected optimizer steps to the end, got {self.unstepped:,} steps' worth of "
                "backward passes after its last step. Look for what skips optimizer.step(): a "
                "guard against a loss or a gradient that is not finite, or a GradScaler. Detach "
                "the watch before backward passes that belong to no training."
            )
        if self.records == 0:
            raise NothingToJudge(
                "Expected at least one recorded training step, got none. "
                "Train at least one optimizer step while the model is watched."
            )
        if self.coverage is not None and not self.coverage.proves_learning:
            raise NothingToJudge(_describe_unjudged(self.coverage))

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what ``gradwatch check --format json`` prints."""
        return {
            "run": self.run,
            "status": self.status,
            "healthy": self.healthy,
            "first_step": self.first_step,
            "last_step": self.last_step,
            "records": self.records,
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": [note.to_dict() for note in self.notes],
            "trains": asdict(self.trains),
            "unseen": list(self.unseen),
            "failure": self.failure,
            "unstepped": self.unstepped,
            "coverage": None if self.coverage is None else self.coverage.to_dict(),
        }

    def to_json(self, indent: int | None = 2) -> str:
        """``to_dict`` as strict JSON: a number that is not finite becomes ``null``.

        Args:
            indent: spaces a level; ``None``: all in one line.
        """
        text = json.dumps(_finite(self.to_dict()), indent=indent, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace").decode("utf-8")  # lone surrogates


SHOWN = 5
"""Parameters that an error names; the rest is a count."""


def _describe_unjudged(coverage: Coverage) -> str:
    left = coverage.of_state(NOT_JUDGED)
    if not left:
        return (
            "Expected at least one parameter that is seen to learn, got none. Watch the model that "
            "is trained, with the optimizer that trains it, for some steps more."
        )
    names = ", ".join(param.fqn for param in left[:SHOWN])
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return (
        f"Expected every parameter to be seen to learn, got {names}{more}: {left[0].reason}. Train "
        "for more steps, or name in allow_unjudged what need not learn."
    )


def announce(findings: Sequence[Finding], step: int, logdir: str = "") -> str:
    """Who speaks, what was found and where to look, in one line.

    Args:
        findings: at least one.
        step: global step at which it was seen.
        logdir: of the event files; ``""`` when there are none.

    Example:
        ``"gradwatch: 1 finding at step 40: fc1 gets no gradient at all. Remedy: ... [GW101
        vanishing, critical] See the gradwatch tab: tensorboard --logdir runs"``
    """
    count = f"{len(findings)} finding{'s' if len(findings) != 1 else ''}"
    said = " ".join(
        f"{finding.message} Remedy: {finding.remedy} "
        f"[{finding.code} {finding.kind}, {finding.severity}]"
        for finding in findings
    )
    look = f" See the gradwatch tab: tensorboard --logdir {logdir}" if logdir else ""
    return f"gradwatch: {count} at step {step:,}: {said}{look}"


def describe_findings(findings: Sequence[Finding]) -> str:
    """Findings as plain text: message, remedy and code of each.

    Args:
        findings: any number of them, worst first.
    """
    lines = [f"{len(findings)} finding{'s' if len(findings) != 1 else ''}:"]
    for finding in findings:
        lines.append(f"- [{finding.code} {finding.kind}, {finding.severity}] {finding.message}")
        lines.append(f"  Remedy: {finding.remedy}")
    return "\n".join(lines)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
