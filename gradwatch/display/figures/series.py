"""Records to the matrices that the pictures draw: one row per layer, one column per step.

A column is a few small arrays made from one record, so that a server keeps columns, not records.
At most ``MAX_COLUMNS`` columns are kept: more than a screen has pixels for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradwatch.display.figures.palette import Matrix
from gradwatch.evidence import gradient_flow as flow
from gradwatch.evidence.loss_change import measure_loss_change
from gradwatch.records import Layer, LayerSet, StepRecord

MAX_COLUMNS = 600
SHARES = ("activation", "weight", "norm", "other")
"""Whose share of a row's gain; ``other`` is pooling, dropout and the like."""

_ROW_ROLES = ("weight", "recurrent", "embedding")


Histograms = dict[str, dict[int, npt.NDArray[np.float64]]]
"""Counts of pre-activations, by activation and global step."""


@dataclass(frozen=True)
class Plan:
    """Which layers of a layer set make which rows.

    Attributes:
        rows: indices of the layers that own a weight (of all but containers when none does).
        owner: for each layer the row that its gain counts for, -1 for none.
        share: for each layer the index into ``SHARES``.
        activations: indices of the activations.
        weights: for each row the index of its largest weight parameter, -1 for none.
        param_rows: for each parameter the first row of its module, -1 for none.
        same_rows: for each row the first one of the same module.
    """

    rows: tuple[int, ...]
    owner: npt.NDArray[np.int64]
    share: npt.NDArray[np.int64]
    activations: tuple[int, ...]
    weights: npt.NDArray[np.int64]
    param_rows: npt.NDArray[np.int64]
    same_rows: npt.NDArray[np.int64]
    layers: tuple[Layer, ...]

    @property
    def row_keys(self) -> list[str]:
        """Names of the rows."""
        return [self.layers[i].key for i in self.rows]

    @property
    def activation_keys(self) -> list[str]:
        """Names of the activations."""
        return [self.layers[i].key for i in self.activations]


_known_plans: deque[tuple[LayerSet, Plan]] = deque(maxlen=64)


def plan_rows(layer_set: LayerSet) -> Plan:
    """Choose the rows of a layer set and what counts for each.

    Remembered by identity: hashing thousands of layers for each record would cost more.
    """
    for known, plan in tuple(_known_plans):
        if known is layer_set:
            return plan
    plan = _plan(layer_set)
    _known_plans.append((layer_set, plan))
    return plan


def _plan(layer_set: LayerSet) -> Plan:
    layers = layer_set.layers
    rows = [i for i, one in enumerate(layers) if one.role in _ROW_ROLES]
    rows = rows or [i for i, one in enumerate(layers) if one.role != "container"]
    owner = _owners(layers, rows)
    share = np.array([_share(one) for one in layers], dtype=np.int64)
    activations = tuple(i for i, one in enumerate(layers) if one.role == "activation")
    modules: dict[str, int] = {}
    same = [modules.setdefault(layers[i].fqn, row) for row, i in enumerate(rows)]
    params = [modules.get(one.module, -1) for one in layer_set.params]
    return Plan(
        rows=tuple(rows),
        owner=owner,
        share=share,
        activations=activations,
        weights=_weights(layer_set, rows),
        param_rows=np.array(params, dtype=np.int64),
        same_rows=np.array(same, dtype=np.int64),
        layers=layers,
    )


def _share(layer: Layer) -> int:
    role = "weight" if layer.role in _ROW_ROLES else layer.role
    return SHARES.index(role) if role in SHARES else SHARES.index("other")


def _owners(layers: Sequence[Layer], rows: Sequence[int]) -> npt.NDArray[np.int64]:
    """An activation's gain counts for the weight layer before it, along the data's way."""
    owner = np.full(len(layers), -1, dtype=np.int64)
    place = {index: row for row, index in enumerate(rows)}
    for index, layer in enumerate(layers):
        before = [owner[i] for i in layer.inputs if 0 <= i < index and owner[i] >= 0]
        if index in place:
            owner[index] = place[index]
        elif layer.role != "container":
            owner[index] = max(before) if before else (owner[:index].max() if index else -1)
    return owner


def _weights(layer_set: LayerSet, rows: Sequence[int]) -> npt.NDArray[np.int64]:
    largest: dict[str, int] = {}
    for index, param in enumerate(layer_set.params):
        rival = largest.get(param.module)
        if rival is None or param.numel > layer_set.params[rival].numel:
            largest[param.module] = index
    return np.array([largest.get(layer_set.layers[i].fqn, -1) for i in rows], dtype=np.int64)


@dataclass(frozen=True)
class Column:
    """What the pictures need of one record: float32 arrays, in the order of its plan."""

    global_step: int
    plan: Plan
    relative: Matrix  # (rows,) gradient relative to the last layers; 1 is full
    gains: Matrix  # (len(SHARES), rows) log10 of the gain; NaN unknown
    saturated: Matrix  # (activations,)
    dead: Matrix  # (activations,)
    updates: Matrix  # (rows,) ||dw|| / ||w||
    learning: Matrix  # (rows,) share of the step's loss change; NaN unknown

    @classmethod
    def from_reading(cls, reading: flow.Reading) -> Column:
        """Keep of a record, and of what diagnosis read from it, what is drawn."""
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
        )


def columns_of(records: Sequence[StepRecord]) -> list[Column]:
    """Columns of many records; reading them together is what makes it fast."""
    return [Column.from_reading(one) for one in flow.read_flow(records)]


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


def _share_loss_change(reading: flow.Reading, plan: Plan) -> Matrix:
    """Of each row's module, its weights together; every call of a module has the same."""
    change = measure_loss_change(reading.record, reading.topology)
    known = np.isfinite(change.share) & change.counted & (plan.param_rows >= 0)
    shares = np.full(len(plan.rows), np.nan)
    shares[plan.param_rows[known]] = 0.0
    np.add.at(shares, plan.param_rows[known], change.share[known])
    return shares[plan.same_rows].astype(np.float32)


def _gain_shares(gains: npt.NDArray[np.float64], plan: Plan) -> Matrix:
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

    @classmethod
    def from_columns(
        cls, columns: Sequence[Column], histograms: Histograms | None = None
    ) -> Series:
        """Put columns side by side; layers that come and go leave gaps (NaN)."""
        plans = list({id(one.plan): one.plan for one in reversed(columns)}.values())
        names = _union(plans, lambda plan: plan.rows)
        acts = _union(plans, lambda plan: plan.activations)
        series = cls(
            steps=tuple(one.global_step for one in columns),
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
        )
        series._fill(columns)
        return series

    def _fill(self, columns: Sequence[Column]) -> None:
        rows = {name: index for index, name in enumerate(self.names)}
        acts = {name: index for index, name in enumerate(self.activations)}
        places: dict[int, tuple[list[int], list[int]]] = {}
        for at, one in enumerate(columns):
            if id(one.plan) not in places:
                mine = [rows[key] for key in one.plan.row_keys]
                places[id(one.plan)] = mine, [acts[key] for key in one.plan.activation_keys]
            row, act = places[id(one.plan)]
            self.relative[row, at], self.updates[row, at] = one.relative, one.updates
            self.learning[row, at], self.gains[:, row, at] = one.learning, one.gains
            self.saturated[act, at], self.dead[act, at] = one.saturated, one.dead


def _blank(rows: int, columns: int) -> Matrix:
    return np.full((rows, columns), np.nan, np.float32)


def _union(plans: Iterable[Plan], pick: Callable[[Plan], tuple[int, ...]]) -> dict[str, str]:
    """Keys to types of the picked layers of all plans, the newest one's order first."""
    found: dict[str, str] = {}
    for plan in plans:
        for index in pick(plan):
            found.setdefault(plan.layers[index].key, plan.layers[index].type)
    return found


def thin(steps: Sequence[int], limit: int = MAX_COLUMNS) -> list[int]:
    """Indices of at most ``limit`` steps: the first, the last, and evenly between."""
    if len(steps) <= limit:
        return list(range(len(steps)))
    places = np.unique(np.linspace(0, len(steps) - 1, limit).round().astype(np.int64))
    return [int(place) for place in places]


def series_of(records: Sequence[StepRecord], limit: int = MAX_COLUMNS) -> Series:
    """The series of records in order of their steps."""
    chosen = thin([one.global_step for one in records], limit)
    histograms: Histograms = {}
    for one in records:
        for key, counts in one.histograms.items():
            histograms.setdefault(key, {})[one.global_step] = counts
    return Series.from_columns(columns_of([records[i] for i in chosen]), histograms)
