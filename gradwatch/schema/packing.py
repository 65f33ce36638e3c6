"""Rows of numbers as one float32 vector, in which a row of equal numbers takes one.

Most statistics of a step are the same everywhere: not measured, or zero. The bits of the numbers
behind the first say which rows these are, 24 rows a number; the first marks the form.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

_MARK = -2.0
"""Logs of schema 1 hold all numbers, and begin with a count."""

_BITS = 24  # that a float32 holds exactly

_KEPT_NUMBERS = 4096
"""Numbers of a record whose places are kept for the next one of the same form: 2 MB in all."""


def pack_rows(head: npt.NDArray[np.float64], rows: Sequence[npt.NDArray[np.float64]]) -> Float32:
    """``head`` as it is, then the rows.

    Args:
        head: numbers of the step, ``(n,)``.
        rows: one array per statistic, of any lengths; one of equal numbers takes one.

    Returns:
        float32 ``(n_packed,)``; what float32 cannot hold is infinite or 0.

    Example:
        >>> packed = pack_rows(np.array([7.0]), (np.zeros(3), np.array([1.0, 2.0])))
        >>> packed.tolist()  # the mark, the rows that are equal as bits, the head, the rows
        [-2.0, 1.0, 7.0, 0.0, 1.0, 2.0]
        >>> unpack_rows(packed, 1, (3, 2)).tolist()
        [7.0, 0.0, 0.0, 0.0, 1.0, 2.0]
    """
    with np.errstate(over="ignore", under="ignore"):
        narrow = [row.astype(np.float32) for row in rows]
    equal = [_are_equal(row) for row in narrow]
    masks = [
        sum(1 << place for place, is_equal in enumerate(equal[start : start + _BITS]) if is_equal)
        for start in range(0, _count_masks(len(rows)) * _BITS, _BITS)
    ]
    stored = (row[:1] if same else row for row, same in zip(narrow, equal, strict=True))
    return np.concatenate(((_MARK, *masks), head, *stored)).astype(np.float32)


def unpack_rows(vector: Float32, head: int, widths: Sequence[int]) -> Float32:
    """All numbers, one row after another; a vector of another form or length as it is.

    Args:
        vector: as ``pack_rows`` made it.
        head: numbers before the rows.
        widths: numbers of each row.
    """
    begin = 1 + _count_masks(len(widths))
    if vector.ndim != 1 or vector.size < begin or vector[0] != _MARK:
        return vector
    if not np.isfinite(vector[1:begin]).all():
        return vector
    masks = tuple(int(mask) for mask in vector[1:begin])
    is_small = sum(widths) <= _KEPT_NUMBERS
    find = _find_places if is_small else _find_places.__wrapped__
    places, size = find(masks, head, tuple(widths))
    return vector if vector.size != begin + size else vector[begin:].take(places)


@lru_cache(maxsize=64)
def _find_places(
    masks: tuple[int, ...], head: int, widths: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], int]:
    """Where each number of the full form stands in the packed one, and the packed one's size."""
    is_equal = np.array([masks[i // _BITS] >> i % _BITS & 1 for i in range(len(widths))], bool)
    wide = np.array(widths, np.int64)
    sizes = np.where(is_equal, np.minimum(wide, 1), wide)
    first = np.arange(wide.sum()) - np.repeat(np.cumsum(wide) - wide, wide)  # within its row
    within = np.where(np.repeat(is_equal, wide), 0, first)
    rows = head + np.repeat(np.cumsum(sizes) - sizes, wide) + within
    return np.concatenate((np.arange(head), rows)), head + int(sizes.sum())


def _count_masks(n_rows: int) -> int:
    return max(-(-n_rows // _BITS), 1)


def _are_equal(row: Float32) -> bool:
    """Bit by bit, so that NaN equals NaN; an empty row is not."""
    bits = row.view(np.uint32)
    return bool(bits.size and (bits == bits[0]).all())
