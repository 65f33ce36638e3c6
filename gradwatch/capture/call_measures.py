"""What is measured of a call's outputs, whichever way the call was seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradwatch.capture import saturation, statistics
from gradwatch.capture.attention import PART, Scores, measure_scores
from gradwatch.capture.attention_rows import find_score_rows
from gradwatch.capture.call_rows import OUTPUTS, CallRows, find_activation_rows, fits
from gradwatch.capture.calls import Call, CallTable
from gradwatch.capture.device_values import RawValue
from gradwatch.capture.firing_history import FiringHistory
from gradwatch.capture.native import OUTPUT, NativeTable
from gradwatch.capture.own_statistics import OwnMeasures
from gradwatch.capture.plan import CallSettings
from gradwatch.capture.statistics import SAMPLE_SIZE
from gradwatch.capture.unit_axes import count_unit_samples
from gradwatch.schema.activations import Activation
from gradwatch.schema.derivatives import Options

_PLAIN_SETTINGS = (bool, int, float, str, torch.dtype)
"""Arguments that tell calls apart by their values."""


def list_settings(options: Options) -> CallSettings | None:
    """Arguments of a call by name, sorted; ``None`` where some are no plain values.

    Args:
        options: arguments by name.
    """
    if all(value is None or isinstance(value, _PLAIN_SETTINGS) for value in options.values()):
        return tuple(sorted(options.items()))
    return None


class CallMeasures:
    """Reads tensors at once, since they may be changed in place later.

    Args:
        table: takes the values.
        firing: which units fired lately, kept from step to step.
        own: measures the statistics that are not gradwatch's.
        draws_units: count pre-activations by bin, for the picture of where the units sit.
        rows: takes what is reduced together; ``None``: each call is measured at once.
        native: reads outputs in compiled code; ``None`` without that.
    """

    def __init__(
        self,
        table: CallTable,
        firing: FiringHistory,
        own: OwnMeasures,
        draws_units: bool,
        rows: CallRows | None = None,
        native: NativeTable | None = None,
    ) -> None:
        self._table = table
        self._native = native
        self._firing = firing
        self._own = own
        self._draws_units = draws_units
        self._rows = rows

    def measure_output(self, call: Call, output: Tensor) -> None:
        """Norm of one output of one call, and what else is asked for.

        Args:
            call: that has returned it.
            output: of any shape and dtype; not kept.
        """
        if self._own.statistics:
            self._measure_own(call, output)
        native, rows, root = self._native, self._rows, self._table.root
        is_read = native is not None and native.read(OUTPUT, call.index, root, output, False)
        is_put = rows is not None and 0 < output.numel() <= SAMPLE_SIZE and not output.is_complex()
        if rows is not None and is_put and (rows.is_trial or not is_read):
            rows.put(OUTPUTS, call.index, root, call.key, output)
        if not is_read and (rows is None or rows.is_trial or not is_put):
            self._table.note("output_l2_norm", call, statistics.measure_l2_norm(output))

    def _measure_own(self, call: Call, output: Tensor) -> None:
        for name, value in self._own.measure_output(output):
            self._table.note(name, call, value)

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
        saturated, derivative = saturation.measure_saturation(activation, inputs, y, options)
        note("saturated_fraction", call, saturated)
        note("derivative_mean", call, derivative)
        if activation.can_die:
            note("zero_fraction", call, statistics.measure_zero_fraction(y))

    @torch.no_grad()
    def put_activation(
        self,
        call: Call,
        activation: Activation,
        x: Tensor | None,
        y: Tensor,
        settings: CallSettings,
    ) -> None:
        """As ``measure_activation``, together with others of a shape and with equal arguments.

        Args:
            call: its entry.
            activation: that was called.
            x: its input; ``None`` where its derivative follows from the output.
            y: its output; nothing is measured of an empty one.
            settings: the call's arguments by name.
        """
        rows, is_whole = self._rows, activation.is_elementwise and fits(y)
        if rows is None or y.is_complex() or not y.numel():
            self.measure_activation(call, activation, y if x is None else x, y, dict(settings))
            return
        if is_whole:
            self._measure_own(call, y)
        else:
            self.measure_output(call, y)
        if not activation.is_elementwise:
            dim = dict(settings).get("dim", -1)
            dim = -1 if dim is None else dim
            if y.shape[dim] == 1:
                self._note_no_choice(call, y)
                return
            y = y.amax(dim)
        inputs = y if x is None else x
        if not is_whole:
            inputs, y = saturation.sample_activation(x, y)
        tensors = (y,) if x is None else (y, inputs)
        reduction = find_activation_rows(activation, settings, is_whole)
        rows.put(reduction, call.index, self._table.root, call.key, *map(Tensor.detach, tensors))

    def _note_no_choice(self, call: Call, y: Tensor) -> None:
        """A softmax over a single value: flat, and not because it is sure."""
        for name in ("saturated_fraction", "derivative_mean"):
            self._table.note(name, call, RawValue(y.new_zeros(())))

    @torch.no_grad()
    def put_attention(
        self, fqn: str, q: Tensor, k: Tensor, causal: tuple[Any, ...], scale: float
    ) -> None:
        """How saturated the softmax of a fused attention is, together with others of a shape.

        Args:
            fqn: of the module inside which it is called.
            q, k: sample of its queries and keys.
            causal: what determines its mask, as of ``attention.Scores``.
            scale: of its scores, where the queries do not have it.
        """
        assert self._rows is not None
        call = self._table.find_part(fqn, PART, self._table.root)
        rows, key = find_score_rows(causal, scale), call.key
        self._rows.put(rows, call.index, self._table.root, key, q.detach(), k.detach())

    def put_scores(self, fqn: str, scores: Scores) -> None:
        """As ``put_attention``, of a sample that may have a mask of its own.

        Args:
            fqn: of the module inside which it is called.
            scores: its sample.
        """
        if scores.mask is None or scores.causal:
            self.put_attention(fqn, scores.q, scores.k.clone(), scores.causal, 1.0)
        else:
            self._table.add_parts(fqn, measure_scores(scores), self._table.root)

    def flush(self) -> None:
        """Reduce what waits."""
        if self._rows is not None:
            self._rows.flush()

    @property
    def has_lost(self) -> bool:
        """Whether something was changed in place while it waited."""
        return self._rows is not None and self._rows.has_lost

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
