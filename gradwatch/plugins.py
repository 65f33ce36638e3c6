"""What other packages add through entry points: loaded when first asked for, and never trusted.

A package that cannot be loaded is named once in a warning, and left out.
"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from gradwatch.interruption import forget_frames

RULES_GROUP = "gradwatch.rules"
"""Entry points that name a ``gradwatch.verdict.rule.Rule`` each."""

STATISTICS_GROUP = "gradwatch.statistics"
"""Entry points that name a ``gradwatch.capture.own_statistics.OwnStatistic`` each."""

_warned: set[str] = set()


@cache
def load_plugins(group: str, kind: type[Any]) -> tuple[Any, ...]:
    """What the installed packages name in a group, in the order of their names.

    Args:
        group: ``RULES_GROUP`` or ``STATISTICS_GROUP``.
        kind: class that each of them must be of.

    Returns:
        The objects; without those that cannot be loaded or are something else.
    """
    found: list[Any] = []
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        try:
            loaded = point.load()
        except Exception as error:
            warn_once(_describe(point, kind, f"{type(error).__name__}: {error}"))
            forget_frames(error)  # whoever keeps it would keep the model
            continue
        if isinstance(loaded, kind):
            found.append(loaded)
        else:
            warn_once(_describe(point, kind, type(loaded).__name__))
    return tuple(found)


def _describe(point: Any, kind: type[Any], came: str) -> str:
    return (
        f"gradwatch expected a {kind.__name__} at the entry point {point.name!r} of "
        f"{point.group!r} ({point.value}), got {came}. It goes on without; correct or uninstall "
        "the package."
    )


def warn_once(text: str) -> None:
    """Warn of something broken that is not ours; the same text once in a process.

    Args:
        text: in full sentences.
    """
    if text in _warned:
        return
    _warned.add(text)
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    except Warning:  # warnings are errors here, and a broken plugin must stop nothing
        print(text, file=sys.stderr)


def warn_again(text: str, category: type[Warning], filename: str, lineno: int) -> None:
    """Warn of what another process of ours has warned of; the same text once in this one.

    Args:
        text: of the warning.
        category: of the warning.
        filename, lineno: where it was said to come from.
    """
    if text in _warned:
        return
    _warned.add(text)
    try:
        warnings.warn_explicit(text, category, filename, lineno)
    except Warning:
        print(text, file=sys.stderr)
