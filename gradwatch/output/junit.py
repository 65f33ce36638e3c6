"""An outcome as JUnit XML: each run is a suite, and each kind of finding a test of it.

The dialect is the one that Jenkins, GitLab and pytest share: ``testsuites``, ``testsuite``,
``testcase``, and in it at most one of ``failure``, ``error`` and ``skipped``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from gradwatch.display.coverage_words import describe_coverage
from gradwatch.gate.outcome import Outcome, Ruling, RunOutcome
from gradwatch.output.locations import find_location
from gradwatch.output.ruling_words import describe_unjudged
from gradwatch.verdict.coverage import NOT_JUDGED
from gradwatch.verdict.own_rules import list_kinds

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COUNTS = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def write_junit(outcome: Outcome) -> str:
    """The document, with its declaration.

    Args:
        outcome: of all runs; each is a test suite, and each kind of finding a test case of it.
    """
    root = ElementTree.Element("testsuites", name="gradwatch")
    root.extend(_build_suites(outcome))
    _count(root)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _build_suites(outcome: Outcome) -> Iterator[ElementTree.Element]:
    judged = {run.verdict.run: run for run in outcome.runs}
    for name, run in judged.items():
        suite = _make_suite(name)
        suite.extend(_build_properties(run))
        suite.extend(_build_case(kind, run) for kind in list_kinds())
        if name in outcome.unreadable:
            suite.append(_build_damage(name, outcome.unreadable[name]))
        yield suite
    for name, reason in outcome.unreadable.items():
        if name not in judged:
            suite = _make_suite(name)
            suite.append(_build_damage(name, reason))
            yield suite


def _make_suite(name: str) -> ElementTree.Element:
    return ElementTree.Element("testsuite", name=_clean(name) or "gradwatch")


def _build_properties(run: RunOutcome) -> Iterator[ElementTree.Element]:
    """What was seen to learn, where it is known."""
    words = describe_coverage(run.verdict.coverage)
    if words:
        properties = ElementTree.Element("properties")
        ElementTree.SubElement(properties, "property", name="coverage", value=_clean(words))
        yield properties


def _build_damage(run: str, reason: str) -> ElementTree.Element:
    case = _make_case("can be judged", run)
    ElementTree.SubElement(case, "error", message=_clean(reason), type=NOT_JUDGED)
    return case


def _make_case(name: str, run: str) -> ElementTree.Element:
    classname = f"gradwatch.{_clean(run).replace('.', '_') or 'run'}"
    return ElementTree.Element("testcase", name=name, classname=classname, time="0")


def _build_case(kind: str, run: RunOutcome) -> ElementTree.Element:
    case = _make_case(kind, run.verdict.run)
    rulings = [ruling for ruling in run.rulings if ruling.finding.kind == kind]
    failing = [ruling for ruling in rulings if ruling.fails]
    if failing:
        _add_result(case, "failure", failing)
    elif rulings:
        _add_result(case, "skipped", rulings)
    elif describe_unjudged(run):
        error = ElementTree.SubElement(case, "error", type=NOT_JUDGED)
        error.set("message", _clean(describe_unjudged(run)))
        error.text = _clean(describe_coverage(run.verdict.coverage))
    return case


def _add_result(case: ElementTree.Element, tag: str, rulings: list[Ruling]) -> None:
    worst = rulings[0]
    place = find_location(worst.finding)
    if place is not None:
        case.set("file", _clean(place.file))
        if place.line is not None:
            case.set("line", str(place.line))
    message = worst.finding.message if worst.fails else f"{worst.ruling}: {worst.reason}"
    kind = worst.finding.code if worst.fails else worst.ruling
    result = ElementTree.SubElement(case, tag, message=_clean(message), type=kind)
    result.text = _clean("\n\n".join(map(_describe, rulings)))


def _describe(ruling: Ruling) -> str:
    finding = ruling.finding
    lines = [
        finding.message,
        f"Remedy: {finding.remedy}",
        f"Layers: {', '.join(finding.layers)}",
        f"Steps: {finding.first_step} to {finding.last_step}",
        f"Rule: {finding.code}, {finding.severity}",
    ]
    return "\n".join([*lines, f"Gate: {ruling.reason}"] if ruling.reason else lines)


def _count(root: ElementTree.Element) -> None:
    for element in (*root.findall("testsuite"), root):
        element.set("tests", str(len(list(element.iter("testcase")))))
        for name, tag in _COUNTS.items():
            element.set(name, str(len(list(element.iter(tag)))))
        element.set("time", "0")


def _clean(text: str) -> str:
    """What no XML may hold is spelled out."""
    return _NO_XML.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
