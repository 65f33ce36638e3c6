"""gradwatch: finds vanishing gradients in a real training run, and says why and what to change.

Importing this package imports no torch; each public name loads its module when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradwatch.errors import (
        AlreadyWatched,
        GradWatchError,
        InvalidInput,
        NothingToJudge,
        UnhealthyGradients,
        UnreadableLog,
    )
    from gradwatch.live_watch import Watch, unwatch
    from gradwatch.model_check import check
    from gradwatch.remedies.comparison import try_remedies
    from gradwatch.report import Report
    from gradwatch.thresholds import Thresholds
    from gradwatch.verdict.findings import Finding, Severity
    from gradwatch.verdict.trials import Trial
    from gradwatch.watcher import watch

__version__ = "0.1.0"

_HOMES = {
    "AlreadyWatched": "errors",
    "Finding": "verdict.findings",
    "GradWatchError": "errors",
    "InvalidInput": "errors",
    "NothingToJudge": "errors",
    "Report": "report",
    "Severity": "verdict.findings",
    "Thresholds": "thresholds",
    "Trial": "verdict.trials",
    "UnhealthyGradients": "errors",
    "UnreadableLog": "errors",
    "Watch": "live_watch",
    "check": "model_check",
    "try_remedies": "remedies.comparison",
    "unwatch": "live_watch",
    "watch": "watcher",
}

__all__ = [
    "AlreadyWatched",
    "Finding",
    "GradWatchError",
    "InvalidInput",
    "NothingToJudge",
    "Report",
    "Severity",
    "Thresholds",
    "Trial",
    "UnhealthyGradients",
    "UnreadableLog",
    "Watch",
    "__version__",
    "check",
    "try_remedies",
    "unwatch",
    "watch",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'gradwatch' has no attribute {name!r}")
    value = getattr(import_module(f"gradwatch.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
