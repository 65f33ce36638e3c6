"""Where the values of one sampled step gather until they travel to the host, all at once.

On the device a value stays as raw as one reduction leaves it: a sum of squares, a count. Roots and
quotients are made of it on the host, for all values together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradwatch.records import Array

Address = tuple[str, int, int]

WHOLE_STEP = -1
"""Stands for the number of a root where a value is of the step and not of a call in it."""

NOBODY = ""
"""In place of the statistic of a value that nobody asks for."""

PLAIN, ROOT, REST = range(3)
"""What the host makes of a raw value ``v`` and its divisor ``n``: ``v / n``, its square root,
``1 - v / n``."""


_LOOK = attrgetter("device", "dtype", "ndim")


class RawValue(NamedTuple):
    """A raw value on its device, and what the host makes of it.

    Attributes:
        value: zero-dimensional, or one value for each place of a row.
        kind: ``PLAIN``, ``ROOT`` or ``REST``.
        divisor: of the value.
    """

    value: Tensor
    kind: int = PLAIN
    divisor: float = 1.0


@dataclass
class Ledger:
    """Raw values with the place that each one has in the record.

    A place is a statistic, the index of a call or parameter, and the number of the outermost call
    (the root) in which it was measured. Several values of one call (accumulated passes, several
    paths through it) are merged on the host by the statistic's reduction.

    Places are kept in columns: an object for each would set off the garbage collector.

    Attributes:
        statistics, indices, roots: columns of the places.
        kinds, divisors: of each value, as in ``RawValue``.
        values: tensors, each with the values of one place or of several.
        starts: place of each tensor's first value.
    """

    statistics: list[str] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    divisors: list[float] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def add(self, statistic: str, index: int, root: int, reading: RawValue) -> None:
        """Note one value; it stays on its device.

        Args:
            statistic: a key under which values are merged (``statistics.find_merge``).
            index: of the call or the parameter.
            root: number of the outermost call, or ``WHOLE_STEP``.
            reading: of no dimensions.
        """
        value, kind, divisor = reading
        self.starts.append(len(self.statistics))
        self.values.append(value)
        self.statistics.append(statistic)
        self.indices.append(index)
        self.roots.append(root)
        self.kinds.append(kind)
        self.divisors.append(divisor)

    def add_row(
        self,
        places: Sequence[Address],
        values: Tensor,
        divisors: Sequence[float],
        kind: int = PLAIN,
    ) -> None:
        """Note the values ``(len(places),)`` of one tensor.

        Args:
            places: of each value.
            values: raw, on their device.
            divisors: of each value.
            kind: ``PLAIN``, ``ROOT`` or ``REST``, for all of them.
        """
        self.starts.append(len(self.statistics))
        self.values.append(values)
        for statistic, index, root in places:
            self.statistics.append(statistic)
            self.indices.append(index)
            self.roots.append(root)
        self.kinds.extend([kind] * len(places))
        self.divisors.extend(divisors)

    def add_column(
        self,
        statistic: str,
        indices: Sequence[int],
        roots: Sequence[int],
        values: Tensor,
        divisors: Sequence[float],
        kind: int = PLAIN,
    ) -> None:
        """As ``add_row``, of one statistic.

        Args:
            statistic: of all values.
            indices: of the call or the parameter of each.
            roots: number of the outermost call of each, or ``WHOLE_STEP``.
            values: ``(len(indices),)``, raw, on their device.
            divisors: of each value.
            kind: ``PLAIN``, ``ROOT`` or ``REST``, for all of them.
        """
        count = len(indices)
        self.starts.append(len(self.statistics))
        self.values.append(values)
        self.statistics += [statistic] * count
        self.indices += indices
        self.roots += roots
        self.kinds += [kind] * count
        self.divisors += divisors

    def add_params(
        self,
        statistic: str,
        indices: Sequence[int],
        values: Tensor,
        divisors: Sequence[float],
        kind: int = PLAIN,
    ) -> None:
        """As ``add_column``, of parameters: what belongs to the whole step.

        Args:
            statistic, indices, values, divisors, kind: as there.
        """
        roots = [WHOLE_STEP] * len(indices)
        self.add_column(statistic, indices, roots, values, divisors, kind)

    def take(self, other: Ledger, indices: Container[int], suffix: str = "") -> None:
        """Take over what another ledger holds of some indices; a suffix marks its statistics.

        Args:
            other: stays as it is.
            indices: of those to be taken; the rest travels without a name.
            suffix: ``""`` for none.
        """
        first = len(self.statistics)
        self.starts.extend(first + start for start in other.starts)
        self.values.extend(other.values)
        if not suffix and all(map(indices.__contains__, other.indices)):
            self.statistics += other.statistics
        else:
            self.statistics += [
                statistic + suffix if index in indices else NOBODY
                for statistic, index in zip(other.statistics, other.indices, strict=True)
            ]
        self.indices.extend(other.indices)
        self.roots.extend(other.roots)
        self.kinds.extend(other.kinds)
        self.divisors.extend(other.divisors)

    def send(self) -> Transfer:
        """Start the one copy to the host.

        Returns:
            On a GPU a float64 copy that goes to page-locked memory without a wait.
        """
        groups: dict[torch.device, dict[tuple[torch.dtype, int], list[int]]] = {}
        for number, (device, *kind) in enumerate(map(_LOOK, self.values)):
            groups.setdefault(device, defaultdict(list))[tuple(kind)].append(number)
        with torch.no_grad():
            parts = [self._send_from(*group) for group in groups.items()]
        columns = self.statistics, self.indices, self.roots, self.kinds, self.divisors
        return Transfer(*columns, parts)

    def _send_from(
        self, device: torch.device, groups: dict[tuple[torch.dtype, int], list[int]]
    ) -> DeviceValues:
        """Few operations for many tensors: those of one dtype and one shape go together."""
        joined: list[Tensor] = []
        for (_, dimensions), numbers in groups.items():
            tensors = [self.values[number] for number in numbers]
            joined.append((torch.cat if dimensions else torch.stack)(tensors).to(torch.float64))
        numbers = [number for group in groups.values() for number in group]
        positions = self._list_positions(numbers)
        return positions, *_copy_to_host(torch.cat(joined), device)

    def _list_positions(self, numbers: list[int]) -> Positions:
        """Places of the values of some tensors, one tensor after the other."""
        counts = np.array([self.values[number].numel() for number in numbers])
        starts = np.array([self.starts[number] for number in numbers])
        before = np.cumsum(counts) - counts
        positions: Positions = np.repeat(starts - before, counts) + np.arange(counts.sum())
        return positions


Positions = npt.NDArray[np.int64]

DeviceValues = tuple[Positions, Tensor, "torch.cuda.Event | None"]
"""Of one device: positions, their values on the host, and the event that says they are there."""


def _copy_to_host(values: Tensor, device: torch.device) -> tuple[Tensor, torch.cuda.Event | None]:
    if device.type != "cuda":
        return values.cpu(), None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return host, event


@dataclass
class Transfer:
    """Values on their way to the host, with the columns of the ledger.

    Attributes:
        statistics, indices, roots, kinds, divisors: columns, as in ``Ledger``.
        parts: values of each device.
    """

    statistics: list[str]
    indices: list[int]
    roots: list[int]
    kinds: list[int]
    divisors: list[float]
    parts: list[DeviceValues]

    @property
    def arrived(self) -> bool:
        """Whether reading would not wait."""
        return all(event is None or event.query() for _, _, event in self.parts)

    def read(self) -> Array:
        """Raw values in the order of the places, float64; waits until they are there."""
        raw = np.full(len(self.statistics), np.nan)
        for positions, values, event in self.parts:
            if event is not None:
                event.synchronize()
            raw[positions] = values.numpy()
        return raw
