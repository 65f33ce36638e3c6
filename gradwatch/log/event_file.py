"""Frames of a TensorBoard event file: reading, and writing without a thread.

A frame is ``length (uint64) | masked CRC32C of the length | data | masked CRC32C of the data``.
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
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gradwatch.log.checksums import crc32c, masked

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CHECKSUM.size
MAX_FRAME_BYTES = 64 << 20
"""A record of 100,000 layers takes 8 MB; a frame longer than this is read by nobody here."""

_serial = count()


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


class EventFrame(NamedTuple):
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
