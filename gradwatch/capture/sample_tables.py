"""Which tensors are sampled together, and how: all of it follows from what they look like."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradwatch.capture.statistics import RUN_LENGTH, SAMPLE_SIZE, choose_stride

Looks = list[tuple[Any, ...]]
"""Of each tensor its shape, dtype and device, and its strides."""

View = tuple[tuple[int, ...], tuple[int, ...]]
"""Shape and strides."""

_LOOK = attrgetter("shape", "dtype", "device")
_DOT_DTYPES = frozenset((torch.float32, torch.float64))
_REAL_DTYPES = _DOT_DTYPES | {torch.float16, torch.bfloat16}


def look_at(tensors: Sequence[Tensor]) -> Looks:
    """What decides how tensors are sampled.

    Args:
        tensors: dense.
    """
    return list(zip(map(_LOOK, tensors), map(Tensor.stride, tensors), strict=True))


class Row(NamedTuple):
    """How one tensor is sampled.

    Attributes:
        position: of the tensor among those that were given.
        number: index of the tensor.
        view: of its sample; ``None``: the tensor itself, or a copy where its memory has gaps.
        is_copied: that it is such a copy.
        length: elements of the sample.
        share: of its elements that are sampled.
        shows_norm: the sample is every element, real and on a CPU; a GPU's multi-tensor kernel
            reads tensors at once.
        rest: shape of what is copied but for its first dimension.
    """

    position: int
    number: int
    view: View | None
    is_copied: bool
    length: int
    share: float
    shows_norm: bool
    rest: tuple[int, ...]


class Batch(NamedTuple):
    """Rows that one operation copies.

    Attributes:
        rows: next to each other, the shorter ones first.
        shape: of their copy.
    """

    rows: list[Row]
    shape: tuple[int, ...]

    def view(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What is copied; of tensors with gaps themselves.

        Args:
            tensors: all that were given.
        """
        chosen = [(tensors[row[0]], row[2]) for row in self.rows]
        return [
            each if view is None else each.as_strided(*view, each.storage_offset())
            for each, view in chosen
        ]


@dataclass(eq=False)
class Table:
    """Samples that stand in one vector, row after row: those of one element come first.

    Args:
        rows: in their order.

    Attributes:
        indices: of the tensors.
        lengths: elements of each sample.
        shares: of each tensor, the part of its elements that is sampled.
        size: elements of all samples.
        n_single: samples of one element.
    """

    rows: Sequence[Row]

    def __post_init__(self) -> None:
        self.indices = [row.number for row in self.rows]
        self.lengths = [row.length for row in self.rows]
        self.shares = [row.share for row in self.rows]
        self.size = sum(self.lengths)
        self._runs: list[tuple[int, int, int]] = []
        start = 0
        for length, run in itertools.groupby(self.lengths):
            count = len(list(run))
            self._runs.append((count, length, start))
            start += count * length
        self.n_single = self.lengths.count(1)

    @cached_property
    def shown(self) -> Table:
        """The rows that show norms, which stand before the others."""
        rows = [row for row in self.rows if row.shows_norm]
        return self if len(rows) == len(self.rows) else Table(rows)

    def split(self, values: Tensor) -> list[Tensor]:
        """Rows in turn that are of one length.

        Args:
            values: ``(size,)``, in which the samples stand.

        Returns:
            Of each run a view ``(rows, length)``.
        """
        return [
            values.as_strided((count, length), (length, 1), start)
            for count, length, start in self._runs
        ]


@dataclass(eq=False)
class Copies:
    """What one vector is made of.

    Attributes:
        table: all rows.
        batches: of all rows.
        n_shown: how many of the batches show norms.
    """

    table: Table
    batches: list[Batch]
    n_shown: int


class Grouping(NamedTuple):
    """What is known of many tensors by their looks.

    Attributes:
        indices: of the tensors.
        looks: of the tensors, in the order of the indices.
        copies: of all that have an element, by dtype and device.
        flats: by dtype, positions of contiguous tensors on a CPU whose norm no row shows.
        others: positions of those that remain.
    """

    indices: list[int]
    looks: Looks
    copies: dict[tuple[torch.dtype, torch.device], Copies]
    flats: dict[torch.dtype, list[int]]
    others: list[int]


def group_tensors(indices: list[int], looks: Looks) -> Grouping:
    """Work out what is sampled together.

    Args:
        indices: of the tensors.
        looks: of the tensors, as of ``look_at``.
    """
    rows: dict[tuple[torch.dtype, torch.device], list[Row]] = defaultdict(list)
    flats: dict[torch.dtype, list[int]] = defaultdict(list)
    others: list[int] = []
    for position, (index, look) in enumerate(zip(indices, looks, strict=True)):
        (shape, dtype, device), strides = look
        is_real = device.type == "cpu" and dtype in _REAL_DTYPES
        row = _plan(position, index, shape, strides, is_real)
        if shape.numel():
            rows[dtype, device].append(row)
        if row.shows_norm:
            continue
        if is_real and row.length and dtype in _DOT_DTYPES and _is_contiguous(shape, strides):
            flats[dtype].append(position)
        else:
            others.append(position)
    copies = {key: _arrange(group) for key, group in rows.items()}
    return Grouping(indices, looks, copies, dict(flats), others)


def _plan(
    position: int, index: int, shape: Sequence[int], strides: Sequence[int], is_real: bool
) -> Row:
    """How a tensor is sampled: always the same elements of those that lie in memory alike."""
    size = math.prod(shape)
    is_dense, is_large = _is_dense(shape, strides), size > SAMPLE_SIZE
    length, rest = size, tuple(shape[1:])
    view: View | None = None
    if is_large:
        stride = choose_stride(size)
        runs = (size - RUN_LENGTH) // stride + 1
        length, view, rest = runs * RUN_LENGTH, ((runs, RUN_LENGTH), (stride, 1)), (RUN_LENGTH,)
    elif size <= 1 or not _is_contiguous(shape, strides):
        view, rest = ((size,), (1,)), ()
    share, shows_norm = length / max(size, 1), is_real and not is_large and size > 0
    if not is_dense:
        return Row(position, index, None, True, length, share, shows_norm, ())
    return Row(position, index, view, False, length, share, shows_norm, rest)


def _arrange(rows: Iterable[Row]) -> Copies:
    """What agrees in all dimensions but the first is copied at once."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[not row.shows_norm, row.rest, row.is_copied].append(row)
    batches = [
        Batch(
            sorted(groups[key], key=attrgetter("length")),
            (sum(row.length for row in groups[key]) // math.prod(key[1]), *key[1]),
        )
        for key in sorted(groups)
    ]
    n_shown = sum(batch.rows[0].shows_norm for batch in batches)
    return Copies(Table([row for batch in batches for row in batch.rows]), batches, n_shown)


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the memory has no gaps, in whatever order its dimensions lie."""
    pairs = sorted(zip(strides, shape, strict=True), reverse=True)
    return _is_contiguous([extent for _, extent in pairs], [stride for stride, _ in pairs])


def _is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    expected = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True
