"""Frames of a TensorBoard event file: reading, and writing without a thread.

A frame is ``length (uint64) | masked CRC32C of the length | data | masked CRC32C of the data``.
TensorBoard's own writer computes the checksum byte by byte in Python (10 ms for a record of 1,000
layers, on the training's interpreter lock); here it is a table look-up over the whole record.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bit-reversed: RFC 3720, appendix B.4
_MASK_DELTA = 0xA282EAD8  # added by the frame format, so that a checksum of checksums stays safe
_BLOCK = 512  # bytes that one table look-up covers; the table takes 512 KiB
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CHECKSUM.size
_serial = count()


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


def crc32c(data: bytes) -> int:
    """CRC-32C of ``data``.

    The checksum is linear over GF(2): each byte's share follows from its value and its place, and
    the shares of a block are XORed (the idea behind "slicing by 8", with a block of 512).
    """
    powers = _powers()
    n_blocks = max(1, -(-max(len(data), 4) // _BLOCK))
    padded = np.zeros(n_blocks * _BLOCK, dtype=np.uint8)
    start = padded.size - len(data)
    padded[start:] = np.frombuffer(data, dtype=np.uint8)
    if len(data) < 4:
        return _crc32c_short(data)
    padded[start : start + 4] ^= 0xFF  # the initial state, all ones
    places = np.arange(_BLOCK) * 256
    shares = powers.ravel().take(padded.reshape(n_blocks, _BLOCK) + places)
    state = 0
    for share in np.bitwise_xor.reduce(shares, axis=1).tolist():
        state = share ^ _advance(state, powers)
    return state ^ 0xFFFFFFFF


def _advance(state: int, powers: npt.NDArray[np.uint32]) -> int:
    """The state after a block of zero bytes."""
    if not state:
        return 0
    return int(
        powers[0, state & 0xFF]
        ^ powers[1, state >> 8 & 0xFF]
        ^ powers[2, state >> 16 & 0xFF]
        ^ powers[3, state >> 24]
    )


def _crc32c_short(data: bytes) -> int:
    table = _powers()[-1]
    state = 0xFFFFFFFF
    for byte in data:
        state = (state >> 8) ^ int(table[(state ^ byte) & 0xFF])
    return state ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    """A checksum as the frame holds it: rotated by 15 bits, plus a constant."""
    rotated = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
    return (rotated + _MASK_DELTA) & 0xFFFFFFFF


@lru_cache(maxsize=4096)
def _header_is_sound(header: bytes) -> bool:
    length, checksum = header[: _LENGTH.size], header[_LENGTH.size :]
    return masked(crc32c(length)) == int(_CHECKSUM.unpack(checksum)[0])


def frame(data: bytes) -> bytes:
    """``data`` as one frame."""
    length = _LENGTH.pack(len(data))
    head = length + _CHECKSUM.pack(masked(crc32c(length)))
    return b"".join((head, data, _CHECKSUM.pack(masked(crc32c(data)))))


class EventFile:
    """An event file of our own: each frame is handed to the operating system at once.

    So a killed process loses nothing that was written, and there is no thread that a fork or an
    interpreter exit could catch half-way.

    Raises:
        OSError: the directory or file cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        name = (
            f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}."
            f"{os.getpid()}.gradwatch.{next(_serial)}"
        )
        self.path = directory / name
        self._file = self.path.open("ab", buffering=0)
        weakref.finalize(self, self._file.close)  # a watch that nobody detached
        self._lock = threading.Lock()  # a callback may write from another thread

    def append(self, data: bytes) -> None:
        """Write one serialised event; nothing once the file is closed."""
        whole = frame(data)
        with self._lock:
            if not self._file.closed:
                self._append_whole(whole)

    def _append_whole(self, whole: bytes) -> None:
        """All or nothing: half a frame, as on a full disk, would hide every later one."""
        end = self._file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(whole)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(end)
            raise

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            self._file.close()


@dataclass(frozen=True)
class Frame:
    """Where a frame's data stands in its file, and the beginning of the data."""

    offset: int
    length: int
    head: bytes


class DamageError(Exception):
    """An event file stopped making sense; what came before it is good."""


def scan_frames(path: Path, head_bytes: int) -> Iterator[Frame]:
    """Go through a file's frames, reading only the first ``head_bytes`` of each.

    The file may be growing: it is read up to its size at the start, and a last frame that is not
    whole yet ends the scan without complaint.

    Raises:
        DamageError: a header's checksum is wrong, or that of the last frame's data; every sound
            frame before has been yielded.
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=1 << 16) as file:
        size = os.fstat(file.fileno()).st_size
        position, last, damage = 0, None, ""
        while position + _HEADER_BYTES <= size:
            header = file.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES or not _header_is_sound(header):
                damage = f"damaged at byte {position}"
                break
            length = int(_LENGTH.unpack_from(header)[0])
            offset = position + _HEADER_BYTES
            position = offset + length + _CHECKSUM.size
            if position > size:
                break
            head = file.read(min(length, head_bytes))
            file.seek(position)
            if last is not None:
                yield last
            last = Frame(offset, length, head)
        if last is not None and _data_is_sound(file, last):
            yield last
        elif last is not None:
            damage = f"damaged in the frame at byte {last.offset - _HEADER_BYTES}"
        if damage:
            raise DamageError(damage)


def _data_is_sound(file: BinaryIO, one: Frame) -> bool:
    """Check the data itself: of the last frame only, where a crash leaves blocks of zeros."""
    file.seek(one.offset)
    data, stored = file.read(one.length), file.read(_CHECKSUM.size)
    return masked(crc32c(data)) == int(_CHECKSUM.unpack(stored)[0])
