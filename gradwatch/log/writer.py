"""TensorBoard event files as the one store of a run: ``EventLog`` writes, ``read_runs`` reads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2

from gradwatch.errors import InvalidInput
from gradwatch.log.event_file import EventFile
from gradwatch.log.reader import Run, StoredText, read_runs
from gradwatch.log.summaries import (
    pack_layer_set,
    summarise_record,
    summarise_scalars,
    summarise_text,
    summarise_trials,
)
from gradwatch.log.trial_summaries import pack_trials
from gradwatch.records import LayerSet, StepRecord
from gradwatch.verdict.trials import Trial

__all__ = ["EventLog", "Run", "StoredText", "read_runs"]

_FILE_VERSION = "brain.Event:2"  # what every event file must begin with
_MAX_WRITER_DEPTH = 3  # logger -> its experiment -> its file writer


class EventLog:
    """Writes records, scalars and texts of one run.

    With ``logdir`` it writes an event file of its own. With ``writer`` it writes through someone
    else's file and opens none: TensorBoard reads two files of a directory one after the other, so a
    second writer there would drop or reorder the owner's points.

    Args:
        logdir: the run's directory; made when it is missing, ``~`` is the home directory.
        writer: a ``SummaryWriter``, its ``file_writer``, a TensorBoard ``EventFileWriter`` or a
            logger with an ``experiment`` (Lightning's ``TensorBoardLogger``). A dummy that
            Lightning hands out on other ranks, or ``None``, swallows everything.

    Raises:
        InvalidInput: the directory cannot be written, or the writer cannot write events.
    """

    def __init__(
        self, logdir: str | os.PathLike[str] | None = None, *, writer: object = None
    ) -> None:
        self._file = None if logdir is None else _open_file(logdir)
        self._writer = None if self._file else writer
        if self._writer is not None and not _can_write(self._writer):
            raise InvalidInput(
                "Expected a writer with add_event or add_summary (a SummaryWriter, its "
                f"file_writer, a TensorBoardLogger), got {type(writer).__name__}. "
                "Pass logdir=... instead to have gradwatch write a file of its own."
            )
        self._described: set[str] = set()
        self._latest: tuple[LayerSet | None, str] = (None, "")

    def write_record(self, record: StepRecord) -> None:
        """Write one sampled step as one event; the layer set goes along with its first record."""
        digest = self._name_set(record.layer_set)
        is_first = digest not in self._described
        content = pack_layer_set(record.layer_set) if is_first else b""
        self._write(record.global_step, summarise_record(record, digest, content))
        self._described.add(digest)

    def write_scalars(self, global_step: int, scalars: Mapping[str, float]) -> None:
        """Write run-level numbers by tag; those that are NaN are left out."""
        self._write(global_step, summarise_scalars(scalars))

    def write_text(self, global_step: int, tag: str, markdown: str) -> None:
        """Write Markdown for the Text tab."""
        self._write(global_step, [summarise_text(tag, markdown)])

    def write_trials(self, global_step: int, trials: Sequence[Trial]) -> None:
        """Write what remedies did on copies of the model; the trials written last count."""
        self._write(global_step, [summarise_trials(pack_trials(trials))])

    def flush(self) -> None:
        """Have a shared writer put on disk what it holds; a file of our own holds nothing back."""
        target = _find_writer(self._writer)
        flush = getattr(target, "flush", None)
        if callable(flush):
            flush()

    def close(self) -> None:
        """Close a file of our own; a shared writer is flushed and stays its owner's."""
        if self._file is not None:
            self._file.close()
        else:
            self.flush()

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
            _add_event(_find_writer(self._writer), event)


def _open_file(logdir: str | os.PathLike[str]) -> EventFile:
    text = os.fspath(logdir)
    if "://" in text:
        raise InvalidInput(
            f"Expected a directory of this machine as logdir, got {text!r}. "
            "Pass writer=SummaryWriter(...), which can write there, instead."
        )
    try:
        file = EventFile(Path(text).expanduser())
        source = event_pb2.SourceMetadata(writer="gradwatch.log.writer")
        event = event_pb2.Event(
            wall_time=time.time(), file_version=_FILE_VERSION, source_metadata=source
        )
        file.append(event.SerializeToString())
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no home directory for "~"
        raise InvalidInput(
            f"Expected a logdir that can be written, got {text!r} ({error}). "
            "Choose another directory, or mend its permissions."
        ) from error
    return file


def _can_write(writer: Any) -> bool:
    if _find_writer(writer) is not None:
        return True
    if any(hasattr(writer, name) for name in ("file_writer", "_get_file_writer")):
        return True  # a dummy: it has every attribute, and none leads to a file
    if hasattr(writer, "experiment"):  # a logger of another kind has one that takes no events
        return writer.experiment is None or _can_write(writer.experiment)
    return False


def _find_writer(writer: Any, depth: int = _MAX_WRITER_DEPTH) -> Any:
    """What takes the events: the file writer inside a SummaryWriter, a logger's, or the object.

    Asked for again at every write, since a SummaryWriter that was closed makes a new one. Dummies
    lead to ``None``.
    """
    if writer is None or depth == 0:
        return None
    reopen = getattr(writer, "_get_file_writer", None)
    if callable(reopen):
        return reopen()
    for name in ("add_event", "add_summary"):
        if callable(getattr(writer, name, None)):
            return writer
    for name in ("file_writer", "experiment"):
        found = _find_writer(getattr(writer, name, None), depth - 1)
        if found is not None:
            return found
    return None


def _add_event(target: Any, event: event_pb2.Event) -> None:
    if target is None:
        return
    add_event = getattr(target, "add_event", None)
    if callable(add_event):
        add_event(event)  # SummaryWriter's own stamps the time again and leaves the step
    else:
        target.add_summary(event.summary, event.step)
