"""Frames of a TensorBoard event file: reading, and writing without a thread.

A frame is ``length (uint64) | masked CRC32C of the length | data | masked CRC32C of the data``.
TensorBoard's own writer computes the checksum byte by byte in Python (10 ms for a record of 1,000
layers, on the training's interpreter lock); here it is a table look-up over the whole record.
"""

from __future__ import annotations

import os
import socket
import stat
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
_BLOCK = 256  # bytes that one table look-up covers; the table takes 256 KiB
_CHUNK = 128 * _BLOCK  # bytes looked up at once: the indices stay in the processor's cache
_FEW = 64  # bytes from which numpy takes less time than a loop
_START = 0xFFFFFFFF
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CHECKSUM.size
MAX_FRAME_BYTES = 64 << 20
"""A record of 100,000 layers takes 8 MB; a frame longer than this is read by nobody here."""

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


@lru_cache(maxsize=4096)
def _header_is_sound(header: bytes) -> bool:
    length, checksum = header[: _LENGTH.size], header[_LENGTH.size :]
    return masked(crc32c(length)) == int(_CHECKSUM.unpack(checksum)[0])


def make_frame(data: bytes) -> bytes:
    """Bytes as one frame of an event file.

    Args:
        data: a serialised event.

    Example:
        >>> len(make_frame(b"abc"))  # 12 bytes before, 4 behind
        19
    """
    length = _LENGTH.pack(len(data))
    head = length + _CHECKSUM.pack(masked(crc32c(length)))
    return b"".join((head, data, _CHECKSUM.pack(masked(crc32c(data)))))


class EventFile:
    """An event file of our own: each frame is handed to the operating system at once.

    So a killed process loses nothing that was written, and there is no thread that a fork or an
    interpreter exit could catch half-way. A process that was forked has only a copy, and writes
    nothing through it.

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
        self._process = os.getpid()
        weakref.finalize(self, self._file.close)  # a watch that nobody detached
        self._lock = threading.Lock()  # a callback may write from another thread

    @property
    def is_deleted(self) -> bool:
        """Whether the file was deleted while it is open: what is written to it is lost."""
        with self._lock:
            return not self._file.closed and os.fstat(self._file.fileno()).st_nlink == 0

    def append(self, data: bytes) -> None:
        """Write one serialised event; nothing once the file is closed.

        Args:
            data: of the event.

        Raises:
            OSError: the frame could not be written whole; the file is as it was before.
        """
        if os.getpid() != self._process:
            return
        whole = make_frame(data)
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
class EventFrame:
    """Where a frame's data stands in its file, and the beginning of the data.

    Attributes:
        offset: of the data, bytes.
        length: of the data, bytes.
        head: its first bytes.
        is_sound: the checksum of the data is right.
    """

    offset: int
    length: int
    head: bytes
    is_sound: bool = True

    @property
    def position(self) -> int:
        """Byte at which the frame itself begins."""
        return self.offset - _HEADER_BYTES


class DamageError(Exception):
    """An event file stopped making sense; what came before it is good."""


def scan_frames(path: Path, head_bytes: int) -> Iterator[EventFrame]:
    """Go through a file's frames, checking both checksums of each.

    The file may be growing: it is read up to its size at the start, and a last frame that is not
    whole yet ends the scan without complaint. A frame of more than ``MAX_FRAME_BYTES``, which
    gradwatch never writes, is stepped over and not checked.

    Args:
        path: of the file.
        head_bytes: how many of each frame's first bytes are kept.

    Raises:
        DamageError: a header's checksum is wrong, so that nothing behind it can be found; every
            frame before has been yielded.
        OSError: the file cannot be read, or is none (a pipe, a socket, a device, a directory).
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        position = 0
        while position + _HEADER_BYTES <= size:
            header = file.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES or not _header_is_sound(header):
                raise DamageError(f"damaged at byte {position}")
            length = int(_LENGTH.unpack_from(header)[0])
            offset = position + _HEADER_BYTES
            position = offset + length + _CHECKSUM.size
            if position > size:
                break
            head, is_sound = _read_data(file, length, head_bytes)
            yield EventFrame(offset, length, head, is_sound)
            file.seek(position)


def _open_regular(path: Path) -> BinaryIO:
    """Open a regular file and nothing else: opening a pipe would wait for its other end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("expected a regular file, got a pipe, a socket, a device or a directory")
    return path.open("rb", buffering=1 << 16)


def _read_data(file: BinaryIO, length: int, head_bytes: int) -> tuple[bytes, bool]:
    if length > MAX_FRAME_BYTES:
        return file.read(head_bytes), True
    data = file.read(length)
    stored = file.read(_CHECKSUM.size)
    is_sound = len(stored) == _CHECKSUM.size and masked(crc32c(data)) == _unpack_checksum(stored)
    return data[:head_bytes], is_sound


def _unpack_checksum(stored: bytes) -> int:
    return int(_CHECKSUM.unpack(stored)[0])
