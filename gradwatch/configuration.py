"""``[tool.gradwatch]`` of pyproject.toml: what a repository has agreed on, read by every entry.

Found from the working directory upwards, as ruff and pytest find theirs: the nearest pyproject.toml
that has the table. Arguments and the command line win over it, and it wins over the thresholds that
a log was written with.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from gradwatch.errors import InvalidInput
from gradwatch.setting_values import (
    FAILING_SEVERITIES,
    TABLE,
    expect_table,
    parse_count,
    parse_kinds,
    parse_seconds,
    parse_severity,
    parse_thresholds,
    refuse_unknown,
)
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.findings import Finding, Severity, Verdict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "pyproject.toml"
AnyVerdict = TypeVar("AnyVerdict", bound=Verdict)


@dataclass(frozen=True)
class Ignore:
    """A finding that a repository lives with, and why.

    Attributes:
        kind: a name in ``schema.kinds.KINDS``.
        layers: ``fnmatch`` pattern for fully qualified names.
        reason: for those who read the report.
    """

    kind: str
    layers: str
    reason: str


@dataclass(frozen=True)
class Configuration:
    """The settings of a repository; each is ``None`` or empty where the file says nothing.

    Attributes:
        path: the file, ``None`` when there is none.
        fail_on: kinds of finding that fail a check.
        min_severity: mildest severity that fails a check.
        steps: training steps of ``gradwatch.check``.
        seeds: trainings of ``gradwatch.check``.
        budget_seconds: longest time of one ``gradwatch.check``, seconds.
        thresholds: changed fields of ``Thresholds``, by name.
        ignore: findings that fail nothing.
    """

    path: Path | None = None
    fail_on: tuple[str, ...] = ()
    min_severity: str = FAILING_SEVERITIES[0]
    steps: int | None = None
    seeds: int | None = None
    budget_seconds: float | None = None
    thresholds: Mapping[str, object] = field(default_factory=dict)
    ignore: tuple[Ignore, ...] = ()

    def find_reason(self, finding: Finding) -> str:
        """Why a finding is ignored: every layer of it matches a pattern for its kind; else empty.

        One layer that nothing matches keeps the whole finding.

        Args:
            finding: on some layers, or on the run as a whole.

        Returns:
            The reasons of all rows that match, once each.
        """
        rows = [row for row in self.ignore if row.kind == finding.kind]
        reasons: list[str] = []
        for layer in finding.layers or ("",):
            found = next((row for row in rows if fnmatchcase(layer, row.layers)), None)
            if found is None:
                return ""
            reasons.append(found.reason)
        return "; ".join(dict.fromkeys(reasons))

    def choose_thresholds(self, given: Thresholds | None = None) -> Thresholds:
        """Those that were given; else the defaults with this file's changes.

        Args:
            given: by the caller; ``None``: nothing.
        """
        return Thresholds().replace(**self.thresholds) if given is None else given

    def silence(self, verdict: AnyVerdict) -> AnyVerdict:
        """The verdict with ignored and milder findings among its notes, with the reason.

        Args:
            verdict: stays as it is.
        """
        kept: list[Finding] = []
        notes: list[Finding] = []
        for finding in verdict.findings:
            reason = self.find_reason(finding)
            if reason:
                text = f"Ignored ({reason}): {finding.message}"
            elif is_milder(finding, self.min_severity):
                text = f"Below min-severity {self.min_severity}: {finding.message}"
            else:
                kept.append(finding)
                continue
            notes.append(replace(finding, severity="note", message=text))
        if not notes:
            return verdict
        return replace(verdict, findings=tuple(kept), notes=(*notes, *verdict.notes))


def is_milder(finding: Finding, severity: str) -> bool:
    """Whether a finding is below a severity.

    Args:
        finding: of any severity.
        severity: ``"note"``, ``"warning"`` or ``"critical"``.
    """
    return Severity[finding.severity.upper()] < Severity[severity.upper()]


def find_configuration(start: Path | None = None) -> Configuration:
    """The nearest configuration at or above a directory (the working directory by default).

    Args:
        start: directory; ``None``: the working directory.

    Returns:
        An empty one where no file has the table.

    Raises:
        InvalidInput: the file is no TOML, or says something that means nothing to gradwatch.
    """
    here = (Path.cwd() if start is None else start).resolve()
    for folder in (here, *here.parents):
        path = folder / FILE_NAME
        if path.is_file():
            table = _read_table(path)
            if table is not None:
                return parse_configuration(table, path)
    return Configuration()


def _read_table(path: Path) -> object:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"Expected TOML in {str(path)!r}, got an error ({error}). Mend the file."
        ) from error
    tool = content.get("tool")
    return tool.get("gradwatch") if isinstance(tool, dict) else None


def parse_configuration(table: object, path: Path) -> Configuration:
    """Settings from the content of the table.

    Args:
        table: as TOML gives it.
        path: of the file, for errors.

    Raises:
        InvalidInput: an unknown key, or a value that means nothing.
    """
    content = expect_table(table, TABLE)
    refuse_unknown(content, _PARSERS, f"[{TABLE}] of {path}")
    values: dict[str, Any] = {}
    for key, value in content.items():
        try:
            values[key.replace("-", "_")] = _PARSERS[key](value)
        except InvalidInput as error:
            raise InvalidInput(f"{path}, [{TABLE}], {key}: {error}") from None
    return Configuration(path=path, **values)


def parse_ignores(value: object) -> tuple[Ignore, ...]:
    """Rows of ``[[tool.gradwatch.ignore]]``: kind, layers and reason, all of them.

    Args:
        value: the list of tables, as TOML gives it.

    Raises:
        InvalidInput: something is missing, empty or unknown.
    """
    if not isinstance(value, list):
        raise InvalidInput(
            f"Expected tables [[{TABLE}.ignore]], got {value!r}. Write one for each."
        )
    return tuple(map(_parse_ignore, value))


def _parse_ignore(row: object) -> Ignore:
    content = expect_table(row, "ignore")
    names = [column.name for column in fields(Ignore)]
    refuse_unknown(content, names, f"[[{TABLE}.ignore]]")
    for name in names:
        given = content.get(name)
        if not isinstance(given, str) or not given.strip():
            raise InvalidInput(
                f"Expected {name} = '...' in every [[{TABLE}.ignore]], got {given!r}. "
                "Give the kind, a pattern for the layers and the reason."
            )
    (kind,) = parse_kinds(content["kind"])
    return Ignore(kind, content["layers"], content["reason"])


_PARSERS = {
    "fail-on": parse_kinds,
    "min-severity": parse_severity,
    "steps": parse_count,
    "seeds": parse_count,
    "budget-seconds": parse_seconds,
    "thresholds": parse_thresholds,
    "ignore": parse_ignores,
}
