"""Where each value of a step goes in its record: worked out once for steps that are alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gradwatch.capture.device_values import REST, ROOT, WHOLE_STEP, Transfer
from gradwatch.capture.statistics import find_merge
from gradwatch.records import Array

IndexArray = npt.NDArray[np.int64]

MergedValues = tuple[IndexArray, Array]
"""Of one statistic: indices of calls or parameters, and one value of each."""


_NOTHING: MergedValues = np.empty(0, dtype=np.int64), np.empty(0)


class _Group(NamedTuple):
    """MergedValues of one statistic, as many of each index.

    Attributes:
        indices: of calls or parameters.
        positions: ``(len(indices), count)`` of each one's values, in the order of the step.
    """

    indices: IndexArray
    positions: IndexArray


_REDUCED: dict[str, Callable[..., Any]] = {
    "sum": np.sum, "l2": np.linalg.norm, "mean": np.mean, "max": np.max
}  # fmt: skip
"""Of the values of several passes, where it is not the latest that counts."""


def _reduce(statistic: str, values: Array) -> Array:
    """One value of each row: norms by the root of summed squares, most fractions by mean."""
    merge = find_merge(statistic)
    if values.shape[1] == 1 or merge not in _REDUCED:
        return values[:, -1]
    result: Array = _REDUCED[merge](values, axis=1)
    return result


@dataclass
class Layout:
    """Columns of a transfer, and what follows from them.

    Args:
        columns: statistics, indices, roots, kinds and divisors, as in ``Transfer``.
    """

    columns: tuple[list[Any], ...]
    _divisors: Array = field(init=False)
    _is_root: IndexArray = field(init=False)
    _is_rest: IndexArray = field(init=False)
    _groups: dict[frozenset[int], dict[str, list[_Group]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        *_, kinds, divisors = self.columns
        self._divisors = np.array(divisors, dtype=np.float64)
        self._is_root = np.flatnonzero(np.array(kinds) == ROOT)
        self._is_rest = np.flatnonzero(np.array(kinds) == REST)

    @classmethod
    def choose(cls, transfer: Transfer, known: Layout | None) -> Layout:
        """The layout of a transfer.

        Args:
            transfer: whose columns count.
            known: of the step before; the answer where that was alike.
        """
        columns = (
            *(transfer.statistics, transfer.indices, transfer.roots),
            *(transfer.kinds, transfer.divisors),
        )
        return known if known is not None and known.columns == columns else cls(columns)

    def finish(self, raw: Array) -> Array:
        """What the host makes of raw values; what was measured and is NaN becomes infinite.

        NaN in a record means "not measured".

        Args:
            raw: as ``Transfer.read`` answers them.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            values: Array = raw / self._divisors
            values[self._is_root] = np.sqrt(values[self._is_root])
        values[self._is_rest] = 1 - values[self._is_rest]
        values[np.isnan(values)] = np.inf
        return values

    def list_roots(self, positions: Iterable[int], counts: Callable[[str], bool]) -> set[int]:
        """Outermost calls to which some values belong.

        Args:
            positions: of the values.
            counts: whether those of a statistic do.
        """
        names, _, roots, *_ = self.columns
        return {roots[position] for position in positions if counts(names[position])}

    def merge(self, statistic: str, values: Array, roots: frozenset[int]) -> MergedValues:
        """IndexArray with a value, and the value of each: those of several calls are merged.

        Args:
            statistic: a key under which values waited.
            values: finished, of all places.
            roots: outermost calls that count, besides the whole step.
        """
        if roots not in self._groups:
            self._groups[roots] = self._list_groups(roots | {WHOLE_STEP})
        groups = self._groups[roots].get(statistic)
        if groups is None:
            return _NOTHING
        parts = [(each.indices, _reduce(statistic, values[each.positions])) for each in groups]
        if len(parts) == 1:
            return parts[0]
        indices, merged = zip(*parts, strict=True)
        return np.concatenate(indices), np.concatenate(merged)

    def merge_whole(self, statistic: str, values: Array) -> dict[int, float]:
        """What belongs to the step and not to a call in it, by index.

        Args:
            statistic: such as ``"step.loss_scale"``.
            values: finished, of all places.
        """
        indices, merged = self.merge(statistic, values, frozenset())
        return dict(zip(indices.tolist(), merged.tolist(), strict=True))

    def _list_groups(self, roots: Container[int]) -> dict[str, list[_Group]]:
        found: dict[str, dict[int, list[int]]] = defaultdict(dict)
        names, indices, numbers, *_ = self.columns
        for position, (name, index, root) in enumerate(zip(names, indices, numbers, strict=True)):
            if root in roots:
                found[name].setdefault(index, []).append(position)
        return {name: _group_by_count(places) for name, places in found.items()}


def _group_by_count(places: dict[int, list[int]]) -> list[_Group]:
    """Few calls have more than one value."""
    groups: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for index, positions in places.items():
        groups[len(positions)].append((index, positions))
    return [
        _Group(np.array([index for index, _ in group]), np.array([each for _, each in group]))
        for group in groups.values()
    ]
