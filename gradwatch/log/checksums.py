"""Checksums of a frame: CRC-32C, as a table look-up over many bytes at once.

TensorBoard's own writer computes them byte by byte in Python: 10 ms for a record of 1,000 layers,
on the training's interpreter lock.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bit-reversed: RFC 3720, appendix B.4
_MASK_DELTA = 0xA282EAD8  # added by the frame format, so that a checksum of checksums stays safe
_BLOCK = 256  # bytes that one table look-up covers; the table takes 256 KiB
_CHUNK = 128 * _BLOCK  # bytes looked up at once: the indices stay in the processor's cache
_FEW = 64  # bytes from which numpy takes less time than a loop
_START = 0xFFFFFFFF


@lru_cache(maxsize=1)
def _powers() -> npt.NDArray[np.uint32]:
    """``(_BLOCK, 256)``: what a byte adds to the checksum, by its place within a block."""
    byte = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        byte = (byte >> np.uint32(1)) ^ (byte & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    rows = [byte]
    for _ in range(_BLOCK - 1):
        rows.append((rows[-1] >> np.uint32(8)) ^ byte[rows[-1] & np.uint32(0xFF)])
    return np.stack(rows[::-1])


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C of bytes.

    The checksum is linear over GF(2): each byte's share follows from its value and its place, and
    the shares of a block are XORed (the idea behind "slicing by 8", with a block of 256). Long
    data goes through in chunks, so that a frame of any size takes the same memory.

    Args:
        data: of any length.

    Returns:
        32 bits.

    Source:
        RFC 3720, appendix B.4, which has the polynomial and the value below.

    Example:
        >>> hex(crc32c(bytes(32)))
        '0x8a9136aa'
    """
    state = _START
    n_whole = len(data) - len(data) % _BLOCK
    for start in range(0, n_whole, _CHUNK):
        state = _pass_blocks(data[start : min(start + _CHUNK, n_whole)], state)
    rest = data[n_whole:]
    if len(rest) >= _FEW:
        return _pass_part(rest, state) ^ _START
    table = _byte_table()
    for byte in rest:
        state = (state >> 8) ^ table[(state ^ byte) & 0xFF]
    return state ^ _START


def _pass_blocks(data: bytes | memoryview, state: int) -> int:
    """The state after whole blocks."""
    powers, leading = _powers(), _list_leading_powers()
    blocks = np.frombuffer(data, dtype=np.uint8).reshape(-1, _BLOCK)
    shares = powers.ravel().take(blocks + _places())
    for share in np.bitwise_xor.reduce(shares, axis=1).tolist():
        state = share ^ _advance(state, leading)
    return state


def _pass_part(data: bytes | memoryview, state: int) -> int:
    """The state after less than a block, of four bytes or more."""
    powers, places = _powers(), _places()[_BLOCK - len(data) :]
    shares = powers.ravel().take(places + np.frombuffer(data, dtype=np.uint8))
    share = int(np.bitwise_xor.reduce(shares))
    return share ^ _advance(state, powers[_BLOCK - len(data) :])


@lru_cache(maxsize=1)
def _places() -> npt.NDArray[np.int64]:
    return np.arange(_BLOCK) * 256


@lru_cache(maxsize=1)
def _list_leading_powers() -> tuple[list[int], ...]:
    """What ``_advance`` needs of a whole block: Python's lists take a quarter of the time."""
    return tuple(_powers()[:4].tolist())


@lru_cache(maxsize=1)
def _byte_table() -> tuple[int, ...]:
    return tuple(_powers()[-1].tolist())


def _advance(state: int, powers: npt.NDArray[np.uint32] | tuple[list[int], ...]) -> int:
    """The state after as many zero bytes as there are rows of powers, four or more."""
    if not state:
        return 0
    return int(
        powers[0][state & 0xFF]
        ^ powers[1][state >> 8 & 0xFF]
        ^ powers[2][state >> 16 & 0xFF]
        ^ powers[3][state >> 24]
    )


def masked(checksum: int) -> int:
    """A checksum as the frame holds it: rotated by 15 bits, plus a constant.

    Args:
        checksum: 32 bits.

    Source:
        TensorFlow, ``tensorflow/core/lib/hash/crc32c.h``.
    """
    rotated = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
    return (rotated + _MASK_DELTA) & 0xFFFFFFFF
