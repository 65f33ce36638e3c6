"""Runs found under a log directory, and their records as one training made them."""

from __future__ import annotations

import dataclasses
import heapq
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto import event_pb2

from gradwatch.errors import NothingToJudge, UnreadableLog
from gradwatch.log.event_file import DamageError, Frame, scan_frames
from gradwatch.log.resume import Entry, drop_overwritten, split_streams
from gradwatch.log.summaries import (
    RECORD_PREFIX,
    TAG_PREFIX,
    TRIALS_TAG,
    StoredTensor,
    read_tensors,
    read_texts,
    read_trials,
    unpack_layer_set,
    unpack_units,
)
from gradwatch.log.trial_summaries import unpack_trials
from gradwatch.records import LayerSet, StepRecord
from gradwatch.verdict.trials import Trial

_HEAD_BYTES = 512  # wall time, step and tag stand at the beginning of an event
_RECORD_TAG = re.compile(re.escape(RECORD_PREFIX.encode()) + rb"([0-9a-f]{8})")
_TEXT_PLUGIN = b"\x0a\x04text"  # PluginData.plugin_name, as it is serialised
_WANTED = (_TEXT_PLUGIN, TRIALS_TAG.encode())  # besides records
_WALL_TIME = struct.Struct("<d")
_WALL_TIME_KEY, _STEP_KEY = 0x09, 0x10  # field 1 as fixed64, field 2 as varint


@dataclass(frozen=True)
class StoredText:
    """One Markdown text that gradwatch wrote."""

    global_step: int
    tag: str
    markdown: str


@dataclass(frozen=True)
class Run:
    """One run: a directory with event files (TensorBoard's notion), or one watch's share of it.

    Attributes:
        name: the directory relative to the log directory, with ``/``; ``"."`` for itself.
        path: the directory.
        entries: its records, de-duplicated, in the order of training.
        written: its records as written, for the layer sets.
        text_entries: what may be a text or a trial of ours.
        damage: what could not be read, in words; records before it are there.
    """

    name: str
    path: Path
    entries: tuple[Entry, ...] = ()
    written: tuple[Entry, ...] = ()
    text_entries: tuple[Entry, ...] = ()
    damage: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def first_step(self) -> int | None:
        """Global step of the first record; ``None`` without records."""
        return self.entries[0].global_step if self.entries else None

    @property
    def last_step(self) -> int | None:
        """Global step of the last record; ``None`` without records."""
        return self.entries[-1].global_step if self.entries else None

    @property
    def label(self) -> str:
        """The name as people say it: where TensorBoard says ``"."``, the directory's own."""
        if self.name.partition("#")[0] != ".":
            return self.name
        return self.path.resolve().name + self.name[1:]

    def records(self) -> Iterator[StepRecord]:
        """The records in order of training; read anew from the files at each call.

        Raises:
            UnreadableLog: a record is damaged, or nothing says what its numbers mean.
        """
        sets: dict[str, LayerSet] = {}
        for entry, event in _read_events(self.entries):
            if entry.digest not in sets:
                sets[entry.digest] = self._read_layer_set(entry.digest)
            yield _decode_record(event, sets[entry.digest], self.name)

    @property
    def texts(self) -> tuple[StoredText, ...]:
        """The Markdown texts that gradwatch wrote, in the order of writing."""
        return tuple(
            StoredText(event.step, tag, markdown)
            for _, event in _read_events(self.text_entries)
            for tag, markdown in read_texts(event)
        )

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The remedies that were tried on this run's model, best first; the latest attempt's.

        Raises:
            UnreadableLog: they are damaged.
        """
        packed = b""
        for _, event in _read_events(self.text_entries):
            packed = next(read_trials(event), packed)
        return unpack_trials(packed) if packed else ()

    def _read_layer_set(self, digest: str) -> LayerSet:
        """Its first record carries it, also when a resume dropped that record."""
        candidates = [one for one in self.written if one.digest == digest]
        for _, event in _read_events(candidates):
            for tensor in read_tensors(event):
                if tensor.content:
                    return unpack_layer_set(tensor.content)
        raise UnreadableLog(
            f"Expected the layer names of record {digest} in run {self.name!r}, got records "
            "without them. Keep all event files of a run together."
        )


def _decode_record(event: event_pb2.Event, layer_set: LayerSet, run: str) -> StepRecord:
    record: StepRecord | None = None
    units: StoredTensor | None = None
    for tensor in read_tensors(event):
        if tensor.is_units:
            units = tensor
        else:
            record = StepRecord.from_vector(event.step, layer_set, tensor.values)
    if record is None:
        raise UnreadableLog(
            f"Expected a gradwatch record at step {event.step} of run {run!r}, got an event "
            "without one. The event file is damaged; run the training again."
        )
    if units is None:
        return record
    return dataclasses.replace(record, histograms=unpack_units(layer_set, units.values))


def _read_events(entries: Sequence[Entry]) -> Iterator[tuple[Entry, event_pb2.Event]]:
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


def read_runs(logdir: str | os.PathLike[str]) -> list[Run]:
    """All runs at and below ``logdir``, by name; those without gradwatch records too.

    Reads the beginning of every event, not the records; a log that is being written may be read.
    ``logdir`` may also be a single event file.

    Raises:
        NothingToJudge: there is no such directory or file.
    """
    root = Path(logdir).expanduser()
    if root.is_file():
        return _read_run(".", root.parent, [root])
    if not root.is_dir():
        raise NothingToJudge(
            f"Expected a log directory, got {str(root)!r}, which does not exist. "
            "Give the directory that was passed as logdir."
        )
    found = sorted(_find_directories(root), key=lambda pair: pair[0].parts)
    return [run for path, files in found for run in _read_run(_name_run(path, root), path, files)]


def _find_directories(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    seen: set[str] = set()
    for here, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        files = [Path(here, name) for name in sorted(names) if "tfevents" in name]
        if files:
            yield Path(here), files


def _name_run(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _read_run(name: str, path: Path, files: Sequence[Path]) -> list[Run]:
    scans = [_scan_file(one) for one in files]
    damage = tuple(problem for _, problem in scans if problem)
    order = list(heapq.merge(*(entries for entries, _ in scans), key=lambda one: one.wall_time))
    texts = tuple(one for one in order if not one.digest)
    records = [one for one in order if one.digest]
    streams = split_streams(records) or [[]]
    return [
        Run(
            name=f"{name}#{place}" if place > 1 else name,
            path=path,
            entries=tuple(drop_overwritten(stream)),
            written=tuple(stream),
            text_entries=texts,
            damage=damage,
        )
        for place, stream in enumerate(streams, start=1)
    ]


def _scan_file(path: Path) -> tuple[list[Entry], str]:
    """Entries of gradwatch's in a file, and what stopped the reading early, if anything did."""
    entries: list[Entry] = []
    try:
        for frame in scan_frames(path, _HEAD_BYTES):
            entry = _read_head(path, frame)
            if entry is not None:
                entries.append(entry)
    except (DamageError, OSError) as error:
        return entries, f"{path.name}: {error}"
    return entries, ""


def _read_head(path: Path, frame: Frame) -> Entry | None:
    if TAG_PREFIX.encode() not in frame.head:
        return None
    match = _RECORD_TAG.search(frame.head)
    wanted = match is not None or any(one in frame.head for one in _WANTED)
    if not wanted and frame.length <= len(frame.head):
        return None
    wall_time, step = _read_stamp(frame.head)
    digest = match.group(1).decode() if match else ""
    return Entry(path, frame.offset, frame.length, wall_time, step, digest)


def _read_stamp(head: bytes) -> tuple[float, int]:
    """Wall time and step, which lead every serialised event; 0 is left out of it."""
    wall_time, position = 0.0, 0
    if head[0] == _WALL_TIME_KEY:
        wall_time, position = _WALL_TIME.unpack_from(head, 1)[0], 1 + _WALL_TIME.size
    if head[position] != _STEP_KEY:
        return wall_time, 0
    step, shift = 0, 0
    for byte in head[position + 1 :]:
        step |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return wall_time, step
