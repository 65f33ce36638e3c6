"""Rows of numbers as one float32 vector, in which a row of equal numbers takes one.

Most statistics of a step are the same everywhere: not measured, or zero. The first number marks the
form, the second is a checksum of what follows: TensorBoard's own reader hands over what is damaged
as well. The bits of the next say which rows are equal, 24 rows a number.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

_MARK, _UNCHECKED_MARK = -3.0, -2.0
"""The form with a checksum, and the one before it, which had none. Logs of schema 1 hold all
numbers, and begin with a count."""

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
        >>> packed[2:].tolist()  # the rows that are equal as bits, the head, the rows
        [1.0, 7.0, 0.0, 1.0, 2.0]
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
    with np.errstate(over="ignore", under="ignore"):
        body = np.concatenate((masks, head, *stored)).astype(np.float32)
    return np.concatenate(((_MARK, _sum_up(body)), body)).astype(np.float32)


def _sum_up(body: Float32) -> int:
    """CRC-32 without its last bits: what a float32 holds exactly."""
    return zlib.crc32(body.astype("<f4", copy=False).tobytes()) >> (32 - _BITS)


def is_intact(vector: Float32) -> bool:
    """Whether a packed vector is as it was written; True where its form has no checksum.

    Args:
        vector: float32 ``(n_packed,)``.

    Example:
        >>> packed = pack_rows(np.array([7.0]), (np.zeros(3),))
        >>> is_intact(packed), is_intact(np.append(packed[:-1], np.float32(1e-30)))
        (True, False)
    """
    if vector.ndim != 1 or vector.size < 2 or vector[0] != _MARK:
        return True
    return bool(vector[1] == _sum_up(vector[2:]))


def unpack_rows(vector: Float32, head: int, widths: Sequence[int]) -> Float32:
    """All numbers, one row after another; a vector of another form or length, or one that is
    damaged, as it is.

    Args:
        vector: as ``pack_rows`` made it.
        head: numbers before the rows.
        widths: numbers of each row.
    """
    if vector.ndim != 1 or not vector.size or vector[0] not in (_MARK, _UNCHECKED_MARK):
        return vector
    first = 2 if vector[0] == _MARK else 1
    begin = first + _count_masks(len(widths))
    if vector.size < begin or not np.isfinite(vector[first:begin]).all() or not is_intact(vector):
        return vector
    masks = tuple(int(mask) for mask in vector[first:begin])
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
