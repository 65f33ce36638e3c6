"""Trials of remedies as plain JSON data for the page: one sentence and one table, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradwatch.display.layer_table import join_unique
from gradwatch.display.trial_table import group_unfit, write_loss, write_times
from gradwatch.verdict.trials import Trial, name_times

_WORKED = ("healthy", "better")


def brief_trials(trials: Sequence[Trial]) -> dict[str, Any] | None:
    """What the page shows of them; ``None`` when no remedy was tried.

    Args:
        trials: ranked, best first.
    """
    if not trials:
        return None
    return {
        "steps": trials[0].steps,
        "advice": _advise(trials[0]),
        "rows": [_row(trial) for trial in trials if trial.after is not None],
        "unfit": [f"{', '.join(names)}: {reason}" for reason, names in group_unfit(trials)],
    }


def _advise(best: Trial) -> str:
    """The best remedy and what it was seen to do; the rest is in the table."""
    if best.is_baseline or best.after is None or best.outcome not in _WORKED:
        return f"None of the remedies that were tried helped within {best.steps} steps."
    start, end = write_loss(best.after.loss_start), write_loss(best.after.loss_end)
    fell = f"the loss goes from {start} to {end}"
    return f"{best.name}: {name_times(best.speedup)}, and {fell} in {best.steps} steps."


def _row(trial: Trial) -> dict[str, Any]:
    after = trial.after
    assert after is not None  # only what could be tried has a row
    kinds = join_unique(finding.kind for finding in after.findings)
    return {
        "name": trial.name,
        "outcome": "" if trial.is_baseline else trial.outcome,
        "description": "" if trial.is_baseline else trial.description,
        "moves": "" if trial.is_baseline else write_times(trial.speedup),
        "update": f"{after.early_update:.1e}" if math.isfinite(after.early_update) else "",
        "loss": [write_loss(after.loss_start), write_loss(after.loss_end)],
        "findings": kinds or "none",
    }
