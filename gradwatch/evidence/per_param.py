"""What is kept of each parameter is carried over when a network's layers change."""

from __future__ import annotations

from dataclasses import field, fields
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
"""By parameter ``(n_params,)``."""


def keep_param(blank: int | float | bool) -> Any:
    """A dataclass field with one number by parameter, of a subclass of ``PerParam``.

    Args:
        blank: of a parameter that is new; its type is the array's.

    Returns:
        What ``dataclasses.field`` returns; the array is empty at first.
    """
    dtype = np.asarray(blank).dtype
    return field(default_factory=lambda: np.zeros(0, dtype), metadata={"blank": blank})


class PerParam:
    """A dataclass some of whose fields are made by ``keep_param``.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Called(PerParam):
        ...     times: Counts = keep_param(0)
        >>> called = Called(np.array([7, 5]))
        >>> called.realign([1, -1, 0])
        >>> called.times.tolist()
        [5, 0, 7]
    """

    def realign(self, places: list[int]) -> None:
        """Carry all over to a new layer set.

        Args:
            places: for each of its parameters, the index in the old one, or -1.
        """
        for name, blank in _list_kept(type(self)):  # type: ignore[arg-type]
            kept = getattr(self, name)
            carried = np.append(kept, blank)[places] if kept.size else np.full(len(places), blank)
            setattr(self, name, carried)


@lru_cache
def _list_kept(cls: type[PerParam]) -> tuple[tuple[str, Any], ...]:
    """Names of the fields that ``keep_param`` made, with what a new parameter has."""
    rows = fields(cls)  # type: ignore[arg-type]
    return tuple((row.name, row.metadata["blank"]) for row in rows if "blank" in row.metadata)
