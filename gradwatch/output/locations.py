"""Where a finding is in the source."""

from __future__ import annotations

from dataclasses import dataclass

from gradwatch.verdict.findings import Finding


@dataclass(frozen=True)
class Location:
    """A line of a file.

    Attributes:
        file: as the training saw it, with ``/``.
        line: from 1; ``None`` when unknown.
    """

    file: str
    line: int | None = None


def find_location(finding: Finding) -> Location | None:
    """File and line that a finding carries as ``source``, ``"file:line"``; ``None`` without.

    Args:
        finding: on Windows its source has backslashes, which become ``/``.
    """
    source = finding.source
    if not source:
        return None
    file, _, line = str(source).rpartition(":")
    if file and line.isdecimal() and int(line):
        return Location(file.replace("\\", "/"), int(line))
    return Location(str(source).replace("\\", "/"))
