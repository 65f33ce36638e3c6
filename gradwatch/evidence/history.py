"""What rules read: the latest readings, and what has been condensed of all earlier ones.

Bounded however long the run: a window of readings, one number per parameter and activation, and
for figures a selection of records that is thinned as it grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from gradwatch.evidence.error_level import ErrorLevels
from gradwatch.evidence.first_levels import FirstLevels
from gradwatch.evidence.gradient_flow import Reading, read_flow
from gradwatch.evidence.kept_records import KeptRecords
from gradwatch.evidence.learning import LearningEvidence
from gradwatch.evidence.learning_rate import Rates
from gradwatch.evidence.loss_change import LossChangeHistory
from gradwatch.evidence.loss_level import LossLevels
from gradwatch.evidence.nonfinite import Break
from gradwatch.evidence.param_history import ParamHistory, measure_moves
from gradwatch.evidence.rank_spread import RankSpreads
from gradwatch.evidence.standstill import Standstill
from gradwatch.evidence.step_sizes import StepSizes
from gradwatch.evidence.topology import Topology
from gradwatch.evidence.windows import WINDOW
from gradwatch.records import Layer, StepRecord
from gradwatch.thresholds import DEFAULTS, Thresholds


@dataclass
class History:
    """One run's records in order.

    Attributes:
        window: the latest readings, newest last.
        count: records seen.
        first_step: global step of the first record.
        thresholds: of the run.
        params: what is kept of each parameter.
        standstill: who has not moved although a gradient arrived.
        ranks: how far the ranks of a job were apart.
        first_levels: what activations and outputs were like at first.
        errors: error signal at the outputs.
        losses: what the loss was at the first and at the latest records.
        loss_change: who the loss has to thank for its change.
        learning: who was seen to learn.
        rates: the learning rates so far.
        broken: since when something is NaN or Inf that hurts.
        has_replaced_weights: some step so far has replaced a weight rather than changed it.
        output_gain: the largest gain so far of any activation of the network's outputs.
        steps: how large the steps are of late, after the first ``patience``.
    """

    window: deque[Reading] = field(default_factory=lambda: deque(maxlen=WINDOW))
    count: int = 0
    first_step: int = 0
    thresholds: Thresholds = DEFAULTS
    params: ParamHistory = field(default_factory=ParamHistory)
    standstill: Standstill = field(default_factory=Standstill)
    ranks: RankSpreads = field(default_factory=RankSpreads)
    first_levels: FirstLevels = field(default_factory=FirstLevels)
    errors: ErrorLevels = field(default_factory=ErrorLevels)
    losses: LossLevels = field(default_factory=LossLevels)
    loss_change: LossChangeHistory = field(default_factory=LossChangeHistory)
    learning: LearningEvidence = field(default_factory=LearningEvidence)
    rates: Rates = field(default_factory=Rates)
    broken: Break = field(default_factory=Break)
    has_replaced_weights: bool = False
    output_gain: float = float("nan")
    steps: StepSizes = field(default_factory=StepSizes)
    _kept: KeptRecords = field(default_factory=KeptRecords)
    _aligned: Topology | None = None

    def __post_init__(self) -> None:
        for levels in (self.params, self.losses, self.rates, self.steps, self.first_levels):
            levels.thresholds = self.thresholds

    @property
    def latest(self) -> Reading:
        """The newest reading."""
        return self.window[-1]

    @property
    def records(self) -> tuple[StepRecord, ...]:
        """Records for figures: all of a short run, an even selection of a long one."""
        return self._kept.list_all()

    @property
    def last_step(self) -> int:
        """Global step of the newest record."""
        return self.latest.record.global_step if self.window else self.first_step

    def __len__(self) -> int:
        return self.count

    def append(self, record: StepRecord) -> None:
        """Take in the next record.

        Args:
            record: newer than all before; of any layer set.

        Example:
            >>> from gradwatch.evidence.worked_example import make_record
            >>> history = History()
            >>> for step in range(5):
            ...     history.append(make_record(step, step={"loss": 1.0 - 0.1 * step}))
            >>> history.count, history.losses.beginning
            (5, 0.8)
        >>> history.loss_change.peak_share.round(3).tolist()
        [0.001, 0.999]
        """
        self.extend_with(read_flow([record], self._newest)[0])

    @property
    def _newest(self) -> StepRecord | None:
        return self.window[-1].record if self.window else None

    @np.errstate(all="ignore")
    def extend_with(self, reading: Reading) -> None:
        """Take in a reading whose flow has been computed already.

        Args:
            reading: of a record newer than all before.
        """
        if not self.count:
            self.first_step = reading.record.global_step
        self._kept.add(reading.record)
        self.window.append(reading)
        self.broken.add(reading)
        self.count += 1
        self._condense(reading)

    def _condense(self, reading: Reading) -> None:
        record, limits = reading.record, self.thresholds
        self._align(reading.topology)
        self.loss_change.add(reading)
        self.losses.add(record)
        if record.global_step - self.first_step >= limits.patience:
            self.steps.add(reading)
        if record.step("learning_rate") != 0:
            self.learning.add(reading, self.measure_motion(now=True), limits)
        self.params.add(reading, self.rates.is_warming_up)
        self.standstill.add(reading)
        self.ranks.add(reading, limits)
        self.errors.add(record.global_step, reading.error_signal)
        self.first_levels.add(reading)
        move = reading.ask(measure_moves, limits.weight_floor)
        if move >= limits.replacing_update:
            self.has_replaced_weights = True
            self.losses.mark_replaced()
        if outputs := reading.topology.outputs:
            gains = reading.gains[list(outputs)]
            self.output_gain = float(np.fmax.reduce(gains, initial=self.output_gain))
        self.rates.add(record.global_step, record.step("learning_rate"))

    def _align(self, topology: Topology) -> None:
        """Carry what is kept per parameter over to a new layer set."""
        if self._aligned is topology:
            return
        before = {} if self._aligned is None else _number_params(self._aligned)
        places = [before.get(param.fqn, -1) for param in topology.params]
        for kept in (self.loss_change, self.learning, self.params, self.standstill):
            kept.realign(places)
        self._aligned = topology

    def has_closed_outputs(self, thresholds: Thresholds) -> bool:
        """Whether the outputs have never let through what they get: closed since the first record.

        A training that has become sure began with outputs that were not.

        Args:
            thresholds: ``patience`` in steps, ``output_gain`` of the gradient.

        Example:
            >>> from gradwatch.evidence.worked_example import make_history, make_record
            >>> long = make_history([make_record(), make_record(1000)])
            >>> long.has_closed_outputs(Thresholds())
            False
        """
        made = self.last_step - self.first_step
        return made >= thresholds.patience and self.output_gain < thresholds.output_gain

    def broke_layers(self, layers: Iterable[Layer], thresholds: Thresholds) -> bool:
        """Whether a step has replaced weights, and some of these activations were open before.

        Args:
            layers: of any role; activations count.
            thresholds: see ``FirstLevels.was_open``.

        Example:
            >>> from gradwatch.evidence.worked_example import make_history, make_record
            >>> replacing = make_record(1, param={"update_l2_norm": 1.0})
            >>> history = make_history([make_record(), replacing])
            >>> history.broke_layers(history.latest.topology.layers, Thresholds())
            True
        """
        return self.has_replaced_weights and any(
            self.first_levels.was_open(layer.key, thresholds)
            for layer in layers
            if layer.role == "activation"
        )

    def measure_motion(self, now: bool) -> float:
        """Loss change ``sum |g . dw|`` of a step against the loss at the start.

        Args:
            now: of the latest records; else the largest of the whole run.

        Returns:
            A share of the first loss; NaN where either is not known.

        Example:
            >>> from gradwatch.evidence.worked_example import make_history, make_record
            >>> round(make_history([make_record()]).measure_motion(now=True), 4)
            0.5005
        """
        levels, change = self.losses, self.loss_change
        total = change.recent_total if now else change.largest_total
        return total / abs(levels.beginning) if levels.beginning else float("nan")

    def stands_still(self, thresholds: Thresholds) -> bool:
        """Whether the network as a whole does not move although its loss is not low.

        From the start, or since the activations on its outputs have closed: at the bottom of a loss
        that is not 0, as of noise, gradients of samples cancel in the weights and nowhere else.

        Args:
            thresholds: ``loss_progress`` of a step, ``unfinished`` of the loss, ``output_gain``.

        Example:
            >>> from gradwatch.evidence.worked_example import make_history, make_record
            >>> still = [make_record(step, param={"loss_change": -1e-12}) for step in range(12)]
            >>> make_history(still).stands_still(Thresholds())
            True
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
        """Whether the error signal had been growing far beyond its first values.

        Args:
            thresholds: ``divergence``, times the first values.

        Example:
            >>> from gradwatch.evidence.worked_example import make_history, make_record
            >>> larger = {"grad_output_l2_norm": 1e6}
            >>> records = [*map(make_record, range(5)), make_record(5, layer=larger)]
            >>> make_history(records).was_diverging(Thresholds())
            True
        """
        first = self.errors.beginning
        return bool(first > 0 and self.errors.largest > thresholds.divergence * first)

    def has_converged(self, thresholds: Thresholds) -> bool:
        """Whether next to nothing is left of the error signal, and no step has replaced weights.

        What is saturated or still then, and was not before, is so because there is nothing to
        learn.

        Args:
            thresholds: ``converged`` of the error signal or of the loss.

        Example:
            >>> from gradwatch.evidence.worked_example import make_history, make_record
            >>> records = [make_record(step, step={"loss": 2.0**-step}) for step in range(20)]
            >>> make_history(records).has_converged(Thresholds())
            True
        """
        has_fallen = (
            self.errors.now < thresholds.converged * self.errors.beginning
            or self.losses.remaining < thresholds.converged
        )
        return not self.has_replaced_weights and has_fallen


def _number_params(topology: Topology) -> dict[str, int]:
    return {param.fqn: index for index, param in enumerate(topology.params)}
