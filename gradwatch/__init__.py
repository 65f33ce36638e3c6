"""gradwatch: finds vanishing gradients in a real training run, and says why and what to change.

Importing this package imports no torch; each public name loads its module when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradwatch.diagnosis.config import Thresholds
    from gradwatch.diagnosis.findings import Finding, Severity
    from gradwatch.diagnosis.trials import Trial
    from gradwatch.errors import (
        AlreadyWatched,
        GradWatchError,
        InvalidInput,
        NothingToJudge,
        UnhealthyGradients,
        UnreadableLog,
    )
    from gradwatch.remedies.comparison import try_remedies
    from gradwatch.report import Report
    from gradwatch.trial import check
    from gradwatch.watcher import Watch, watch

__version__ = "0.1.0"

_HOMES = {
    "AlreadyWatched": "errors",
    "Finding": "diagnosis.findings",
    "GradWatchError": "errors",
    "InvalidInput": "errors",
    "NothingToJudge": "errors",
    "Report": "report",
    "Severity": "diagnosis.findings",
    "Thresholds": "diagnosis.config",
    "Trial": "diagnosis.trials",
    "UnhealthyGradients": "errors",
    "UnreadableLog": "errors",
    "Watch": "watcher",
    "check": "trial",
    "try_remedies": "remedies.comparison",
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
