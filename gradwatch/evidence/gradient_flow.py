"""How the gradient changes on its way back through the layers.

Per layer, ``gain = ||dL/d(input)|| / ||dL/d(output)||``: what the layer multiplies the gradient
by. Per weight, sensitivity ``S = ||g|| * ||w||``: the change of the loss per relative change of
the weight, which is invariant to the scale of the loss's parametrisation and, in a positively
homogeneous network, the same for all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, TypeVar

import numpy.typing as npt

from gradwatch.evidence.flow_facts import (
    compare_sensitivities,
    find_arrived,
    find_called,
    find_gradientless,
    find_judged,
    gather_gradients,
    gather_references,
    measure_error_signals,
    measure_gains,
    measure_output_gains,
    measure_output_rms,
    measure_update_ratios,
    measure_updates,
    read_grads,
    relate_gradients,
    spread_references,
)
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import Mask
from gradwatch.records import Array, StepRecord

Item = TypeVar("Item")
Found = TypeVar("Found", bound=npt.NDArray[Any])
"""What a fact is for each record: an item of a list, or a row of an array."""


class Reading:
    """A record with what follows from it; float64 ``(n_layers,)`` or ``(n_params,)``.

    Args:
        table: with the record and others of the same layer set.
        row: of the record in it.

    Attributes:
        record: the numbers as measured.
        topology: of its layer set.
        paths: ways from a layer to the loss that have been followed so far, see
            ``paths.find_fed_path``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> reading = make_reading()
        >>> reading.relative_gradient.tolist(), reading.gains.tolist()
        ([0.03125, 0.125, 1.0], [nan, 0.25, 0.125])
        >>> reading.param_gradient.tolist(), reading.update_ratio.tolist()
        ([0.03125, 1.0], [0.00390625, 0.25])
        >>> reading.error_signal, reading.output_gain
        (1.0, 1.0)
    """

    def __init__(self, table: RecordTable, row: int) -> None:
        self._table, self._row, self._facts = table, row, table.facts
        self.record, self.topology = table.records[row], table.topology
        self.paths: dict[int, tuple[int, ...]] = {}

    def __repr__(self) -> str:
        return f"Reading({self.record!r})"

    def ask(self, find: Callable[..., Found], *settings: Hashable) -> Found:
        """This record's part of a fact, see ``RecordTable.ask``.

        Args:
            find: of a table, and what of the thresholds it needs, its rows.
            settings: these thresholds.

        Returns:
            A row, or one number. It is kept: do not write to it.
        """
        key = (find, *settings) if settings else find
        known: Found | None = self._facts.get(key)
        rows = self._table.ask(find, *settings) if known is None else known
        found: Found = rows[self._row]
        return found

    def pick(self, find: Callable[..., list[Item]], *settings: Hashable) -> Item:
        """As ``ask``, of a fact that is a list.

        Args:
            find: of a table, and what of the thresholds it needs, an item for each record.
            settings: these thresholds.
        """
        return self._table.ask(find, *settings)[self._row]

    def forget(self) -> None:
        """Let go of what was worked out; whoever asks again has it worked out again."""
        table, row = self._table, self._row
        table.facts.clear()
        vars(self).clear()
        Reading.__init__(self, table, row)

    @cached_property
    def grad(self) -> Array:
        """Gradient norm at each layer's output; NaN where none arrived."""
        return self.ask(read_grads)

    @cached_property
    def reference(self) -> Array:
        """Largest gradient norm at or behind each layer on its way to the loss."""
        return self.ask(spread_references)

    @cached_property
    def sensitivity(self) -> Array:
        """``||g||*||w||`` per judged parameter against the largest at or behind it on its way to
        the loss; one whose place is not known is held against all."""
        return self.ask(compare_sensitivities)

    @cached_property
    def relative_gradient(self) -> Array:
        """``||dL/dy||`` at each layer's output against the largest at or behind it; 1 is full."""
        return self.ask(relate_gradients)

    @cached_property
    def gains(self) -> Array:
        """``||dL/dx|| / ||dL/dy||``: what each layer multiplies the gradient's norm by; NaN when
        unknown. Source: Glorot & Bengio (2010), section 4.2.1."""
        return self.ask(measure_gains)

    @cached_property
    def update_ratio(self) -> Array:
        """``||dw||/||w||`` per parameter, as measured; NaN without an update."""
        return self.ask(measure_update_ratios)

    @cached_property
    def has_arrived(self) -> Mask:
        """Parameters for which a gradient reached some call of their module."""
        return self.ask(find_arrived)

    @cached_property
    def was_called(self) -> Mask:
        """Parameters whose module forward has called this step, as far as that can be seen."""
        return self.ask(find_called)

    @cached_property
    def judged(self) -> Mask:
        """Parameters whose standing still would do harm, and which got a gradient this step."""
        return self.ask(find_judged)

    @cached_property
    def param_gradient(self) -> Array:
        """Relative gradient at the best-fed call of each parameter's module; NaN without one."""
        return self.ask(gather_gradients)

    @cached_property
    def param_reference(self) -> Array:
        """Largest gradient on each parameter's way from the loss, its own error; NaN: none."""
        return self.ask(gather_references)

    @cached_property
    def error_signal(self) -> float:
        """Gradient norm at the network's outputs, all heads together: how wrong it still is."""
        return float(self.ask(measure_error_signals))

    @cached_property
    def is_unasked(self) -> Mask:
        """Parameters for which no gradient above zero stands anywhere on the way from the loss.

        What a softmax gets that mixes experts is on the way to its router, and to none of them.
        """
        return self.ask(find_gradientless)

    @cached_property
    def output_gain(self) -> float:
        """Share of the gradient that passes the activations behind the last weights.

        Largest gradient at any weight's output against the largest at any layer's: 1 where the loss
        acts on a weight's output, next to 0 where an activation on the network's output is closed.
        NaN where no gradient was seen.
        """
        return float(self.ask(measure_output_gains))

    def measure_update(self, weight_floor: float) -> Array:
        """Update ratio ``||dw|| / max(||w||, floor)`` per parameter.

        Args:
            weight_floor: share of LeCun's norm ``sqrt(rows)`` that a smaller weight counts as.

        Returns:
            float64 ``(n_params,)``; NaN without an update. The array is kept: do not write to it.

        Example:
            >>> from gradwatch.evidence.worked_example import make_reading
            >>> make_reading().measure_update(0.1).tolist()
            [0.00390625, 0.25]
        """
        return self.ask(measure_updates, weight_floor)


def read_flow(records: Sequence[StepRecord], before: StepRecord | None = None) -> list[Reading]:
    """Readings of many records at once; those of one layer set in a row share the computation.

    Args:
        records: in order.
        before: the record before the first of them; ``None`` where there is none.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> (reading,) = read_flow([make_record()])
        >>> reading.relative_gradient.tolist(), reading.sensitivity.round(3).tolist()
        ([0.03125, 0.125, 1.0], [0.062, 1.0])
    """
    readings: list[Reading] = []
    for _, found in groupby(records, key=lambda record: id(record.layer_set)):
        group = list(found)
        is_same = before is not None and _are_alike(before, group[0])
        table = RecordTable(group, before if is_same else None)
        readings.extend(Reading(table, row) for row in range(len(group)))
        before = group[-1]
    return readings


def _are_alike(record: StepRecord, other: StepRecord) -> bool:
    first, second = record.layer_set, other.layer_set
    return first is second or first.digest == second.digest


def measure_rms(reading: Reading) -> Array:
    """Root mean square ``||y|| / sqrt(n)`` of each layer's output.

    Args:
        reading: of one record.

    Returns:
        float64 ``(n_layers,)``; NaN where no output was measured.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> measure_rms(make_reading()).round(2).tolist()
        [1.0, 0.5, 1.41]
    """
    return reading.ask(measure_output_rms)
