"""L2 norms of many tensors: in rows, as dot products, or through a GPU's multi-tensor kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradwatch.capture.device_values import PLAIN, ROOT, Ledger, RawValue
from gradwatch.capture.native import measure_sums
from gradwatch.capture.row_sums import sum_squares
from gradwatch.capture.sample_rows import Samples, StackedRows
from gradwatch.capture.statistics import BLOCK_SIZE, measure_l2_norm


@dataclass
class Norms:
    """L2 norms of some tensors.

    Attributes:
        indices: of the tensors.
        values: ``(len(indices),)``, raw, on their device.
        kind: what the host makes of them, as in ``device_values.RawValue``.
    """

    indices: list[int]
    values: Tensor
    kind: int = PLAIN

    def choose(self, indices: Container[int]) -> Norms | None:
        """Of some tensors; ``None`` where there is none of them.

        Args:
            indices: of tensors.
        """
        kept = [number for number, index in enumerate(self.indices) if index in indices]
        if len(kept) == len(self.indices):
            return self
        if not kept:
            return None
        values = torch.stack([self.values[number] for number in kept])
        return Norms([self.indices[number] for number in kept], values, self.kind)

    def note(self, statistic: str, ledger: Ledger) -> None:
        """Hand them over.

        Args:
            statistic: of which they are values.
            ledger: of the step.
        """
        ones = [1.0] * len(self.indices)
        ledger.add_params(statistic, self.indices, self.values, ones, self.kind)


def measure_norms(samples: Samples, rows: Sequence[StackedRows]) -> list[Norms]:
    """L2 norms of many tensors: on a CPU of all small ones of a shape together.

    To be called where gradients are switched off.

    Args:
        samples: of the tensors, of any shapes, dtypes and devices.
        rows: that were taken of them, at least those that show norms.

    Returns:
        In any order.
    """
    found = [
        Norms(each.table.indices, sum_squares(each), ROOT)
        for each in (stacked.shown for stacked in rows)
        if each.table.rows
    ]
    indices, tensors = samples.grouping.indices, samples.tensors
    for positions in samples.grouping.flats.values():
        values = _multiply([tensors[position] for position in positions])
        found.append(Norms([indices[position] for position in positions], values, ROOT))
    others = samples.grouping.others
    readings = measure_each([tensors[position] for position in others])
    return found + _join([indices[position] for position in others], readings)


def _multiply(tensors: list[Tensor]) -> Tensor:
    """Sums of squares, of contiguous ones on a CPU, of one dtype.

    By dot products, which go at the speed of memory. ``_foreach_norm`` takes as long at best and
    is off by 5e-6 for 512 x 512 elements; of the smallest gradients it is slower by far.
    """
    native = measure_sums(tensors)
    if native is not None:
        return native
    flats = [tensor.view(-1) for tensor in tensors]
    if all(flat.numel() <= BLOCK_SIZE for flat in flats):
        return torch.stack(list(map(torch.dot, flats, flats)))
    blocks = [flat.split(BLOCK_SIZE) for flat in flats]
    starts = np.cumsum([0, *map(len, blocks[:-1])])
    pieces = [piece for parts in blocks for piece in parts]
    sums = torch.stack(list(map(torch.dot, pieces, pieces))).double().numpy()
    return torch.from_numpy(np.add.reduceat(sums, starts))


def _join(indices: Sequence[int], readings: Sequence[RawValue]) -> list[Norms]:
    """Those of one kind, dtype and device."""
    groups: dict[tuple[int, torch.dtype, torch.device], list[tuple[int, Tensor]]]
    groups = defaultdict(list)
    for index, (value, kind, _) in zip(indices, readings, strict=True):
        groups[kind, value.dtype, value.device].append((index, value))
    return [
        Norms([index for index, _ in group], torch.stack([value for _, value in group]), kind)
        for (kind, *_), group in groups.items()
    ]


def measure_each(tensors: Sequence[Tensor]) -> list[RawValue]:
    """L2 norms of tensors, one by one; on a GPU through its multi-tensor kernel.

    To be called where gradients are switched off.

    Args:
        tensors: of any shapes, dtypes and devices.

    Returns:
        In their order.
    """
    chosen = [tensor for tensor in tensors if tensor.is_cuda and tensor.dtype is torch.float32]
    fused = dict(zip(map(id, chosen), torch._foreach_norm(chosen) if chosen else (), strict=True))
    return [
        RawValue(fused[id(tensor)]) if id(tensor) in fused else measure_l2_norm(tensor)
        for tensor in tensors
    ]
