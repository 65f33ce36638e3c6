"""What one sampled step looked like: plain numbers per layer and per parameter, no torch.

A ``LayerSet`` describes what does not change from step to step (names, kinds, the data flow
between layers, and which statistics there are); a ``StepRecord`` holds one row of numbers per
statistic, aligned with it. What the statistics mean stands in ``schema.statistics``; which of them
a log holds, and in which order, its layer set says. NaN means "not measured".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gradwatch.errors import InvalidInput, UnreadableLog
from gradwatch.schema.layer_set import (
    ACTIVATION_STATISTICS,
    GENERAL_STATISTICS,
    LAYER_STATISTICS,
    PARAM_STATISTICS,
    ROWS_OF_SCHEMA_2,
    SCHEMA_VERSION,
    STEP_STATISTICS,
    Layer,
    LayerSet,
    Param,
    Rows,
)
from gradwatch.schema.packing import pack_rows, unpack_rows
from gradwatch.schema.statistics import Scope, find_statistic

__all__ = [
    "ACTIVATION_STATISTICS",
    "GENERAL_STATISTICS",
    "HISTOGRAM_EDGES",
    "LAYER_STATISTICS",
    "PARAM_STATISTICS",
    "ROWS_OF_SCHEMA_2",
    "SCHEMA_VERSION",
    "STEP_STATISTICS",
    "Array",
    "Layer",
    "LayerRecord",
    "LayerSet",
    "Param",
    "Rows",
    "StepRecord",
]

Array = npt.NDArray[np.float64]

HISTOGRAM_EDGES: tuple[float, ...] = tuple(-8 + edge / 4 for edge in range(65))
"""Edges of the 64 bins of a pre-activation histogram; what lies outside counts to the last bin."""


@dataclass(frozen=True)
class StepRecord:
    """One sampled optimizer step.

    Attributes:
        global_step: number of optimizer steps made before this one.
        layer_set: what the columns mean.
        layer_values: float64 ``(len(layer_set.rows.all_layer), len(layer_set.layers))``.
        param_values: float64 ``(len(layer_set.rows.param), len(layer_set.params))``.
        step_values: float64 ``(len(layer_set.rows.step),)``.
        histograms: pre-activation counts of some activations on some steps, by layer key
            (``HISTOGRAM_EDGES`` in ``gradwatch.records``); empty on most steps.
    """

    global_step: int
    layer_set: LayerSet
    layer_values: Array
    param_values: Array
    step_values: Array
    histograms: dict[str, Array] = field(default_factory=dict)

    def layer(self, statistic: str) -> Array:
        """One statistic of all layers.

        Args:
            statistic: a name of ``layer_set.rows.all_layer``, or one that gradwatch knows.

        Returns:
            float64 ``(n_layers,)``; NaN throughout where the log does not have the statistic.

        Raises:
            InvalidInput: neither the log nor gradwatch knows it.

        Example:
            >>> layer_set = LayerSet((Layer("fc", role="weight", type="Linear"),))
            >>> rows = len(layer_set.rows.all_layer)
            >>> values = np.arange(float(rows)).reshape(rows, 1), np.empty((0, 0)), np.empty(0)
            >>> StepRecord(0, layer_set, *values).layer(layer_set.rows.all_layer[1]).tolist()
            [1.0]
        """
        row = self.layer_set.rows.places["layer"].get(statistic)
        if row is None:
            self._require_known("layer", statistic)
            return np.full(len(self.layer_set.layers), np.nan)
        values: Array = self.layer_values[row]
        return values

    def param(self, statistic: str) -> Array:
        """One statistic of all parameters, ``(n_params,)``; otherwise as ``layer``.

        Args:
            statistic: a name of ``layer_set.rows.param``, or one that gradwatch knows.
        """
        row = self.layer_set.rows.places["param"].get(statistic)
        if row is None:
            self._require_known("param", statistic)
            return np.full(len(self.layer_set.params), np.nan)
        values: Array = self.param_values[row]
        return values

    def step(self, statistic: str) -> float:
        """One number of the whole step; otherwise as ``layer``.

        Args:
            statistic: a name of ``layer_set.rows.step``, or one that gradwatch knows.

        Returns:
            NaN where the log does not have it.
        """
        row = self.layer_set.rows.places["step"].get(statistic)
        if row is None:
            self._require_known("step", statistic)
            return float("nan")
        return float(self.step_values[row])

    def _require_known(self, scope: Scope, statistic: str) -> None:
        """Refuse what neither the log nor gradwatch has a statistic for."""
        if find_statistic(scope, statistic) is None:
            known = self.layer_set.rows.places[scope]
            raise InvalidInput(
                f"Expected a {scope} statistic among {', '.join(known)}, got {statistic!r}. "
                "Use one of these, or register it with gradwatch.schema.statistics."
            )

    def layer_records(self) -> Iterator[LayerRecord]:
        """The same numbers layer by layer, for reading and printing."""
        for index, layer in enumerate(self.layer_set.layers):
            names = self.layer_set.rows.all_layer
            values = dict(zip(names, self.layer_values[:, index].tolist(), strict=True))
            yield LayerRecord(layer, values)

    def to_vector(self) -> npt.NDArray[np.float32]:
        """All numbers as one float32 vector: step, layers, activations, parameters; packed.

        Returns:
            Float32; of the activations' statistics only the activations' columns.
        """
        n_general = len(self.layer_set.rows.layer)
        special = self.layer_values[n_general:, self.layer_set.activations]
        return pack_rows(
            self.step_values, (*self.layer_values[:n_general], *special, *self.param_values)
        )

    @classmethod
    def from_vector(
        cls, global_step: int, layer_set: LayerSet, vector: npt.NDArray[np.float32]
    ) -> StepRecord:
        """Read back what ``to_vector`` wrote.

        Args:
            global_step: of the record.
            layer_set: that it was written with.
            vector: float32, packed.

        Raises:
            UnreadableLog: the vector is damaged, or its length does not belong to the layer set.
        """
        n_layers, n_params = len(layer_set.layers), len(layer_set.params)
        rows, chosen = layer_set.rows, layer_set.activations
        n_step, *counts = map(len, (rows.step, rows.layer, rows.activation, rows.param))
        widths = (n_layers, len(chosen), n_params)
        each = [width for width, count in zip(widths, counts, strict=True) for _ in range(count)]
        vector = unpack_rows(vector, n_step, each)
        if vector.shape != (n_step + sum(each),):
            raise UnreadableLog(
                f"Expected a record of {n_step + sum(each)} numbers at step {global_step}, got "
                f"shape {vector.shape}. The event file is damaged; run the training again."
            )
        values = vector.astype(np.float64)
        parts, begin = [], n_step
        for width, count in zip(widths, counts, strict=True):
            parts.append(values[begin : begin + width * count].reshape(count, width))
            begin += width * count
        layer_values = np.full((counts[0] + counts[1], n_layers), np.nan)
        layer_values[: counts[0]] = parts[0]
        layer_values[counts[0] :, chosen] = parts[1]
        return cls(global_step, layer_set, layer_values, parts[2], values[:n_step])


@dataclass(frozen=True)
class LayerRecord:
    """One layer of one sampled step.

    Attributes:
        layer: what is fixed about it.
        values: by the names of its layer set's rows; NaN where one was not measured.
    """

    layer: Layer
    values: dict[str, float]
