"""Findings as a tracker's own alerts, where it has them: Weights & Biases and Comet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gradwatch.verdict.episodes import Change
from gradwatch.verdict.findings import Finding, announce

_LEVELS = {"critical": "ERROR", "warning": "WARN"}
"""By severity, as ``wandb.AlertLevel`` names them."""


class Alerts:
    """Sends each finding that begins once, however often it comes and goes.

    Args:
        find_experiments: answers the trackers' own objects, such as ``wandb.run``; what has no
            alerts among them is passed over.
    """

    def __init__(self, find_experiments: Callable[[], Iterable[Any]]) -> None:
        self._find_experiments = find_experiments
        self._sent: set[tuple[str, tuple[str, ...]]] = set()

    def hear(self, change: Change) -> None:
        """A finding began or ended.

        Args:
            change: as ``on_change`` gets it.
        """
        finding = change.finding
        if not change.began or (finding.code, finding.layers) in self._sent:
            return
        self._sent.add((finding.code, finding.layers))
        for experiment in self._find_experiments():
            _send(experiment, finding)


def _send(experiment: Any, finding: Finding) -> None:
    title = f"gradwatch: {finding.kind}"
    text = announce([finding], finding.last_step)
    if callable(getattr(experiment, "alert", None)):
        experiment.alert(title=title, text=text, level=_LEVELS[finding.severity])
    elif callable(getattr(experiment, "send_notification", None)):
        experiment.send_notification(title, additional_data={"finding": text})
