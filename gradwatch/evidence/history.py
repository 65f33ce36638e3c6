"""What rules read: the latest readings, and what has been condensed of all earlier ones.

Bounded however long the run: a window of readings, one number per parameter and activation, and
for figures a selection of records that is thinned as it grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from statistics import median

import numpy as np
import numpy.typing as npt

from gradwatch.evidence.gradient_flow import (
    Reading,
    measure_output_growth,
    measure_rms,
    read_flow,
    read_param_gradients,
)
from gradwatch.evidence.learning import LearningEvidence
from gradwatch.evidence.learning_rate import Rates
from gradwatch.evidence.loss_change import LossChangeHistory
from gradwatch.evidence.loss_level import LossLevels
from gradwatch.evidence.nonfinite import Break
from gradwatch.evidence.topology import Mask, Topology
from gradwatch.records import Array, Layer, StepRecord
from gradwatch.thresholds import Thresholds

WINDOW = 8
"""Readings that rules may look back on."""

FIRST_READINGS = 5
"""Readings from which the starting level of a quantity is taken."""

THROWN_UPDATE = 0.5
"""A step that changes a weight by this share of its norm replaces it rather than trains it."""

MOVE_FLOOR = 0.1
"""Moves of weights smaller than this share of LeCun's scale are measured against that scale."""

MOVED = -(2**62)
"""Mark of a parameter that has changed at some step."""

ROUNDING = 2e-7
"""A weight that is decayed and looked at without its decay changes by so little of its norm in
float32: that is not a copy which somebody keeps."""

KEPT_RECORDS = 512
"""Records kept for figures; every other one is dropped when there are more."""


@dataclass
class History:
    """One run's records in order.

    Attributes:
        window: the latest readings, newest last.
        count: records seen.
        first_step: global step of the first record.
        starved_records: for each parameter of the newest layer set, records since its last
            gradient in which forward used it and others were trained.
        maintained: those that changed without a gradient: a copy keeps them on purpose.
        silent_records: for each parameter, records since its last gradient above zero in which
            it could have had one.
        ever_fed: for each parameter, whether it has had a gradient above zero.
        loss_change: who the loss has to thank for its change.
        learning: who was seen to learn.
        losses: what the loss was at the first and at the latest records.
        first_weights: norm of each parameter at its first record.
        unmoved_records: for each parameter, records with a gradient and a learning rate in which
            its update was lost to its precision; reset for good by the first that was not.
        first_zeros: by rectifier, its share of zeros at its first record.
        first_saturated: by activation, its saturated share at its first record.
        first_errors: error signal at the output of the first readings.
        ever_thrown: some step so far has replaced a weight rather than changed it.
        output_gain: the largest gain so far of any activation of the network's outputs.
        first_growth: growth of the gradient or the outputs over depth at the first record.
        first_rms: by layer, the scale of its output at its first record.
        largest_updates: for each parameter, the largest update so far against its norm.
        moves: how far the fastest weight moved at the latest steps, against its own norm.
        rates: the learning rates so far.
        broken: since when something is NaN or Inf that hurts.
    """

    window: deque[Reading] = field(default_factory=lambda: deque(maxlen=WINDOW))
    count: int = 0
    first_step: int = 0
    starved_records: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    maintained: Mask = field(default_factory=lambda: np.zeros(0, bool))
    silent_records: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    ever_fed: Mask = field(default_factory=lambda: np.zeros(0, bool))
    loss_change: LossChangeHistory = field(default_factory=LossChangeHistory)
    losses: LossLevels = field(default_factory=LossLevels)
    learning: LearningEvidence = field(default_factory=LearningEvidence)
    thresholds: Thresholds = field(default_factory=Thresholds)
    first_weights: Array = field(default_factory=lambda: np.zeros(0))
    unmoved_records: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    first_zeros: dict[str, float] = field(default_factory=dict)
    first_saturated: dict[str, float] = field(default_factory=dict)
    first_rms: dict[str, float] = field(default_factory=dict)
    first_errors: list[float] = field(default_factory=list)
    ever_thrown: bool = False
    output_gain: float = float("nan")
    first_growth: float = 1.0
    largest_updates: Array = field(default_factory=lambda: np.zeros(0))
    moves: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    rates: Rates = field(default_factory=Rates)
    broken: Break = field(default_factory=Break)
    _kept: list[StepRecord] = field(default_factory=list)
    _stride: int = 1
    _aligned: Topology | None = None

    @property
    def latest(self) -> Reading:
        """The newest reading."""
        return self.window[-1]

    @property
    def records(self) -> tuple[StepRecord, ...]:
        """Records for figures: all of a short run, an even selection of a long one."""
        newest = [self.latest.record] if self.window else []
        tail = newest if not self._kept or self._kept[-1] is not newest[0] else []
        return (*self._kept, *tail)

    @property
    def last_step(self) -> int:
        """Global step of the newest record."""
        return self.latest.record.global_step if self.window else self.first_step

    def __len__(self) -> int:
        return self.count

    def append(self, record: StepRecord) -> None:
        """Take in the next record."""
        self.extend_with(read_flow([record])[0])

    @np.errstate(all="ignore")
    def extend_with(self, reading: Reading) -> None:
        """Take in a reading whose flow has been computed already."""
        if not self.count:
            self.first_step = reading.record.global_step
        self._keep(reading.record)
        self.window.append(reading)
        self.broken.add(reading)
        self.count += 1
        self._condense(reading)

    def _keep(self, record: StepRecord) -> None:
        if self.count % self._stride == 0:
            self._kept.append(record)
        if len(self._kept) > KEPT_RECORDS:
            self._kept = self._kept[::2]
            self._stride *= 2

    def _condense(self, reading: Reading) -> None:
        grad = read_param_gradients(reading.record)
        update = reading.record.param("update_l2_norm")
        fed = (grad > 0) | (~np.isnan(grad) & reading.has_arrived)
        self._align(reading.topology)
        change = self.loss_change.add(reading.record, reading.topology)
        self.losses.add(reading.record)
        if reading.record.step("learning_rate") != 0:
            self.learning.add(reading, change, self.measure_motion(now=True), self.thresholds)
        has_stepped = ~np.isnan(update) | ~np.isnan(grad)
        is_trained = bool(fed.any()) or not self.ever_fed.any()  # else nobody called backward
        self.starved_records[reading.was_called & has_stepped & is_trained] += 1
        self.starved_records[fed] = 0
        size = reading.record.param("weight_l2_norm")
        self.maintained |= ~fed & ((update > ROUNDING * size) | self._find_replaced(reading))
        is_learning = reading.record.step("learning_rate") != 0  # NaN: it is not known
        self.silent_records[(grad == 0) & reading.was_called & (is_learning & is_trained)] += 1
        self.silent_records[grad > 0] = 0
        self.ever_fed |= grad > 0
        self.largest_updates = np.fmax(self.largest_updates, reading.measure_update(MOVE_FLOOR))
        self.first_weights = np.where(np.isnan(self.first_weights), size, self.first_weights)
        is_lost = update <= size * reading.topology.lost_update
        waits = fed & (grad > 0) & is_lost & is_learning & (not self.rates.is_warming_up)
        self.unmoved_records[waits & (self.unmoved_records >= 0)] += 1
        self.unmoved_records[update > size * reading.topology.lost_update] = MOVED
        if len(self.first_errors) < FIRST_READINGS:
            self.first_errors.append(reading.error_signal)
        outputs = list(reading.topology.outputs)
        move = self._measure_move(reading)
        self.moves.append(move)
        if self.count <= FIRST_READINGS:
            self._note_levels(reading)
        if self.count == 1:
            outputs_growth = float(np.max(measure_output_growth(reading), initial=1.0))
            self.first_growth = max(measure_growth(reading), outputs_growth)
        self.ever_thrown |= move >= THROWN_UPDATE
        self.output_gain = float(np.fmax.reduce(reading.gains[outputs], initial=self.output_gain))
        self.rates.add(reading.record.global_step, reading.record.step("learning_rate"))

    def _find_replaced(self, reading: Reading) -> Mask:
        """Parameters that have changed since the last record with a gradient at neither."""
        before = self.window[-2] if len(self.window) > 1 else reading
        if before.topology is not reading.topology:
            before = reading
        size, earlier = (one.record.param("weight_l2_norm") for one in (reading, before))
        unfed = [np.isnan(one.record.param("grad_l2_norm")) for one in (reading, before)]
        result: Mask = np.logical_and(*unfed) & (np.abs(size - earlier) > ROUNDING * size)
        return result

    def _note_levels(self, reading: Reading) -> None:
        record, layers = reading.record, reading.topology.layers
        for levels, values in (
            (self.first_zeros, record.layer("zero_fraction")),
            (self.first_saturated, record.layer("saturated_fraction")),
            (self.first_rms, measure_rms(reading)),
        ):
            for index in np.flatnonzero(~np.isnan(values)):
                levels.setdefault(layers[index].key, float(values[index]))

    def has_pinned_outputs(self, thresholds: Thresholds) -> bool:
        """Whether the outputs have never let through what they get: pinned since the first record.

        A training that has become sure began with outputs that were not.
        """
        made = self.last_step - self.first_step
        return made >= thresholds.patience and self.output_gain < thresholds.output_gain

    def broke_layers(self, layers: Iterable[Layer], thresholds: Thresholds) -> bool:
        """Whether a step has thrown the weights, and some of these activations were well before."""
        return self.ever_thrown and any(
            self._was_well(one.key, thresholds) for one in layers if one.role == "activation"
        )

    def _was_well(self, key: str, thresholds: Thresholds) -> bool:
        zeros = self.first_zeros.get(key)
        if zeros is not None:
            return zeros < thresholds.dead_collapse_from
        return self.first_saturated.get(key, 1.0) < thresholds.saturated_fraction

    def _align(self, topology: Topology) -> None:
        """Carry what is kept per parameter over to a new layer set."""
        if self._aligned is topology:
            return
        before = {} if self._aligned is None else _number_params(self._aligned)
        places = [before.get(param.fqn, -1) for param in topology.params]
        self.loss_change.realign(places)
        self.learning.realign(places)
        self.starved_records = np.append(self.starved_records, 0)[places]
        self.maintained = np.append(self.maintained, False)[places]
        self.silent_records = np.append(self.silent_records, 0)[places]
        self.unmoved_records = np.append(self.unmoved_records, 0)[places]
        self.ever_fed = np.append(self.ever_fed, False)[places]
        self.first_weights = np.append(self.first_weights, np.nan)[places]
        self.largest_updates = np.append(self.largest_updates, 0.0)[places]
        self._aligned = topology

    def _measure_move(self, reading: Reading) -> float:
        judged = reading.topology.is_judged
        update = reading.measure_update(MOVE_FLOOR)[judged]
        moves = [float(np.max(update[np.isfinite(update)], initial=0.0))]
        if len(self.window) > 1 and self.window[-2].topology is reading.topology:
            weight = reading.record.param("weight_l2_norm")
            before = self.window[-2].record.param("weight_l2_norm")
            floor = np.fmax(before, MOVE_FLOOR * reading.topology.lecun_norm)
            with np.errstate(invalid="ignore", divide="ignore"):
                change = ((weight - before) / floor)[judged]
            growth = float(np.max(change[np.isfinite(change)], initial=0.0))
            moves.append(growth / 2)  # a weight that doubles between two sampled steps
        return max(moves)

    def measure_motion(self, now: bool) -> float:
        """Loss change of a step against the loss at the start; NaN where either is not known.

        Args:
            now: of the latest records; else the largest of the whole run.
        """
        levels, change = self.losses, self.loss_change
        total = change.recent_total if now else change.largest_total
        return total / abs(levels.beginning) if levels.beginning else float("nan")

    def stands_still(self, thresholds: Thresholds) -> bool:
        """Whether the network as a whole does not move although its loss is not low.

        From the start, or since the activations on its outputs have closed: at the bottom of a loss
        that is not 0, as of noise, gradients of samples cancel in the weights and nowhere else.
        """
        if self.rates.is_warming_up or not self.rates.decay > 0:
            return False
        if not self.measure_motion(now=True) < thresholds.loss_progress:
            return False
        remaining = self.losses.remaining
        if remaining <= thresholds.unfinished:
            return False
        never_moved = self.measure_motion(now=False) < thresholds.loss_progress
        has_closed = not self.latest.output_gain >= thresholds.output_gain
        return never_moved or has_closed

    def was_diverging(self, thresholds: Thresholds) -> bool:
        """Whether the error signal had been growing far beyond its first values."""
        first = self.first_error
        return bool(first > 0 and self.largest_error > thresholds.divergence * first)

    def has_converged(self, thresholds: Thresholds) -> bool:
        """Whether next to nothing is left of the error signal, and no step has thrown the weights.

        What is pinned or still then, and was not before, is so because there is nothing to learn.
        """
        has_fallen = (
            self.recent_error < thresholds.converged * self.first_error
            or self.losses.remaining < thresholds.converged
        )
        return not self.ever_thrown and has_fallen

    @property
    def largest_error(self) -> float:
        """Largest error signal over the latest readings."""
        errors = [one.error_signal for one in self.window if isfinite(one.error_signal)]
        return max(errors, default=float("nan"))

    @property
    def recent_error(self) -> float:
        """Error signal of late: the median over the latest readings of the run's later half."""
        half = (self.first_step + self.last_step) / 2
        late = [one.error_signal for one in self.window if one.record.global_step >= half]
        finite = [one for one in late if isfinite(one)]
        return median(finite) if finite else float("nan")

    @property
    def first_error(self) -> float:
        """Error signal at the start of the run: the median of the first readings."""
        finite = [one for one in self.first_errors if isfinite(one)]
        return median(finite) if finite else float("nan")


def measure_growth(reading: Reading) -> float:
    """Largest gradient at any layer against the error signal at the outputs."""
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = reading.grad[reading.topology.is_reference] / reading.error_signal
    return float(np.max(growth[np.isfinite(growth)], initial=1.0))


def _number_params(topology: Topology) -> dict[str, int]:
    return {param.fqn: index for index, param in enumerate(topology.params)}
