"""Trials: what a remedy did to a training, measured; and which did best."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from gradwatch.thresholds import Thresholds
from gradwatch.verdict.findings import Finding
from gradwatch.wording.phrases import name_number

BASELINE = "as it is"
"""Name of the trial that changes nothing."""

COSTS: dict[str, int] = {
    "none": 0,
    "learning_rate": 1,
    "initialisation": 1,
    "inputs": 1,
    "activation": 2,
    "normalisation": 3,
    "residual": 3,
}
"""How much of the model a change touches: how it starts or is fed (1), which functions it is made
of (2), or which modules it has (3). Of remedies that work, the smaller change wins."""

OUTCOMES: tuple[str, ...] = ("healthy", "better", "no better", "blew up", "not applicable")
"""What became of a trial, best first.

``healthy``: no finding, the early layers move and the loss fell. ``better``: the early layers moved
more and the loss fell further than in the untouched model. ``blew up``: NaN or Inf, a finding that
says so and was not there before, a loss that more than doubled, or one that did not fall while
the early weights were replaced at every step.
"""

_BLOW_UPS = ("nonfinite", "exploding")


@dataclass(frozen=True)
class Measurement:
    """A few training steps in numbers.

    Attributes:
        attenuation: least relative gradient of all weight layers, median over the steps; 1 is full.
        early_update: relative update ``||dw||/||w||`` per step: the median of the first third of
            the weights, mean over the steps; a weight far below LeCun's scale is held against that
            scale.
        loss_start, loss_end: mean loss of the same batches before the first and after the last
            step.
        findings: of ``gradwatch.check``, worst first.
    """

    attenuation: float
    early_update: float
    loss_start: float
    loss_end: float
    findings: tuple[Finding, ...] = ()

    @property
    def finite(self) -> bool:
        """Whether the loss stayed a number."""
        return math.isfinite(self.loss_start) and math.isfinite(self.loss_end)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "attenuation": self.attenuation,
            "early_update": self.early_update,
            "loss_start": self.loss_start,
            "loss_end": self.loss_end,
            "findings": [finding.to_dict() for finding in self.findings],
        }


@dataclass(frozen=True)
class Trial:
    """One remedy, tried on a copy of a model.

    Attributes:
        name: a few words, such as ``"ReLU + He"``; ``"as it is"`` for the untouched model.
        change: what kind of change it is, a key of ``COSTS``.
        description: what was changed, and where.
        steps: training steps of each trial; one that turns NaN is ended early.
        before: the untouched model under the same batches and the same seed.
        after: with the remedy; ``None`` when it could not be applied.
        reason: why it could not be applied, else empty.
        outcome: one of ``OUTCOMES``.
    """

    name: str
    change: str
    description: str
    steps: int
    before: Measurement
    after: Measurement | None
    reason: str = ""
    outcome: str = ""

    def __repr__(self) -> str:
        return f"<Trial {self.name}: {self.reason or self.outcome or 'not ranked'}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        says = self.reason or f"{self.outcome}, early layers move {self.speedup:.3g} times as much"
        words = (escape(text) for text in (says, self.description) if text)
        return f"<div><b>{escape(self.name)}</b>: {'<br>'.join(words)}</div>"

    @property
    def is_baseline(self) -> bool:
        """Whether this is the untouched model."""
        return self.change == "none"

    @property
    def applicable(self) -> bool:
        """Whether the remedy could be tried."""
        return self.after is not None

    @property
    def speedup(self) -> float:
        """How many times as much the early layers move; NaN when that was not measured."""
        if self.after is None:
            return math.nan
        if self.before.early_update > 0:
            return self.after.early_update / self.before.early_update
        return math.inf if self.after.early_update > 0 else math.nan

    @property
    def progress(self) -> float:
        """How far the loss fell below where it started, with or without the remedy.

        A remedy that only starts from a larger loss has not got anywhere by falling back.
        """
        if self.after is None or not self.after.finite:
            return -math.inf
        starts = [self.after.loss_start, self.before.loss_start]
        return min(loss for loss in starts if math.isfinite(loss)) - self.after.loss_end

    def to_dict(self) -> dict[str, Any]:
        """Plain data; numbers that are not finite stay as they are."""
        return {
            "name": self.name,
            "change": self.change,
            "description": self.description,
            "outcome": self.outcome,
            "reason": self.reason,
            "steps": self.steps,
            "before": self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
        }

    def __str__(self) -> str:
        if self.after is None:
            return f"{self.name}: not applicable ({self.reason})"
        moved = name_times(self.speedup)
        if self.is_baseline:
            moved = f"early layers move {self.after.early_update:.1e} per step"
        return (
            f"{self.name}: {self.outcome}; {moved}, "
            f"loss {self.after.loss_start:.3g} -> {self.after.loss_end:.3g} in {self.steps} steps "
            f"({self.description})"
        )


def name_times(speedup: float) -> str:
    """How much more the early layers move, as a phrase.

    Args:
        speedup: see ``Trial.speedup``; NaN: not measured; infinite: they stood still.

    Example:
        >>> name_times(3.8e6)
        'early layers move 3.8 million times as much'
    """
    if math.isnan(speedup):
        return "early layers not measured"
    if math.isinf(speedup):
        return "early layers move, which they did not before"
    return f"early layers move {name_number(speedup)} times as much"


def rank_trials(trials: Iterable[Trial], thresholds: Thresholds) -> list[Trial]:
    """Trials with their outcome, best first.

    By outcome; then those that learn before those that hardly do; among these the smaller change
    first, and of the same size the one whose loss fell furthest.

    Args:
        trials: in any order.
        thresholds: ``trial_progress``, and those of ``judge_trial``.
    """
    judged = [replace(trial, outcome=judge_trial(trial, thresholds)) for trial in trials]
    best: dict[str, float] = {}
    for trial in judged:
        best[trial.outcome] = max(best.get(trial.outcome, 0.0), trial.progress)
    return sorted(judged, key=lambda trial: _key(trial, best[trial.outcome], thresholds))


def _key(trial: Trial, best: float, thresholds: Thresholds) -> tuple[int, bool, int, float]:
    lags = not trial.progress >= thresholds.trial_progress * best
    return OUTCOMES.index(trial.outcome), lags, COSTS[trial.change], -trial.progress


def judge_trial(trial: Trial, thresholds: Thresholds) -> str:
    """What became of a trial; the untouched model is judged like any other.

    Args:
        trial: of a remedy.
        thresholds: ``update_ratio`` of early layers that move, ``replacing_update`` of those that
            are replaced.

    Returns:
        One of ``OUTCOMES``.

    Example:
        >>> before = Measurement(1e-6, 1e-9, loss_start=2.3, loss_end=2.3)
        >>> after = Measurement(0.4, 1e-3, loss_start=2.3, loss_end=0.7)
        >>> trial = Trial("ReLU + He", "activation", "all sigmoids", 50, before, after)
        >>> judge_trial(trial, Thresholds()), name_times(trial.speedup)
        ('healthy', 'early layers move 1 million times as much')
    """
    after = trial.after
    if after is None:
        return "not applicable"
    if _blew_up(trial, after, thresholds):
        return "blew up"
    falls = trial.progress > 0
    if falls and not after.findings and after.early_update >= thresholds.update_ratio:
        return "healthy"
    return "better" if falls and _is_better(trial, after) else "no better"


def _is_better(trial: Trial, after: Measurement) -> bool:
    """Against the untouched model, which may itself have blown up."""
    if not trial.before.finite:
        return True
    further = trial.progress > trial.before.loss_start - trial.before.loss_end
    return further and after.early_update > trial.before.early_update


def _blew_up(trial: Trial, after: Measurement, thresholds: Thresholds) -> bool:
    replaces = after.early_update >= thresholds.replacing_update and not trial.progress > 0
    if not after.finite or replaces:
        return True
    known = {finding.kind for finding in trial.before.findings}
    new = {finding.kind for finding in after.findings} - (set() if trial.is_baseline else known)
    doubled = -trial.progress > abs(trial.before.loss_start)
    return doubled or bool(new & set(_BLOW_UPS))
