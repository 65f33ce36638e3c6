"""Two log directories -> which layers learn less in the second."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradwatch.errors import NothingToJudge
from gradwatch.gate.layer_measures import (
    MEASURES,
    ComparedRun,
    LayerMeasures,
    Measure,
    find_common_steps,
    measure_layers,
)
from gradwatch.gate.outcome import FINDINGS, HEALTHY, NOTHING_TO_JUDGE
from gradwatch.log.reader import Run, read_runs
from gradwatch.run_judgement import describe_end
from gradwatch.thresholds import Thresholds


@dataclass(frozen=True)
class Regression:
    """A layer that learns less than before.

    Attributes:
        fqn: of the layer.
        measure: by which it does.
        before: median over the runs of A.
        after: the same of B; ``None`` where it is no number any more.
        tolerance: how far it might have gone: decades, or points of a share.
    """

    fqn: str
    measure: Measure
    before: float
    after: float | None
    tolerance: float

    @property
    def distance(self) -> float:
        """How far it went, on the scale of ``tolerance``; infinite where nothing is left."""
        if self.after is None:
            return math.inf
        way = self.measure.scale(self.after) - self.measure.scale(self.before)
        return way if self.measure.is_share else -way

    def __str__(self) -> str:
        name = self.fqn or "the model"
        if self.after is None:
            return f"{name}: {self.measure.title} was {self.before:.3g} and is no number any more"
        if self.measure.is_share:
            words = f"rose from {self.before:.0%} to {self.after:.0%}"
            return f"{name}: {self.measure.title} {words} (allowed: {self.tolerance:.0%} more)"
        words = f"fell from {self.before:.2g} to {self.after:.2g}"
        factor = 10**self.tolerance
        return f"{name}: {self.measure.title} {words} (allowed: a factor of {factor:.3g})"


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes:
        regressions: worst first.
        steps: global steps that were compared.
        n_layers: layers that were compared.
        n_before, n_after: runs on either side.
        warnings: what was not compared, in words.
        is_whole: nothing on either side was damaged or unfinished, and B has every layer of A.
    """

    regressions: tuple[Regression, ...]
    steps: tuple[int, ...]
    n_layers: int
    n_before: int
    n_after: int
    warnings: tuple[str, ...] = ()
    is_whole: bool = True

    @property
    def status(self) -> int:
        """Exit status."""
        if self.regressions:
            return FINDINGS
        return HEALTHY if self.is_whole else NOTHING_TO_JUDGE


def compare_logdirs(
    before: str,
    after: str,
    thresholds: Thresholds | None = None,
    factor: float | None = None,
    allow_unfinished: bool = False,
) -> Comparison:
    """Hold the runs under one directory against those under another.

    Args:
        before, after: log directories.
        thresholds: ``compare_*``.
        factor: fail from this factor on, whatever the spread.
        allow_unfinished: a run without an end counts as far as its records go, if it has any.

    Raises:
        NothingToJudge: no run, no step or no layer in common.
    """
    old, new = _read(before), _read(after)
    kept, others = ([run for run in runs if len(run)] for runs in (old, new))
    comparison = compare_runs(kept, others, thresholds, factor, (before, after))
    unfinished = _list_unfinished([*old, *new], allow_unfinished)
    return replace(
        comparison,
        warnings=(*comparison.warnings, *unfinished),
        is_whole=comparison.is_whole and not unfinished,
    )


def _list_unfinished(runs: Sequence[Run], allowed: bool) -> list[str]:
    """A training that broke off shows nothing of the steps that it did not make."""
    ends = [(run, describe_end(run)) for run in runs if not (allowed and len(run))]
    return [f"{run.label} is not finished: {end}" for run, end in ends if end]


def compare_runs(
    old: Sequence[ComparedRun],
    new: Sequence[ComparedRun],
    thresholds: Thresholds | None = None,
    factor: float | None = None,
    names: tuple[str, str] = ("A", "B"),
) -> Comparison:
    """Hold runs that are read already against others, such as two that a page shows.

    Args:
        old, new: runs with records, at least one on either side.
        thresholds, factor: as in ``compare_logdirs``.
        names: of the two sides, for messages.

    Raises:
        NothingToJudge: no step or no layer in common.
    """
    limits = thresholds or Thresholds()
    before, after = names
    steps = find_common_steps([*old, *new])
    if len(steps) < limits.compare_records:
        raise NothingToJudge(
            f"Expected {limits.compare_records} sampled steps that all runs share, got "
            f"{len(steps)}. Train both for as long and with the same every_n_steps."
        )
    olds, news = ([measure_layers(run, steps) for run in runs] for runs in (old, new))
    missing = sorted(_list_layers(olds) - _list_layers(news))
    lost = [] if _has_frozen(old, new) else missing
    if not _list_layers(olds) & _list_layers(news):
        raise NothingToJudge(
            f"Expected layers in {after!r} that {before!r} has too, got none "
            f"(such as {', '.join(missing[:3])}). Compare trainings of the same model."
        )
    damage = [
        f"{run.label} is damaged ({'; '.join(run.damage)})" for run in (*old, *new) if run.damage
    ]
    absent = [f"{after} has no layer {', '.join(lost)}"] if lost else []
    regressions = _find_regressions(olds, news, limits, factor)
    return Comparison(
        regressions=tuple(regression for regression in regressions if regression.fqn not in lost),
        steps=steps,
        n_layers=len(_list_layers(olds) & _list_layers(news)),
        n_before=len(old),
        n_after=len(new),
        warnings=(*damage, *absent),
        is_whole=not damage and not absent,
    )


def _read(logdir: str) -> list[Run]:
    runs = read_runs(logdir)
    if not any(map(len, runs)) or any(run.damage and not len(run) for run in runs):
        raise NothingToJudge(
            f"Expected runs with records of gradwatch under {logdir!r}, got "
            f"{', '.join(run.label for run in runs if not len(run)) or 'none'} without. "
            "Give the directory that was passed as logdir."
        )
    return runs


def _has_frozen(old: Sequence[ComparedRun], new: Sequence[ComparedRun]) -> bool:
    """Whether the models have as many parameters and fewer of B's require a gradient.

    What is frozen from its input on is no layer of a record: there it is missing because it does
    not train any more, and not because the model has another shape or other names.
    """
    headers = [[run.header for run in runs] for runs in (old, new)]
    before, after = ([row.description for row in side if row is not None] for side in headers)
    if len(before) < len(old) or len(after) < len(new):
        return False
    sizes = {row.n_params for row in (*before, *after)}
    least = min(row.n_trainable for row in before)
    return len(sizes) == 1 and max(row.n_trainable for row in after) < least


def _list_layers(runs: Sequence[LayerMeasures]) -> set[str]:
    return {fqn for run in runs for fqn in run.layers}


def _find_regressions(
    olds: Sequence[LayerMeasures],
    news: Sequence[LayerMeasures],
    limits: Thresholds,
    factor: float | None,
) -> list[Regression]:
    """Worst first. A share of the loss change also falls where another layer's rises: it counts
    only along with the layer's own update."""
    found: list[Regression] = []
    for measure in MEASURES:
        before = _gather(measure, olds, len(olds))
        after = _gather(measure, news, len(news) // 2 + 1)
        spread = _pool_spread(measure, before.values())
        for fqn, values in before.items():
            tolerance = _find_tolerance(measure, values, spread, limits, factor)
            middle = float(np.median(after[fqn])) if fqn in after else None
            row = Regression(fqn, measure, float(np.median(values)), middle, tolerance)
            if row.distance > tolerance and not (measure.is_share and middle is None):
                found.append(row)
    moved = {row.fqn for row in found if row.measure.name == "update_ratio"}
    kept = [row for row in found if row.measure.name != "loss_change" or row.fqn in moved]
    return sorted(kept, key=lambda row: row.distance / row.tolerance, reverse=True)


def _gather(measure: Measure, runs: Sequence[LayerMeasures], least: int) -> dict[str, list[float]]:
    """The runs' numbers of each layer that at least so many of them have."""
    rows: dict[str, list[float]] = {}
    for run in runs:
        for fqn, value in run.values[measure.name].items():
            rows.setdefault(fqn, []).append(value)
    return {fqn: values for fqn, values in rows.items() if len(values) >= least}


def _pool_spread(measure: Measure, layers: Iterable[Sequence[float]]) -> float:
    """Root mean square of all layers' spreads: a few runs of one layer may agree by chance."""
    spreads = [_measure_spread(measure, values) for values in layers]
    return math.sqrt(sum(spread**2 for spread in spreads) / len(spreads)) if spreads else 0.0


def _measure_spread(measure: Measure, values: Sequence[float]) -> float:
    scaled = [measure.scale(value) for value in values]
    return float(np.std(scaled, ddof=1)) if len(scaled) > 1 else 0.0


def _find_tolerance(
    measure: Measure,
    values: Sequence[float],
    pooled: float,
    limits: Thresholds,
    factor: float | None,
) -> float:
    """By the spread of several runs; by a fixed amount for one, or where a factor was given."""
    spread = limits.compare_spread * max(_measure_spread(measure, values), pooled)
    if measure.is_share:
        return max(limits.compare_share, spread)
    if factor is not None:
        return math.log10(factor)
    if len(values) == 1:
        return math.log10(limits.compare_worse)
    return max(spread, math.log10(limits.compare_least))
