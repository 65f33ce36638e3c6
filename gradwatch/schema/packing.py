"""Rows of numbers as one float32 vector, in which a row of equal numbers takes one.

Most statistics of a step are the same everywhere: not measured, or zero. The bits of the second
number say which rows these are; the first marks the form.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

_MARK = -2.0
"""Logs of schema 1 hold all numbers, and begin with a count."""


def pack_rows(head: npt.NDArray[np.float64], rows: Sequence[npt.NDArray[np.float64]]) -> Float32:
    """``head`` as it is, then the rows; at most 24 of them, whose bits a float32 can hold."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = [row.astype(np.float32) for row in rows]
    equal = [_are_equal(row) for row in narrow]
    mask = sum(1 << place for place, one in enumerate(equal) if one)
    stored = (row[:1] if one else row for row, one in zip(narrow, equal, strict=True))
    return np.concatenate(((_MARK, mask), head, *stored)).astype(np.float32)


def unpack_rows(vector: Float32, head: int, widths: Sequence[int]) -> Float32:
    """All numbers, one row after another; a vector of another form or length as it is.

    Args:
        vector: as ``pack_rows`` made it.
        head: numbers before the rows.
        widths: numbers of each row.
    """
    if vector.ndim != 1 or vector.size < 2 or vector[0] != _MARK:
        return vector
    mask = int(vector[1])
    sizes = [min(width, 1) if mask >> i & 1 else width for i, width in enumerate(widths)]
    if vector.size != 2 + head + sum(sizes):
        return vector
    first, *rows = np.split(vector[2:], np.cumsum((head, *sizes))[:-1])
    return np.concatenate((first, *map(np.resize, rows, widths)))


def _are_equal(row: Float32) -> bool:
    """Bit by bit, so that NaN equals NaN; an empty row is not."""
    bits = row.view(np.uint32)
    return bool(bits.size and (bits == bits[0]).all())
