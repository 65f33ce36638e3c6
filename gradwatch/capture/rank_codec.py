"""A record as numbers that can be summed over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradwatch.capture.rank_messages import align_rows
from gradwatch.records import Array, LayerSet, StepRecord
from gradwatch.schema.statistics import Scope, find_statistic


class Codec:
    """A record as numbers that can be summed over ranks, and back.

    Norms travel as squares. Each rank's loss is the mean over its own part of the batch, so the
    gradient of the whole loss at an activation is a rank's divided by their number. Parameters'
    gradients are the same on every rank already, unless each holds only a part.

    Args:
        layout: layers, parameters and rows on which the ranks have agreed.
        parts: for each parameter, among how many ranks it is divided.
    """

    def __init__(self, layout: LayerSet, parts: Sequence[int]) -> None:
        self._layout, self._given = layout, tuple(parts)
        self._same: dict[str, bool] = {}  # by digest
        n_layers, n_params = len(layout.layers), len(layout.params)
        counts = np.ones(n_params)
        counts[: len(parts)] = parts[:n_params]
        is_part = counts > 1
        rows = layout.rows
        rules = [
            *(np.full(n_layers, _find_merge("layer", name)) for name in rows.all_layer),
            *(np.where(is_part, _find_merge("param", name), "mean") for name in rows.param),
            *(np.array([_find_merge("step", name)]) for name in rows.step),
        ]
        merges = np.concatenate(rules)
        self._is_mean = merges == "mean"
        self._is_l2, self._is_mean_loss = merges == "l2", merges == "l2_of_mean_loss"
        self._is_square = self._is_l2 | self._is_mean_loss
        self._parts = np.concatenate(
            (
                np.ones(len(rows.all_layer) * n_layers),
                np.tile(counts, len(rows.param)),
                np.ones(len(rows.step)),
            )
        )
        self._shapes = (len(rows.all_layer), n_layers), (len(rows.param), n_params)

    def suits(self, layout: LayerSet, parts: Sequence[int]) -> bool:
        """Whether another one for these would be the same.

        Args:
            layout: compared by identity.
            parts: as of ``Codec``.
        """
        return layout is self._layout and tuple(parts) == self._given

    def encode(self, record: StepRecord | None) -> Array:
        """Presence and summable value of every number.

        Args:
            record: of this rank; ``None``: it has none, and counts as absent.

        Returns:
            Float64 ``(2 * n,)`` for a layout of ``n`` numbers.
        """
        if record is None:
            return np.zeros(2 * len(self._is_mean))
        values = self._flatten(record)
        present = ~np.isnan(values)
        summable = np.where(self._is_square, np.square(values), values)
        return np.concatenate((present.astype(np.float64), np.where(present, summable, 0.0)))

    def decode(
        self, vector: Array, record: StepRecord, world: int, present: int | None = None
    ) -> StepRecord:
        """The merged record.

        Args:
            vector: sum of what ``encode`` gave on each rank.
            record: of this rank, for what is not merged.
            world: number of ranks.
            present: how many of them are in the sum; those that are not count as the average one.

        Returns:
            With the layout's layers and rows; NaN where no rank in the sum has a number.
        """
        counts, sums = np.split(vector, 2)
        if present is not None and present < world:
            sums = np.where(self._is_square, sums * world / present, sums)
        has_copies = (self._parts > 1) & ~self._is_mean
        sums = np.where(has_copies, sums * self._parts / world, sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(self._is_mean, sums / counts, sums)
            values = np.where(self._is_l2, np.sqrt(sums), values)
            values = np.where(self._is_mean_loss, np.sqrt(sums) / world, values)
        values[counts == 0] = np.nan
        sizes = np.cumsum([np.prod(shape) for shape in self._shapes]).tolist()
        layers, params, step = np.split(values, sizes)
        return StepRecord(
            record.global_step,
            self._layout,
            layers.reshape(self._shapes[0]),
            params.reshape(self._shapes[1]),
            step,
            record.histograms,
        )

    def _flatten(self, record: StepRecord) -> Array:
        """Numbers in the agreed order; NaN where this rank has none."""
        if self._has_same_numbers(record.layer_set):
            parts = record.layer_values, record.param_values, record.step_values
            return np.concatenate([part.ravel() for part in parts])
        return self._rearrange(record)

    def _has_same_numbers(self, own: LayerSet) -> bool:
        """Whether records of this set hold the agreed numbers in the agreed order."""
        if own.digest not in self._same:
            layout = self._layout
            named = [[param.fqn for param in each.params] for each in (own, layout)]
            is_same = own.rows == layout.rows and own.layers == layout.layers
            self._same[own.digest] = is_same and named[0] == named[1]
        return self._same[own.digest]

    def _rearrange(self, record: StepRecord) -> Array:
        own, wanted = record.layer_set.rows, self._layout.rows
        layer_values = align_rows(record.layer_values, own.all_layer, wanted.all_layer)
        param_values = align_rows(record.param_values, own.param, wanted.param)
        step_values = align_rows(record.step_values[:, None], own.step, wanted.step)
        layers, params = (np.full(shape, np.nan) for shape in self._shapes)
        found = {layer.key: index for index, layer in enumerate(record.layer_set.layers)}
        for column, layer in enumerate(self._layout.layers):
            if layer.key in found:
                layers[:, column] = layer_values[:, found[layer.key]]
        named = {param.fqn: index for index, param in enumerate(record.layer_set.params)}
        for column, param in enumerate(self._layout.params):
            if param.fqn in named:
                params[:, column] = param_values[:, named[param.fqn]]
        return np.concatenate((layers.ravel(), params.ravel(), step_values.ravel()))


def _find_merge(scope: Scope, statistic: str) -> str:
    row = find_statistic(scope, statistic)
    return "mean" if row is None else row.over_ranks
