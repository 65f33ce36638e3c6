"""The values that a setting may have, whoever gives it: checked, and refused with what would do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from gradwatch.errors import InvalidInput
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.own_rules import list_kinds

TABLE = "tool.gradwatch"
"""Where a repository keeps its settings, in pyproject.toml."""

FAILING_SEVERITIES = ("warning", "critical")
"""What ``min-severity`` may say, mildest first; notes never fail anything."""

IN_GRAPH = "in_graph"
"""``compiled=`` of those who want a compiled model's layers read inside its graph."""

_MOST_NAMES = 12  # that an error lists


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise for the first name that is not known, with the nearest that is.

    Args:
        given: names that somebody has used.
        known: all that there are.
        where: they were used, for the error.

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
    """The name that a misspelt one most likely means.

    Args:
        name: as it was spelt.
        names: at least one.

    Example:
        >>> find_nearest("vanshing", ["dead", "vanishing"])
        'vanishing'
    """
    return difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]


def check_compiled(compiled: str) -> str:
    """The way in which a compiled model's layers are seen, if it is one.

    Args:
        compiled: as of ``watch``.

    Raises:
        InvalidInput: it is none.
    """
    if compiled not in ("eager", IN_GRAPH):
        raise InvalidInput(
            f"Expected compiled to be 'eager' or 'in_graph', got {compiled!r}. Leave it out to see "
            "a compiled model's layers by running sampled steps eagerly."
        )
    return compiled


def parse_kinds(value: object) -> tuple[str, ...]:
    """Kinds of finding, from one name or several.

    Args:
        value: a name or a list of names, as TOML gives it.

    Raises:
        InvalidInput: something else than kinds.

    Example:
        >>> parse_kinds("dead"), parse_kinds(["dead", "vanishing"])
        (('dead',), ('dead', 'vanishing'))
    """
    kinds = (value,) if isinstance(value, str) else value
    if not isinstance(kinds, (list, tuple)) or not all(isinstance(kind, str) for kind in kinds):
        raise InvalidInput(f"Expected a list of kinds, got {value!r}. Write for instance ['dead'].")
    refuse_unknown(kinds, list_kinds(), "a list of kinds of finding")
    return tuple(kinds)


def parse_count(value: object) -> int:
    """A whole number from 1.

    Args:
        value: as TOML gives it.

    Raises:
        InvalidInput: anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInput(f"Expected a whole number from 1, got {value!r}. Write for instance 3.")
    return value


def parse_seconds(value: object) -> float:
    """A positive time in seconds.

    Args:
        value: as TOML gives it.

    Raises:
        InvalidInput: anything else.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < float(value) < float("inf"):  # type: ignore[arg-type]
        raise InvalidInput(f"Expected seconds above 0, got {value!r}. Write for instance 60.")
    return float(value)  # type: ignore[arg-type]


def parse_severity(value: object) -> str:
    """One of ``FAILING_SEVERITIES``.

    Args:
        value: as TOML gives it.

    Raises:
        InvalidInput: anything else.
    """
    if not isinstance(value, str) or value not in FAILING_SEVERITIES:
        raise InvalidInput(
            f"Expected {' or '.join(FAILING_SEVERITIES)}, got {value!r}. Write one of them."
        )
    return value


def parse_thresholds(value: object) -> dict[str, object]:
    """Changed thresholds by name, each of the type of its default.

    Args:
        value: the table, as TOML gives it.

    Raises:
        InvalidInput: an unknown name, or a value of another type.
    """
    content = expect_table(value, "thresholds")
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


def expect_table(value: object, name: str) -> dict[str, Any]:
    """The value, if it is a table of TOML's.

    Args:
        value: as TOML gives it.
        name: of the table, for the error.

    Raises:
        InvalidInput: it is none.
    """
    if not isinstance(value, dict):
        raise InvalidInput(f"Expected a table {name}, got {value!r}. Write [{TABLE}] and keys.")
    return value
