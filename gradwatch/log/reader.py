"""Runs found under a log directory, and their records as one training made them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto import event_pb2

from gradwatch.errors import NothingToJudge, UnreadableLog
from gradwatch.log.entries import Folder, Scan, find_folders, read_events
from gradwatch.log.event_contents import (
    StoredTensor,
    read_mark,
    read_tensors,
    read_texts,
    read_trials,
)
from gradwatch.log.limits import (
    BYTES_PER_COLUMN,
    MAX_COLUMNS,
    count_allowed_records,
    count_columns,
    make_room,
    require_few,
    require_modest,
)
from gradwatch.log.parts import SessionChain, WrittenSession, arrange
from gradwatch.log.remote import fetch_logdir, is_remote
from gradwatch.log.resume import Entry, drop_overwritten
from gradwatch.log.summaries import unpack_layer_set, unpack_units
from gradwatch.log.trial_summaries import unpack_trials
from gradwatch.records import LayerSet, StepRecord
from gradwatch.run_marks import Mark, RunEnd, RunGap, RunHeader
from gradwatch.verdict.trials import Trial

MAX_MARKS = 4096


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
        damage: what could not be read or is missing, in words; the other records are there.
        sessions: the watches that wrote it, one after the other; the last one says how it ended.
        notes: what is worth a word and makes nothing less certain.
        columns: layers of all its records together that are unpacked at most, and columns of all
            its layer sets: a few bytes can stand for any number of them.
    """

    name: str
    path: Path
    entries: tuple[Entry, ...] = ()
    written: tuple[Entry, ...] = ()
    text_entries: tuple[Entry, ...] = ()
    damage: tuple[str, ...] = ()
    sessions: tuple[WrittenSession, ...] = ()
    notes: tuple[str, ...] = ()
    columns: int = MAX_COLUMNS

    @property
    def header(self) -> RunHeader | None:
        """The start mark of the newest watch; ``None`` in logs from before there were marks."""
        found = [session.header for session in self.sessions if session.header is not None]
        return found[-1] if found else None

    @property
    def end(self) -> RunEnd | None:
        """The end mark of the newest watch; ``None`` when it has not ended, or was killed."""
        return self.sessions[-1].end if self.sessions else None

    @property
    def gaps(self) -> tuple[RunGap, ...]:
        """Records that could not be written."""
        return tuple(gap for session in self.sessions for gap in session.gaps)

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
        """The records in order of training; read from the files again at each call.

        Raises:
            UnreadableLog: a record is damaged, or nothing says what its numbers mean.
        """
        sets: dict[str, LayerSet] = {}
        allowed = self.columns + sum(entry.length for entry in self.entries) // BYTES_PER_COLUMN
        most = count_allowed_records(self.written)
        unpacked = described = 0
        for count, (entry, event) in enumerate(read_events(self.entries), start=1):
            require_few(count, most, entry)
            if entry.digest not in sets:
                found = self._read_layer_set(entry.digest)
                described += count_columns(found)
                require_modest(described, allowed, entry)
                make_room(sets, found)
                sets[entry.digest] = found
            unpacked += count_columns(sets[entry.digest])
            require_modest(unpacked, allowed, entry)
            yield _decode_record(event, sets[entry.digest], self.name)

    @property
    def texts(self) -> tuple[StoredText, ...]:
        """The Markdown texts that gradwatch wrote, in the order of writing."""
        return tuple(
            StoredText(event.step, tag, markdown)
            for _, event in read_events(self.text_entries)
            for tag, markdown in read_texts(event)
        )

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The remedies that were tried on this run's model, best first; the latest attempt's.

        Raises:
            UnreadableLog: they are damaged.
        """
        packed = b""
        for _, event in read_events(self.text_entries):
            packed = next(read_trials(event), packed)
        return unpack_trials(packed) if packed else ()

    def _read_layer_set(self, digest: str) -> LayerSet:
        """Its first record carries it, also when a resume dropped that record."""
        candidates = [entry for entry in self.written if entry.digest == digest]
        for _, event in read_events(candidates):
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
            record = _unpack_record(event.step, layer_set, tensor.values)
    if record is None:
        raise UnreadableLog(
            f"Expected a gradwatch record at step {event.step} of run {run!r}, got an event "
            "without one. The event file is damaged; run the training again."
        )
    if units is None:
        return record
    return dataclasses.replace(record, histograms=unpack_units(layer_set, units.values))


def _unpack_record(
    global_step: int, layer_set: LayerSet, values: npt.NDArray[np.float32]
) -> StepRecord:
    try:
        return StepRecord.from_vector(global_step, layer_set, values)
    except (ValueError, OverflowError) as error:
        raise UnreadableLog(
            f"Expected a record that fits its layer set at step {global_step}, got another "
            f"({error}). The event file is damaged; run the training again."
        ) from error


def read_runs(logdir: str | os.PathLike[str]) -> list[Run]:
    """All runs at and below a directory, by name; those without gradwatch records too.

    Args:
        logdir: a directory, or a single event file; also an address of fsspec, such as ``s3://``.

    Raises:
        NothingToJudge: there is no such directory or file.
        InvalidInput: nothing here reads such an address.
    """
    return [run for folder in find_logs(logdir) for run in read_folder(folder)]


def find_logs(logdir: str | os.PathLike[str]) -> list[Folder]:
    """Where the runs at and below a directory are, by name; nothing is read.

    Args:
        logdir: as in ``read_runs``; what is on another machine is copied here.

    Raises:
        NothingToJudge: there is no such directory or file.
        InvalidInput: nothing here reads such an address.
    """
    if not os.fspath(logdir).strip():  # as of a variable that is not set: not the working directory
        raise NothingToJudge(
            f"Expected a log directory, got {os.fspath(logdir)!r}. "
            "Give the directory that was passed as logdir; '.' is the working directory."
        )
    is_here = not is_remote(logdir)
    root = Path(logdir).expanduser() if is_here else fetch_logdir(os.fspath(logdir))
    if root.is_dir():
        found = sorted(find_folders(root), key=lambda folder: folder.path.parts)
        return [
            dataclasses.replace(folder, name=folder.path.relative_to(root).as_posix())
            for folder in found
        ]
    if root.exists():
        return [Folder(root.parent, (root,))]
    raise NothingToJudge(
        f"Expected a log directory, got {str(root)!r}, which does not exist. "
        "Give the directory that was passed as logdir."
    )


def read_folder(folder: Folder) -> list[Run]:
    """The runs of one directory; one that cannot be entered is a run with damage.

    Goes through every frame and its checksums, and reads the marks, not the records; a log that is
    being written may be read.

    Args:
        folder: as ``find_logs`` found it.
    """
    if folder.error:
        return [Run(folder.name, folder.path, damage=(f"{folder.path.name}: {folder.error}",))]
    scan = Scan()
    for path in folder.files:
        scan.take_file(path)
    texts = tuple(sorted(scan.texts, key=lambda entry: entry.wall_time))
    try:
        parts = arrange(scan.entries, _read_marks(scan))
    except UnreadableLog as error:
        scan.damage.append(str(error))
        parts = [SessionChain()]
    names = [folder.name, *(f"{folder.name}#{place}" for place in range(2, len(parts) + 1))]
    return [
        _make_run(name, folder.path, part, scan, texts)
        for name, part in zip(names, parts, strict=True)
    ]


def _make_run(
    name: str, path: Path, part: SessionChain, scan: Scan, texts: tuple[Entry, ...]
) -> Run:
    missing = [text for text in (session.find_missing() for session in part.sessions) if text]
    is_whole = all(session.name and session.end for session in part.sessions) and not missing
    foreign = scan.foreign if scan.foreign and not (is_whole and part.sessions) else []
    notes = [f"{text}, in frames of others" for text in scan.foreign] if not foreign else []
    return Run(
        name=name,
        path=path,
        entries=tuple(drop_overwritten(part.written)),
        written=part.written,
        text_entries=texts,
        damage=(*scan.damage, *foreign, *missing),
        sessions=part.sessions,
        notes=tuple(notes),
    )


def _read_marks(scan: Scan) -> list[Mark]:
    """The marks of a directory; one that cannot be read is damage."""
    found: list[Mark] = []
    for entry in scan.marks[:MAX_MARKS]:
        try:
            marks = [read_mark(event) for _, event in read_events([entry])]
        except UnreadableLog as error:
            scan.damage.append(f"{entry.path.name}: {error}")
        else:
            found += [mark for mark in marks if mark is not None]
    if len(scan.marks) > MAX_MARKS:
        scan.damage.append(f"{len(scan.marks)} marks of starts and ends, more than {MAX_MARKS}")
    return found
