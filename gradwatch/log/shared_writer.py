"""Someone else's writer: found inside loggers and wrappers, and handed our events."""

from __future__ import annotations

from typing import Any

from tensorboard.compat.proto import event_pb2

_MAX_WRITER_DEPTH = 3  # logger -> its experiment -> its file writer


def can_write(writer: Any) -> bool:
    """Whether this is a writer that takes events, or a dummy that stands for one.

    Args:
        writer: what a user handed over.
    """
    if find_writer(writer) is not None:
        return True
    if any(hasattr(writer, name) for name in ("file_writer", "_get_file_writer")):
        return True  # a dummy: it has every attribute, and none leads to a file
    if hasattr(writer, "experiment"):  # a logger of another kind has one that takes no events
        return writer.experiment is None or can_write(writer.experiment)
    return False


def find_writer(writer: Any, depth: int = _MAX_WRITER_DEPTH) -> Any:
    """What takes the events: the file writer inside a SummaryWriter, a logger's, or the object.

    Asked for again at every write, since a SummaryWriter that was closed makes a new one.

    Args:
        writer: what a user handed over.
        depth: how many attributes are followed inwards.

    Returns:
        ``None`` where nothing takes events, as in dummies.
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
        found = find_writer(getattr(writer, name, None), depth - 1)
        if found is not None:
            return found
    return None


def add_event_to(target: Any, event: event_pb2.Event) -> None:
    """Hand over one event.

    Args:
        target: as ``find_writer`` found it; ``None`` swallows the event.
        event: with step and wall time.
    """
    if target is None:
        return
    add_event = getattr(target, "add_event", None)
    if callable(add_event):
        add_event(event)  # SummaryWriter's own stamps the time again and leaves the step
    else:
        target.add_summary(event.summary, event.step)


def find_directory(writer: Any) -> str | None:
    """Where a writer's event files lie.

    Args:
        writer: what a user handed over.

    Returns:
        ``None`` when it does not say.
    """
    for holder in (find_writer(writer), writer):
        find = getattr(holder, "get_logdir", None)
        if callable(find):
            return str(find())
    return None
