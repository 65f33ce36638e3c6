"""An even selection of something that grows without end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT = 512
"""Items kept; every other one is dropped when there are more."""


@dataclass
class Thinned(Generic[T]):
    """Items that are thinned as they grow: all of a few, an even selection of many.

    Attributes:
        kept: the selection, in the order in which it came; the first item is always part of it.
    """

    kept: list[T] = field(default_factory=list)
    _count: int = 0
    _stride: int = 1

    def add(self, item: T) -> None:
        """Take in the next item.

        Args:
            item: which is kept only where the selection has room for it.

        Example:
            >>> numbers: Thinned[int] = Thinned()
            >>> for number in range(2000):
            ...     numbers.add(number)
            >>> numbers.kept[:3], len(numbers.kept)
            ([0, 4, 8], 500)
        """
        if self._count % self._stride == 0:
            self.kept.append(item)
        self._count += 1
        if len(self.kept) > KEPT:
            self.kept = self.kept[::2]
            self._stride *= 2
