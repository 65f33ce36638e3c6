"""Event files gone through: where gradwatch's events stand, and what of the files is damaged."""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto import event_pb2

from gradwatch.errors import UnreadableLog
from gradwatch.log.event_file import MAX_FRAME_BYTES, DamageError, EventFrame, scan_frames
from gradwatch.log.resume import Entry
from gradwatch.log.summaries import (
    END_TAG,
    GAP_TAG,
    RECORD_PREFIX,
    START_TAG,
    TAG_PREFIX,
    TRIALS_TAG,
)

_HEAD_BYTES = 512  # wall time, step and tag stand at the beginning of an event
_LABEL = rb"(?:\x3a[\x0a-\x20]([0-9a-f]{8}):(\d{1,15}))?"  # Value.node_name, behind the tag
_RECORD_TAG = re.compile(b"\x0a\x19" + RECORD_PREFIX.encode() + rb"([0-9a-f]{8})" + _LABEL)
_TEXT_PLUGIN = b"\x0a\x04text"  # PluginData.plugin_name, as it is serialised
_WANTED = (_TEXT_PLUGIN, TRIALS_TAG.encode())  # besides records and marks
_MARKS = re.compile(
    b"|".join(bytes((0x0A, len(tag))) + tag.encode() for tag in (START_TAG, END_TAG, GAP_TAG))
)  # Value.tag, as it is serialised: a text may hold the same words
_OWN_FILE = ".gradwatch."  # in the name of a file that nobody else writes to
_WALL_TIME = struct.Struct("<d")
_WALL_TIME_KEY, _STEP_KEY = 0x09, 0x10  # field 1 as fixed64, field 2 as varint
_STEP_LIMIT = 1 << 63


@dataclass
class Scan:
    """What was found in event files.

    Attributes:
        entries: of gradwatch's records, in the order of the files and of writing.
        marks: of starts, ends and gaps, likewise.
        texts: of what may be a text or trials of ours, likewise.
        damage: what is damaged and ours, in words.
        foreign: what is damaged in frames of others.
        is_cut: a file could not be read to its end, so that frames of ours may be missing.
    """

    entries: list[Entry] = field(default_factory=list)
    marks: list[Entry] = field(default_factory=list)
    texts: list[Entry] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    is_cut: bool = False

    def take_file(self, path: Path) -> None:
        """Go through one file, and note what of it is gradwatch's and what is damaged.

        Args:
            path: of an event file, which may be growing.
        """
        is_silent = _OWN_FILE in path.name
        try:
            for frame in scan_frames(path, _HEAD_BYTES):
                is_silent &= not self._take_frame(path, frame)
        except (DamageError, OSError) as error:
            is_own = _OWN_FILE in path.name or isinstance(error, OSError)
            self.is_cut = True
            (self.damage if is_own else self.foreign).append(f"{path.name}: {error}")
            return
        if is_silent:  # a full disk, or a copy that was cut: not somebody else's run
            self.damage.append(f"{path.name}: ends before its first event")

    def _take_frame(self, path: Path, frame: EventFrame) -> bool:
        """Whether it is gradwatch's, or may have been."""
        is_ours = TAG_PREFIX.encode() in frame.head
        if not frame.is_sound or (is_ours and frame.length > MAX_FRAME_BYTES):
            text = f"{path.name}: damaged in the frame at byte {frame.position}"
            (self.damage if is_ours or _OWN_FILE in path.name else self.foreign).append(text)
        elif is_ours:
            self._take_event(path, frame)
        return is_ours or not frame.is_sound

    def _take_event(self, path: Path, frame: EventFrame) -> None:
        try:
            entry, kind = _read_head(path, frame)
        except (IndexError, struct.error, ValueError):
            self.damage.append(f"{path.name}: no event in the frame at byte {frame.position}")
            return
        if kind is not None:
            getattr(self, kind).append(entry)


def _read_head(path: Path, frame: EventFrame) -> tuple[Entry, str | None]:
    match = _RECORD_TAG.search(frame.head)
    wall_time, step = _read_stamp(frame.head)
    if wall_time != wall_time or not 0 <= step < _STEP_LIMIT:
        raise ValueError(f"a wall time of {wall_time} and step {step}")
    digest = match.group(1).decode() if match else ""
    session = (match.group(2) or b"").decode() if match else ""
    number = int(match.group(3)) if match and match.group(3) else -1
    entry = Entry(
        path, frame.offset, frame.length, wall_time, step, digest, session=session, number=number
    )
    return entry, "entries" if match else _choose_kind(frame)


def _choose_kind(frame: EventFrame) -> str | None:
    if _MARKS.search(frame.head):
        return "marks"
    is_wanted = any(word in frame.head for word in _WANTED)
    return "texts" if is_wanted or frame.length > len(frame.head) else None


def _read_stamp(head: bytes) -> tuple[float, int]:
    """Wall time and step, which lead every serialised event; 0 is left out of it."""
    wall_time, position = 0.0, 0
    if head[0] == _WALL_TIME_KEY:
        wall_time, position = _WALL_TIME.unpack_from(head, 1)[0], 1 + _WALL_TIME.size
    if head[position] != _STEP_KEY:
        return wall_time, 0
    step, shift = 0, 0
    for byte in head[position + 1 : position + 11]:
        step |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return wall_time, step


@dataclass(frozen=True)
class Folder:
    """A directory with event files, or one that cannot be looked into.

    Attributes:
        path: of the directory.
        files: its event files, by name.
        error: why it cannot be entered, or ``""``.
        name: of its run, TensorBoard's: relative to the log directory, with ``/``.
    """

    path: Path
    files: tuple[Path, ...] = ()
    error: str = ""
    name: str = "."

    def count_bytes(self) -> int:
        """Of its event files; 0 for one that cannot be looked at."""
        return sum(map(_measure_file, self.files))


def _measure_file(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def find_folders(root: Path) -> Iterator[Folder]:
    """Directories with event files at and below one; those that cannot be entered too.

    Args:
        root: a directory; links are followed, each directory is seen once.
    """
    seen: set[str] = set()
    failed: list[Folder] = []

    def note(error: OSError) -> None:
        failed.append(Folder(Path(error.filename or root), error=error.strerror or str(error)))

    for here, folders, names in os.walk(root, followlinks=True, onerror=note):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        strange = [
            name for name in folders if "tfevents" in name and _is_directory(Path(here, name))
        ]
        files = sorted(name for name in names if "tfevents" in name)
        failed += [
            Folder(Path(here), error=f"{name} is a directory, not an event file")
            for name in strange
        ]
        if files:
            yield Folder(Path(here), tuple(Path(here, name) for name in files))
    yield from failed


def _is_directory(path: Path) -> bool:
    """A directory named like a file that TensorBoard writes, and not merely with the word."""
    return path.name.startswith("events.out.tfevents") and stat.S_ISDIR(path.stat().st_mode)


def read_events(entries: Sequence[Entry]) -> Iterator[tuple[Entry, event_pb2.Event]]:
    """Read events one after the other; each file is opened once.

    Args:
        entries: where they stand.

    Raises:
        UnreadableLog: something else stands there.
    """
    with ExitStack() as stack:
        files: dict[Path, BinaryIO] = {}
        for entry in entries:
            if entry.path not in files:
                files[entry.path] = stack.enter_context(entry.path.open("rb"))
            file = files[entry.path]
            file.seek(entry.offset)
            try:
                yield entry, event_pb2.Event.FromString(file.read(entry.length))
            except DecodeError as error:
                raise UnreadableLog(
                    f"Expected an event at byte {entry.offset} of {entry.path}, got something "
                    f"else ({error}). The file is damaged; run the training again."
                ) from error
