"""``[tool.gradwatch]`` of pyproject.toml: what a repository has agreed on, read by every entry.

Found from the working directory upwards, as ruff and pytest find theirs: the nearest pyproject.toml
that has the table. Arguments and the command line win over it, and it wins over the thresholds that
a log was written with.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from gradwatch.errors import InvalidInput
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.findings import Finding, Severity, Verdict
from gradwatch.verdict.own_rules import list_kinds

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "pyproject.toml"
TABLE = "tool.gradwatch"
SEVERITIES = ("warning", "critical")
"""What ``min-severity`` may say, mildest first; notes never fail anything."""

_MOST_NAMES = 12  # that an error lists

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
    min_severity: str = SEVERITIES[0]
    steps: int | None = None
    seeds: int | None = None
    budget_seconds: float | None = None
    thresholds: Mapping[str, object] = field(default_factory=dict)
    ignore: tuple[Ignore, ...] = ()

    def find_reason(self, finding: Finding) -> str:
        """Why a finding is ignored: every layer of it matches a pattern for its kind; else empty.

        One layer that nothing matches keeps the whole finding.
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
        """Those that were given; else the defaults with this file's changes."""
        return Thresholds().replace(**self.thresholds) if given is None else given

    def silence(self, verdict: AnyVerdict) -> AnyVerdict:
        """The verdict with ignored and milder findings among its notes, with the reason."""
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
    """Whether a finding is below a severity."""
    return Severity[finding.severity.upper()] < Severity[severity.upper()]


def find_configuration(start: Path | None = None) -> Configuration:
    """The nearest configuration at or above a directory (the working directory by default).

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

    Raises:
        InvalidInput: an unknown key, or a value that means nothing.
    """
    content = _expect_table(table, TABLE)
    refuse_unknown(content, _PARSERS, f"[{TABLE}] of {path}")
    values: dict[str, Any] = {}
    for key, value in content.items():
        try:
            values[key.replace("-", "_")] = _PARSERS[key](value)
        except InvalidInput as error:
            raise InvalidInput(f"{path}, [{TABLE}], {key}: {error}") from None
    return Configuration(path=path, **values)


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise for the first name that is not known, with the nearest that is.

    Raises:
        InvalidInput: an unknown name.
    """
    names = list(known)
    for name in given:
        if name not in names:
            among = f" among {', '.join(names)}" if len(names) <= _MOST_NAMES else ""
            raise InvalidInput(
                f"Expected a key{among} in {where}, got {name!r}. "
                f"Did you mean {find_nearest(name, names)!r}?"
            )


def find_nearest(name: str, names: Sequence[str]) -> str:
    """The name that a misspelt one most likely means."""
    return difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]


def parse_kinds(value: object) -> tuple[str, ...]:
    """Kinds of finding, from one name or several.

    Raises:
        InvalidInput: something else than kinds.
    """
    kinds = (value,) if isinstance(value, str) else value
    if not isinstance(kinds, (list, tuple)) or not all(isinstance(kind, str) for kind in kinds):
        raise InvalidInput(f"Expected a list of kinds, got {value!r}. Write for instance ['dead'].")
    refuse_unknown(kinds, list_kinds(), "a list of kinds of finding")
    return tuple(kinds)


def parse_count(value: object) -> int:
    """A whole number from 1.

    Raises:
        InvalidInput: anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInput(f"Expected a whole number from 1, got {value!r}. Write for instance 3.")
    return value


def parse_seconds(value: object) -> float:
    """A positive time in seconds.

    Raises:
        InvalidInput: anything else.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < float(value) < float("inf"):  # type: ignore[arg-type]
        raise InvalidInput(f"Expected seconds above 0, got {value!r}. Write for instance 60.")
    return float(value)  # type: ignore[arg-type]


def parse_severity(value: object) -> str:
    """One of ``SEVERITIES``.

    Raises:
        InvalidInput: anything else.
    """
    if not isinstance(value, str) or value not in SEVERITIES:
        raise InvalidInput(f"Expected {' or '.join(SEVERITIES)}, got {value!r}. Write one of them.")
    return value


def parse_thresholds(value: object) -> dict[str, object]:
    """Changed thresholds by name, each of the type of its default.

    Raises:
        InvalidInput: an unknown name, or a value of another type.
    """
    content = _expect_table(value, "thresholds")
    defaults = {row.name: row.default for row in fields(Thresholds)}
    refuse_unknown(content, defaults, "thresholds")
    return {name: _convert(name, given, defaults[name]) for name, given in content.items()}


def _convert(name: str, value: object, default: object) -> object:
    if isinstance(default, tuple):
        if isinstance(value, (list, tuple)) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        raise InvalidInput(f"Expected a list of names for {name}, got {value!r}. Write ['...'].")
    wanted = (int,) if isinstance(default, int) else (int, float)
    if not isinstance(value, wanted) or isinstance(value, bool) or not abs(value) < float("inf"):
        words = "whole" if isinstance(default, int) else "finite"
        raise InvalidInput(
            f"Expected a {words} number for {name}, got {value!r}. The default is {default!r}."
        )
    return type(default)(value)  # type: ignore[call-arg]


def parse_ignores(value: object) -> tuple[Ignore, ...]:
    """Rows of ``[[tool.gradwatch.ignore]]``: kind, layers and reason, all of them.

    Raises:
        InvalidInput: something is missing, empty or unknown.
    """
    if not isinstance(value, list):
        raise InvalidInput(
            f"Expected tables [[{TABLE}.ignore]], got {value!r}. Write one for each."
        )
    return tuple(map(_parse_ignore, value))


def _parse_ignore(row: object) -> Ignore:
    content = _expect_table(row, "ignore")
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


def _expect_table(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"Expected a table {name}, got {value!r}. Write [{TABLE}] and keys.")
    return value


_PARSERS = {
    "fail-on": parse_kinds,
    "min-severity": parse_severity,
    "steps": parse_count,
    "seeds": parse_count,
    "budget-seconds": parse_seconds,
    "thresholds": parse_thresholds,
    "ignore": parse_ignores,
}
