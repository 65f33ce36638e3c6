"""Sessions: one watch each, with a name of its own; which are open, and what stood there before."""

from __future__ import annotations

import os
import platform
import time
import weakref
from typing import Any

from gradwatch.run_marks import RunDescription, RunHeader
from gradwatch.thresholds import Thresholds

_CLOCK_SLACK_SECONDS = 2.0  # file systems round the time of a file
_open: weakref.WeakKeyDictionary[Any, tuple[str, str]] = weakref.WeakKeyDictionary()
"""Logs that are open in this process: the place, and the session."""


def open_session(
    log: object,
    directory: str | os.PathLike[str] | None,
    thresholds: Thresholds,
    description: RunDescription,
) -> RunHeader:
    """The start mark of a new session, named at random (not from a training's generators).

    Args:
        log: what writes it; the session counts as open until ``close_session(log)``.
        directory: of the event files; ``None`` when it is not known.
        thresholds: in force.
        description: what is trained.
    """
    place = "" if directory is None else os.path.realpath(directory)
    times = [] if directory is None else _list_times(directory)
    header = RunHeader(
        session=os.urandom(4).hex(),
        started_at=time.time(),
        python_version=platform.python_version(),
        thresholds=thresholds,
        description=description,
        files_before=len(times),
        beside=tuple(session for where, session in _open.values() if where == place),
        is_clock_back=max(times, default=0.0) > time.time() + _CLOCK_SLACK_SECONDS,
    )
    _open[log] = (place, header.session)
    return header


def close_session(log: object) -> None:
    """The log is closed; harmless when it has no session.

    Args:
        log: as it was given to ``open_session``.
    """
    _open.pop(log, None)


def _list_times(directory: str | os.PathLike[str]) -> list[float]:
    """When the event files that are there were last written."""
    try:
        with os.scandir(directory) as found:
            return [file.stat().st_mtime for file in found if "tfevents" in file.name]
    except OSError:
        return []
