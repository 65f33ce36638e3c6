"""Samples of many tensors as rows of few vectors; which go together is worked out once."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradwatch.capture.sample_tables import (
    Batch,
    Grouping,
    Looks,
    Table,
    group_tensors,
    look_at,
)
from gradwatch.capture.statistics import take_sample, widen

MAX_KNOWN = 8
"""Sets of tensors whose tables are remembered: weights, gradients, those of single optimizers."""


@dataclass
class StackedRows:
    """Samples of tensors of one dtype and device.

    Attributes:
        table: the rows.
        values: ``(table.size,)``, a copy; half precision as float32.
    """

    table: Table
    values: Tensor

    @property
    def shown(self) -> StackedRows:
        """The rows that show norms."""
        return StackedRows(self.table.shown, self.values[: self.table.shown.size])

    def choose(self, places: list[int]) -> StackedRows:
        """Some of the rows.

        Args:
            places: of the rows, at least one, in the order of their lengths.
        """
        if places == list(range(len(self.table.rows))):
            return self
        values = self.values.split(self.table.lengths)
        table = Table([self.table.rows[place] for place in places])
        return StackedRows(table, torch.cat([values[place] for place in places]))

    def leave_out(self, indices: Container[int]) -> list[StackedRows]:
        """The rows of other tensors, if there are any.

        Args:
            indices: of tensors.
        """
        rows = enumerate(self.table.rows)
        places = [place for place, row in rows if row.number not in indices]
        return [self.choose(places)] if places else []


def match_rows(first: StackedRows, second: StackedRows) -> tuple[list[int], list[int]]:
    """Places of the same tensors in both, where the samples are as long and on one device.

    Args:
        first, second: samples; the places are in the order of the first.
    """
    if first.values.device != second.values.device:
        return [], []
    if first.table is second.table:
        places = list(range(len(first.table.rows)))
        return places, places
    others = {row.number: place for place, row in enumerate(second.table.rows)}
    found = [
        (place, others[row.number])
        for place, row in enumerate(first.table.rows)
        if row.number in others and second.table.lengths[others[row.number]] == row.length
    ]
    return [place for place, _ in found], [other for _, other in found]


class Samples:
    """Tensors of which samples are taken, perhaps several times; views are made once.

    Args:
        grouping: of the tensors.
        tensors: dense.
    """

    def __init__(self, grouping: Grouping, tensors: Sequence[Tensor]) -> None:
        self.grouping = grouping
        self.tensors = tensors
        self._views = {
            key: [batch.view(tensors) for batch in of.batches]
            for key, of in grouping.copies.items()
        }

    def take(self) -> list[StackedRows]:
        """Copy the samples; to be called where gradients are switched off."""
        return [
            StackedRows(of.table, _copy(key, of.table.size, of.batches, self._views[key]))
            for key, of in self.grouping.copies.items()
        ]

    def take_shown(self) -> list[StackedRows]:
        """As ``take``, of the tensors whose samples show their norms."""
        return [
            StackedRows(table := of.table.shown, _copy(key, table.size, batches, self._views[key]))
            for key, of in self.grouping.copies.items()
            if (batches := of.batches[: of.n_shown])
        ]


class Gatherer:
    """Takes samples of many tensors together, and remembers which of them are alike."""

    def __init__(self) -> None:
        self._known: list[Grouping] = []

    def bind(self, indices: list[int], tensors: Sequence[Tensor]) -> Samples:
        """Prepare to take samples; to be called where gradients are switched off.

        Args:
            indices: of the tensors, each once.
            tensors: dense; an empty one gives no row.
        """
        return Samples(self._find(indices, look_at(tensors)), tensors)

    def _find(self, indices: list[int], looks: Looks) -> Grouping:
        for known in self._known:
            if known.indices == indices and known.looks == looks:
                return known
        grouping = group_tensors(indices, looks)
        self._known = [grouping, *self._known][:MAX_KNOWN]
        return grouping


def _copy(
    key: tuple[torch.dtype, torch.device],
    size: int,
    batches: Sequence[Batch],
    views: Sequence[list[Tensor]],
) -> Tensor:
    """All batches in one vector ``(size,)``."""
    values = torch.empty(size, dtype=key[0], device=key[1])
    places = values.split([math.prod(batch.shape) for batch in batches])
    for batch, tensors, place in zip(batches, views, places, strict=False):
        if batch.rows[0].is_copied:
            tensors = [take_sample(each).reshape(-1) for each in tensors]
        torch.cat(tensors, out=place.view(batch.shape))
    return widen(values)
