"""What is measured of a call's outputs, whichever way the call was seen."""

from __future__ import annotations

from torch import Tensor

from gradwatch.capture import statistics
from gradwatch.capture.attention import Scores
from gradwatch.capture.batches import Batches
from gradwatch.capture.calls import Call, CallTable
from gradwatch.capture.device_values import RawValue
from gradwatch.capture.firing_history import FiringHistory
from gradwatch.capture.own_statistics import OwnMeasures
from gradwatch.capture.unit_axes import count_unit_samples
from gradwatch.schema.activations import Activation
from gradwatch.schema.derivatives import Options


class CallMeasures:
    """Reads tensors at once, since they may be changed in place later.

    Args:
        table: takes the values.
        firing: which units fired lately, kept from step to step.
        own: measures the statistics that are not gradwatch's.
        draws_units: count pre-activations by bin, for the picture of where the units sit.
        batches: reduces small samples together, later; ``None``: each at once.
    """

    def __init__(
        self,
        table: CallTable,
        firing: FiringHistory,
        own: OwnMeasures,
        draws_units: bool,
        batches: Batches | None = None,
    ) -> None:
        self._table = table
        self._firing = firing
        self._own = own
        self._draws_units = draws_units
        self._batches = batches

    def measure_output(self, call: Call, output: Tensor) -> None:
        """Norm of one output of one call, and what else is asked for.

        Args:
            call: that has returned it.
            output: of any shape and dtype; not kept.
        """
        self._table.note("output_l2_norm", call, statistics.measure_l2_norm(output))
        for name, reading in self._own.measure_output(output):
            self._table.note(name, call, reading)

    def measure_activation(
        self, call: Call, activation: Activation, x: Tensor, y: Tensor, options: Options
    ) -> None:
        """How saturated one call of an activation is.

        Args:
            call: its entry.
            activation: that was called.
            x: its input, which may be its output too if it works in place.
            y: its output; nothing is measured of an empty one.
            options: the call's arguments by name.
        """
        if not y.numel():
            return
        note = self._table.note
        self.measure_output(call, y)
        if not activation.is_elementwise:
            dim = options.get("dim", -1)
            if y.shape[-1 if dim is None else dim] == 1:
                self._note_no_choice(call, y)
                return
            y = y.detach().amax(dim)
        elif self._draws_units and x.is_floating_point() and x.data_ptr() != y.data_ptr():
            self._table.note_histogram(call, statistics.count_histogram(x))
        inputs = x if activation.needs_input else None
        waits = self._batches is not None and self._batches.add_activation(
            call.index, activation, inputs, y, options
        )
        if not waits:
            saturated, derivative = statistics.measure_saturation(activation, inputs, y, options)
            note("saturated_fraction", call, saturated)
            note("derivative_mean", call, derivative)
        if activation.can_die:
            note("zero_fraction", call, statistics.measure_zero_fraction(y))

    def _note_no_choice(self, call: Call, y: Tensor) -> None:
        """A softmax over a single value: flat, and not because it is sure."""
        for name in ("saturated_fraction", "derivative_mean"):
            self._table.note(name, call, RawValue(y.new_zeros(())))

    def measure_attention(self, fqn: str, scores: Scores) -> None:
        """How saturated the softmax of a fused attention is.

        Args:
            fqn: of the module inside which it is called.
            scores: its sample.
        """
        if self._batches is not None:
            self._batches.add_attention(fqn, scores)

    def flush(self) -> None:
        """Reduce what waits."""
        if self._batches is not None:
            self._batches.flush()

    def observe_fired(self, call: Call, y: Tensor, axis: int) -> None:
        """Which units of a rectifier fired.

        Args:
            call: its entry.
            y: its output; a unit has fired where it is above 0.
            axis: dimension of ``y`` that counts units; negative where all of it is one unit.
        """
        fired = statistics.find_fired_units(y, axis)
        key = call.layer.fqn, call.layer.call
        self._firing.observe(key, fired, count_unit_samples(y, axis))
