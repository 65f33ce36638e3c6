"""TensorBoard event files as the one store of a run: ``EventLog`` writes, ``read_runs`` reads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2

from gradwatch.errors import InvalidInput
from gradwatch.log.event_file import EventFile
from gradwatch.log.reader import Run, StoredText, read_runs
from gradwatch.log.remote import RemoteEventFile, is_remote
from gradwatch.log.sessions import close_session, open_session
from gradwatch.log.shared_writer import add_event_to, can_write, find_directory, find_writer
from gradwatch.log.summaries import (
    pack_layer_set,
    summarise_mark,
    summarise_record,
    summarise_scalars,
    summarise_text,
    summarise_trials,
)
from gradwatch.log.trial_summaries import pack_trials
from gradwatch.records import LayerSet, StepRecord
from gradwatch.run_marks import RunDescription, RunEnd, RunGap, RunHeader
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.trials import Trial

__all__ = ["EventLog", "Run", "StoredText", "read_runs"]

_FILE_VERSION = "brain.Event:2"  # what every event file must begin with


class EventLog:
    """Writes records, scalars and texts of one run.

    With ``logdir`` it writes an event file of its own. With ``writer`` it writes through someone
    else's file and opens none: TensorBoard reads two files of a directory one after the other, so a
    second writer there would drop or reorder the owner's points.

    Args:
        logdir: the run's directory; made when it is missing, ``~`` is the home directory. An
            address such as ``s3://bucket/run`` is written through fsspec.
        writer: a ``SummaryWriter``, its ``file_writer``, a TensorBoard ``EventFileWriter`` or a
            logger with an ``experiment`` (Lightning's ``TensorBoardLogger``). A dummy that
            Lightning hands out on other ranks, or ``None``, swallows everything.

    Raises:
        InvalidInput: the directory cannot be written, or the writer cannot write events.
    """

    def __init__(
        self, logdir: str | os.PathLike[str] | None = None, *, writer: object = None
    ) -> None:
        self._logdir = "" if logdir is None else os.fspath(logdir)
        self._file = None if logdir is None else _open_file(self._logdir)
        self._writer = None if self._file else writer
        if self._writer is not None and not can_write(self._writer):
            raise InvalidInput(
                "Expected a writer with add_event or add_summary (a SummaryWriter, its "
                f"file_writer, a TensorBoardLogger), got {type(writer).__name__}. "
                "Pass logdir=... instead to have gradwatch write a file of its own."
            )
        self._described: set[str] = set()
        self._latest: tuple[LayerSet | None, str] = (None, "")
        self._header: RunHeader | None = None
        self._made = 0  # records of the session, written or not
        self._gap: RunGap | None = None
        self.notices: list[str] = []

    def begin(self, thresholds: Thresholds, description: RunDescription) -> RunHeader:
        """Write the start mark; from here on records are numbered.

        Args:
            thresholds: in force.
            description: what is trained.
        """
        self._header = open_session(self, self._find_directory(), thresholds, description)
        self._write(description.first_step, [summarise_mark(self._header)])
        return self._header

    def end(self, how: str, detail: str, last_step: int, unstepped: int = 0) -> None:
        """Write the end mark, where there was a start.

        Args:
            how: one of the ways in which a run ends, see ``RunEnd``.
            detail: in words, such as an exception; may be empty.
            last_step: global step of the newest record.
            unstepped: steps' worth of backward passes after it.
        """
        if self._header is None:
            return
        self._open_again_if_deleted()
        self._write_gap()
        end = RunEnd(self._header.session, how, detail, self._made, last_step, unstepped)
        self._write(last_step, [summarise_mark(end)])

    def write_record(self, record: StepRecord) -> None:
        """Write one sampled step as one event; the layer set goes along with its first record.

        A record that could not be written is lost; the next one is written behind a mark of the
        gap.

        Args:
            record: newer than all before.

        Raises:
            OSError: the disk is full, or gone; whatever a shared writer raises.
        """
        number, self._made = self._made, self._made + 1
        try:
            self._open_again_if_deleted()
            self._write_gap()
            self._append_record(record, number)
        except Exception as error:
            self._note_gap(number, f"{type(error).__name__}: {error}")
            raise

    def _append_record(self, record: StepRecord, number: int) -> None:
        digest = self._name_set(record.layer_set)
        is_first = digest not in self._described
        content = pack_layer_set(record.layer_set) if is_first else b""
        label = f"{self._header.session}:{number}" if self._header else ""
        self._write(record.global_step, summarise_record(record, digest, content, label))
        self._described.add(digest)

    def write_scalars(self, global_step: int, scalars: Mapping[str, float]) -> None:
        """Write run-level numbers; those that are NaN are left out.

        Args:
            global_step: that they belong to.
            scalars: by tag.
        """
        self._write(global_step, summarise_scalars(scalars))

    def write_text(self, global_step: int, tag: str, markdown: str) -> None:
        """Write Markdown for the Text tab.

        Args:
            global_step: that it belongs to.
            tag: begins with ``gradwatch/``.
            markdown: the text.
        """
        self._write(global_step, [summarise_text(tag, markdown)])

    def write_trials(self, global_step: int, trials: Sequence[Trial]) -> None:
        """Write what remedies did on copies of the model; the trials written last count.

        Args:
            global_step: at which the copies were made.
            trials: best first.
        """
        self._write(global_step, [summarise_trials(pack_trials(trials))])

    def flush(self) -> None:
        """Have a shared writer put on disk what it holds; a file of our own holds nothing back."""
        target = find_writer(self._writer)
        flush = getattr(target, "flush", None)
        if callable(flush):
            flush()

    def close(self) -> None:
        """Close a file of our own; a shared writer is flushed and stays its owner's."""
        close_session(self)
        if self._file is not None:
            self._file.close()
        else:
            self.flush()

    def _find_directory(self) -> str | None:
        if self._file is not None:
            return str(self._file.path.parent)
        return find_directory(self._writer)

    def _note_gap(self, number: int, reason: str) -> None:
        if self._header is not None:
            first = number if self._gap is None else self._gap.first
            self._gap = RunGap(self._header.session, first, number, reason)

    def _write_gap(self) -> None:
        if self._gap is not None:
            self._write(0, [summarise_mark(self._gap)])
            self._gap = None

    def _open_again_if_deleted(self) -> None:
        """Someone may have cleaned up below a running training: begin another file, and say so."""
        if self._file is None or not self._file.is_deleted:
            return
        if self._header is not None and self._made > 1:
            last = self._made - 2
            self._gap = RunGap(self._header.session, 0, last, "the event file was deleted")
        file = _begin_file(self._logdir)
        self._file.close()
        self._file = file
        self._described.clear()
        if self._header is not None:
            self._write(self._header.description.first_step, [summarise_mark(self._header)])
        self.notices.append(
            f"The event file in {self._logdir!r} was deleted while gradwatch wrote to it; its "
            "earlier records are lost, and a new file was begun."
        )

    def _name_set(self, layer_set: LayerSet) -> str:
        """The set's digest, computed once while the set stays the same object."""
        known, digest = self._latest
        if known is not layer_set:
            digest = layer_set.digest
            self._latest = (layer_set, digest)
        return digest

    def _write(self, global_step: int, values: Iterable[summary_pb2.Summary.Value]) -> None:
        summary = summary_pb2.Summary(value=values)
        if not summary.value:
            return
        event = event_pb2.Event(wall_time=time.time(), step=int(global_step), summary=summary)
        if self._file is not None:
            self._file.append(event.SerializeToString())
        else:
            add_event_to(find_writer(self._writer), event)


def _open_file(logdir: str) -> EventFile:
    try:
        return _begin_file(logdir)
    except InvalidInput:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no home directory for "~"
        raise InvalidInput(
            f"Expected a logdir that can be written, got {logdir!r} ({error}). "
            "Choose another directory, or mend its permissions."
        ) from error


def _begin_file(logdir: str) -> EventFile:
    """A new event file with the event that every one begins with."""
    file = RemoteEventFile(logdir) if is_remote(logdir) else EventFile(Path(logdir).expanduser())
    source = event_pb2.SourceMetadata(writer="gradwatch.log.writer")
    event = event_pb2.Event(
        wall_time=time.time(), file_version=_FILE_VERSION, source_metadata=source
    )
    file.append(event.SerializeToString())
    return file
