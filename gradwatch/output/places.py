"""Where a finding is in the source, and how its text is made fit for a machine."""

from __future__ import annotations

from dataclasses import dataclass

from gradwatch.gate.baseline import KnownFinding
from gradwatch.verdict.findings import Finding


@dataclass(frozen=True)
class Place:
    """A line of a file.

    Attributes:
        file: as the training saw it, with ``/``.
        line: from 1; ``None`` when unknown.
    """

    file: str
    line: int | None = None


def find_place(finding: Finding) -> Place | None:
    """File and line that a finding carries as ``source``, ``"file:line"``; ``None`` without.

    Args:
        finding: on Windows its source has backslashes, which become ``/``.
    """
    source = finding.source
    if not source:
        return None
    file, _, line = str(source).rpartition(":")
    if file and line.isdecimal() and int(line):
        return Place(file.replace("\\", "/"), int(line))
    return Place(str(source).replace("\\", "/"))


def describe_gone(known: KnownFinding) -> str:
    """A known finding that is not there any more: ``vanishing at fc1 and 2 more``.

    Args:
        known: of a baseline.
    """
    if not known.layers:
        return known.kind
    more = f" and {len(known.layers) - 1} more" if len(known.layers) > 1 else ""
    return f"{known.kind} at {known.layers[0]}{more}"
