"""Samples of many tensors as rows of few matrices; which go together is worked out once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradwatch.capture.statistics import (
    RUN_LENGTH,
    SAMPLE_SIZE,
    choose_stride,
    take_sample,
    widen,
)

MAX_KNOWN = 8
"""Sets of tensors whose grouping is remembered: weights, gradients, those of single optimizers."""

Looks = list[tuple[Any, ...]]
"""Shape, strides, dtype and device of each tensor."""


class Group(NamedTuple):
    """Tensors whose samples are rows of one matrix.

    Attributes:
        indices: of the tensors.
        positions: of the tensors among those that were given.
        view: shape and strides of a sample; ``None``: the tensor itself, or a copy where its memory
            has gaps.
        is_copied: that it is such a copy.
        length: elements of a row.
        shares: of each tensor, the part of its elements that is sampled.
    """

    indices: list[int]
    positions: list[int]
    view: tuple[tuple[int, ...], tuple[int, ...]] | None
    is_copied: bool
    length: int
    shares: list[float]

    @property
    def is_whole(self) -> bool:
        """Whether rows hold every element."""
        return self.shares[0] == 1  # and then all of them


@dataclass
class StackedRows:
    """Samples of equal length, one row for each tensor.

    Attributes:
        group: the tensors.
        values: ``(len(group.indices), group.length)``, a copy; half precision as float32.
    """

    group: Group
    values: Tensor

    @property
    def indices(self) -> list[int]:
        """Of the tensors."""
        return self.group.indices


class Gathered(NamedTuple):
    """Samples of many tensors.

    Attributes:
        rows: of all that have an element.
        indices: of the tensors.
        looks: of the tensors, in the order of the indices.
    """

    rows: list[StackedRows]
    indices: list[int]
    looks: Looks


class _Grouping(NamedTuple):
    indices: list[int]
    looks: Looks
    groups: list[Group]


class Gatherer:
    """Takes samples of many tensors together, and remembers which of them are alike."""

    def __init__(self) -> None:
        self._known: list[_Grouping] = []

    def gather(
        self, indices: list[int], tensors: Sequence[Tensor], whole_only: bool = False
    ) -> Gathered:
        """Copy the samples; to be called where gradients are switched off.

        Args:
            indices: of the tensors, each once.
            tensors: dense; an empty one gives no row.
            whole_only: leave out those of which a sample is not everything.
        """
        looks: Looks = [(t.shape, t.stride(), t.dtype, t.device) for t in tensors]
        grouping = self._find(indices, looks)
        chosen = [group for group in grouping.groups if group.is_whole or not whole_only]
        rows = [StackedRows(group, _stack(group, tensors)) for group in chosen]
        return Gathered(rows, indices, looks)

    def _find(self, indices: list[int], looks: Looks) -> _Grouping:
        for known in self._known:
            if known.indices == indices and known.looks == looks:
                return known
        grouping = _Grouping(indices, looks, _list_groups(indices, looks))
        self._known = [grouping, *self._known][:MAX_KNOWN]
        return grouping


def _list_groups(indices: list[int], looks: Looks) -> list[Group]:
    places: dict[Any, list[int]] = defaultdict(list)
    for position, (shape, strides, dtype, device) in enumerate(looks):
        size = shape.numel()
        is_copied = not _is_contiguous(shape, strides)
        view = None
        if size > SAMPLE_SIZE and not is_copied:
            stride = choose_stride(size)
            view = ((size - RUN_LENGTH) // stride + 1, RUN_LENGTH), (stride, 1)
        length = size if size <= SAMPLE_SIZE else _count_sampled(size)
        if size:
            key = device, dtype, view, is_copied, length, None if is_copied else tuple(shape)
            places[key if view is None else key[:-1]].append(position)
    return [
        Group(
            [indices[position] for position in positions],
            positions,
            key[2],
            key[3],
            key[4],
            [key[4] / looks[position][0].numel() for position in positions],
        )
        for key, positions in places.items()
    ]


def _count_sampled(size: int) -> int:
    return ((size - RUN_LENGTH) // choose_stride(size) + 1) * RUN_LENGTH


def _is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    expected = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True


def _stack(group: Group, tensors: Sequence[Tensor]) -> Tensor:
    chosen = [tensors[position] for position in group.positions]
    if group.view is not None:
        chosen = [each.as_strided(*group.view, each.storage_offset()) for each in chosen]
    elif group.is_copied:
        chosen = [take_sample(each).reshape(-1) for each in chosen]
    return widen(torch.stack(chosen)).reshape(len(chosen), -1)
