"""Records to the matrices that the pictures draw: one row per layer, one column per step.

A column is a few small arrays made from one record, so that a server keeps columns, not records.
At most ``MAX_DRAWN_COLUMNS`` columns are kept: more than a screen has pixels for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gradwatch.display.figures.palette import Matrix
from gradwatch.display.figures.rows import SHARES, RowPlan, plan_rows
from gradwatch.evidence import gradient_flow as flow
from gradwatch.evidence.loss_change import measure_shares
from gradwatch.evidence.optimizer_pools import find_pools
from gradwatch.records import StepRecord
from gradwatch.thresholds import Thresholds

MAX_DRAWN_COLUMNS = 600
Histograms = dict[str, dict[int, npt.NDArray[np.float64]]]
"""Counts of pre-activations, by activation and global step."""


@dataclass(frozen=True)
class Column:
    """What the pictures need of one record: float32 arrays, in the order of its plan."""

    global_step: int
    plan: RowPlan
    relative: Matrix  # (rows,) gradient relative to the last layers; 1 is full
    gains: Matrix  # (len(SHARES), rows) log10 of the gain; NaN unknown
    saturated: Matrix  # (activations,)
    dead: Matrix  # (activations,)
    updates: Matrix  # (rows,) ||dw|| / ||w||
    learning: Matrix  # (rows,) share of the step's loss change; NaN unknown
    loss: float = math.nan
    learning_rate: float = math.nan
    passes: float = math.nan

    @classmethod
    def from_reading(cls, reading: flow.Reading) -> Column:
        """Keep of a record, and of what diagnosis read from it, what is drawn.

        Args:
            reading: of one record; nothing of it is kept but what the column names.
        """
        record, plan = reading.record, plan_rows(reading.record.layer_set)
        acts = list(plan.activations)
        return cls(
            record.global_step,
            plan,
            _relate(reading)[list(plan.rows)].astype(np.float32),
            _gain_shares(reading.gains, plan),
            _where_finite(record, _smooth_only(record))[acts].astype(np.float32),
            _where_finite(record, record.layer("dead_fraction"))[acts].astype(np.float32),
            _take(reading.update_ratio, plan.weights),
            _share_loss_change(reading, plan),
            *(record.step(name) for name in ("loss", "learning_rate", "passes")),
        )


def columns_of(records: Sequence[StepRecord]) -> list[Column]:
    """Columns of many records; reading them together is what makes it fast.

    Args:
        records: of any layer sets, in order of their steps.
    """
    return [Column.from_reading(reading) for reading in flow.read_flow(records)]


def _smooth_only(record: StepRecord) -> npt.NDArray[np.float64]:
    """Saturated fractions without the ReLU family's: half of a healthy ReLU has no slope."""
    rectifies = np.isfinite(record.layer("zero_fraction"))
    return np.where(rectifies, np.nan, record.layer("saturated_fraction"))


def _where_finite(record: StepRecord, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Nothing of a layer whose output is NaN or Inf: that it does not fire is not its fault."""
    return np.where(np.isinf(record.layer("output_l2_norm")), np.nan, shares)


def _relate(reading: flow.Reading) -> npt.NDArray[np.float64]:
    """Gradient norms against that of the network's last layers, so that growth shows as well."""
    last = reading.error_signal
    if not (np.isfinite(last) and last > 0):  # no gradient at the heads: against the fullest
        return reading.relative_gradient
    with np.errstate(over="ignore", invalid="ignore"):
        ratio: npt.NDArray[np.float64] = reading.grad / last
    return ratio


def _take(values: npt.NDArray[np.float64], index: npt.NDArray[np.int64]) -> Matrix:
    padded = np.append(values, np.nan)
    return padded[index].astype(np.float32)


def _share_loss_change(reading: flow.Reading, plan: RowPlan) -> Matrix:
    """Of each row's module, its weights together; every call of a module has the same."""
    share, counted = reading.ask(measure_shares), find_pools(reading.topology)[1]
    known = np.isfinite(share) & counted & (plan.param_rows >= 0)
    shares = np.full(len(plan.rows), np.nan)
    shares[plan.param_rows[known]] = 0.0
    np.add.at(shares, plan.param_rows[known], share[known])
    return shares[plan.same_rows].astype(np.float32)


def _gain_shares(gains: npt.NDArray[np.float64], plan: RowPlan) -> Matrix:
    shares = np.full((len(SHARES), len(plan.rows)), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.clip(np.log10(gains), -45, 39)
    known = ~np.isnan(logs) & (plan.owner >= 0)
    where = (plan.share[known], plan.owner[known])
    shares[where] = 0.0
    np.add.at(shares, where, logs[known])
    return shares.astype(np.float32)


@dataclass(frozen=True)
class Series:
    """Everything that is drawn of one run.

    Attributes:
        steps: global steps of the columns.
        names, activations: keys of the rows, input layer first.
        types: of the activations, such as ``"Sigmoid"``.
        relative, updates, learning: ``(rows, columns)``.
        gains: ``(len(SHARES), rows, columns)``, log10.
        saturated, dead: ``(activations, columns)``.
        histograms: counts by activation and step; the page draws those nearest to the chosen step.
        loss, learning_rate, passes: ``(columns,)``; NaN where unknown.
        has_weight: ``(rows,)``, whether the layer owns a weight.
        thresholds: in force, which bands and colours of the pictures are taken from.
    """

    steps: tuple[int, ...]
    names: tuple[str, ...]
    activations: tuple[str, ...]
    types: tuple[str, ...]
    relative: Matrix
    gains: Matrix
    saturated: Matrix
    dead: Matrix
    updates: Matrix
    learning: Matrix
    histograms: Histograms
    loss: Matrix
    learning_rate: Matrix
    passes: Matrix
    has_weight: npt.NDArray[np.bool_]
    thresholds: Thresholds = field(default_factory=Thresholds)

    @classmethod
    def from_columns(
        cls,
        columns: Sequence[Column],
        histograms: Histograms | None = None,
        thresholds: Thresholds | None = None,
    ) -> Series:
        """Put columns side by side; layers that come and go leave gaps (NaN).

        Args:
            columns: in order of their steps.
            histograms: counts of pre-activations; none when ``None``.
            thresholds: in force; the defaults when ``None``.
        """
        plans = list({id(column.plan): column.plan for column in reversed(columns)}.values())
        names = _union(plans, lambda plan: plan.rows)
        acts = _union(plans, lambda plan: plan.activations)
        series = cls(
            steps=tuple(column.global_step for column in columns),
            names=tuple(names),
            activations=tuple(acts),
            types=tuple(acts.values()),
            relative=_blank(len(names), len(columns)),
            gains=np.full((len(SHARES), len(names), len(columns)), np.nan, np.float32),
            saturated=_blank(len(acts), len(columns)),
            dead=_blank(len(acts), len(columns)),
            updates=_blank(len(names), len(columns)),
            learning=_blank(len(names), len(columns)),
            histograms=histograms or {},
            loss=_line(columns, "loss"),
            learning_rate=_line(columns, "learning_rate"),
            passes=_line(columns, "passes"),
            has_weight=_find_owners(plans, names),
            thresholds=thresholds or Thresholds(),
        )
        series._fill(columns)
        return series

    def _fill(self, columns: Sequence[Column]) -> None:
        rows = {name: index for index, name in enumerate(self.names)}
        acts = {name: index for index, name in enumerate(self.activations)}
        places: dict[int, tuple[list[int], list[int]]] = {}
        for at, column in enumerate(columns):
            if id(column.plan) not in places:
                mine = [rows[key] for key in column.plan.row_keys]
                places[id(column.plan)] = mine, [acts[key] for key in column.plan.activation_keys]
            row, act = places[id(column.plan)]
            self.relative[row, at], self.updates[row, at] = column.relative, column.updates
            self.learning[row, at], self.gains[:, row, at] = column.learning, column.gains
            self.saturated[act, at], self.dead[act, at] = column.saturated, column.dead


def _blank(rows: int, columns: int) -> Matrix:
    return np.full((rows, columns), np.nan, np.float32)


def _find_owners(plans: Iterable[RowPlan], names: Iterable[str]) -> npt.NDArray[np.bool_]:
    owners = {
        key
        for plan in plans
        for key, weight in zip(plan.row_keys, plan.weights, strict=True)
        if weight >= 0
    }
    return np.array([name in owners for name in names], dtype=bool)


def _line(columns: Sequence[Column], name: str) -> Matrix:
    return np.array([getattr(column, name) for column in columns], dtype=np.float32)


def _union(plans: Iterable[RowPlan], pick: Callable[[RowPlan], tuple[int, ...]]) -> dict[str, str]:
    """Keys to types of the picked layers of all plans, the newest one's order first."""
    found: dict[str, str] = {}
    for plan in plans:
        for index in pick(plan):
            found.setdefault(plan.layers[index].key, plan.layers[index].type)
    return found


def thin(steps: Sequence[int], limit: int = MAX_DRAWN_COLUMNS) -> list[int]:
    """Indices of at most ``limit`` steps: the first, the last, and evenly between.

    Args:
        steps: ascending.
        limit: most indices.

    Returns:
        Indices, ascending; all of them where there are no more than the limit.

    Example:
        >>> thin(range(100), 4)
        [0, 33, 66, 99]
    """
    if len(steps) <= limit:
        return list(range(len(steps)))
    places = np.unique(np.linspace(0, len(steps) - 1, limit).round().astype(np.int64))
    return [int(place) for place in places]


def series_of(
    records: Sequence[StepRecord],
    limit: int = MAX_DRAWN_COLUMNS,
    thresholds: Thresholds | None = None,
) -> Series:
    """The series of records in order of their steps.

    Args:
        records: in order of their steps.
        limit: most columns.
        thresholds: in force; the defaults when ``None``.
    """
    chosen = thin([record.global_step for record in records], limit)
    histograms: Histograms = {}
    for record in records:
        for key, counts in record.histograms.items():
            histograms.setdefault(key, {})[record.global_step] = counts
    return Series.from_columns(columns_of([records[i] for i in chosen]), histograms, thresholds)
