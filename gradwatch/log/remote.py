"""Log directories that are not on this machine: whatever fsspec reaches, by way of a copy here.

Object stores cannot append. What is written goes to a file here, which is copied as a whole from
time to time; what is read is copied here first.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path, PurePosixPath
from typing import Any

from gradwatch.errors import InvalidInput, NothingToJudge
from gradwatch.log.event_file import EventFile

UPLOAD_SECONDS = 30.0
"""A file is copied at most this often while it is written, and once more when it is closed: a
killed process loses what came after the last copy."""


def is_remote(logdir: str | os.PathLike[str]) -> bool:
    """Whether this is an address such as ``s3://bucket/run`` and no path.

    Args:
        logdir: as a user gives it.
    """
    return "://" in os.fspath(logdir)


def fetch_logdir(url: str) -> Path:
    """A copy of the event files below an address, kept until the process ends.

    Args:
        url: of a directory, or of one event file.

    Returns:
        Where the copy lies, under the same last name.

    Raises:
        InvalidInput: nothing here reads such an address.
        NothingToJudge: there is nothing, or it cannot be read.
    """
    files, root = open_filesystem(url)
    folder = Path(tempfile.mkdtemp(prefix="gradwatch-"))
    atexit.register(_remove, folder, os.getpid())
    place = folder / (PurePosixPath(root).name or "runs")
    try:
        found = [path for path in files.find(root) if "tfevents" in PurePosixPath(path).name]
        for path in found:
            _fetch_file(files, path, place, PurePosixPath(path).relative_to(root).parts)
    except Exception as error:  # of whatever network it is
        raise NothingToJudge(
            f"Expected a log directory that can be read, got {url!r} ({type(error).__name__}: "
            f"{error}). Check the address and the credentials of its file system."
        ) from error
    if not found:
        raise NothingToJudge(
            f"Expected event files under {url!r}, got none. "
            "Give the directory that was passed as logdir."
        )
    return place


def _remove(folder: Path, process: int) -> None:
    """By the process that has made it, and not by one that was forked."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _fetch_file(files: Any, path: str, place: Path, parts: tuple[str, ...]) -> None:
    if ".." in parts:  # a key of an object store may hold anything
        return
    target = place.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    files.get_file(path, str(target))


def open_filesystem(url: str) -> tuple[Any, str]:
    """What reads and writes below an address, and its path there.

    Args:
        url: of any protocol that fsspec knows.

    Raises:
        InvalidInput: fsspec is missing, or what it needs for this protocol.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise InvalidInput(
            f"Expected a directory of this machine, got {url!r}, which needs fsspec. "
            'Install it: pip install "gradwatch[remote]".'
        ) from error
    try:
        files, path = url_to_fs(url)
    except Exception as error:  # an unknown protocol, a package for it that is missing
        raise InvalidInput(
            f"Expected an address that fsspec can open, got {url!r} ({error}). "
            "Install what reads it, such as s3fs for s3:// or gcsfs for gs://."
        ) from error
    return files, str(path)


class RemoteEventFile(EventFile):
    """An event file that is copied to an address; the training never waits for a copy but the last.

    Args:
        url: of the run's directory.

    Raises:
        InvalidInput: nothing here writes to such an address.
        OSError: it cannot be written.
    """

    def __init__(self, url: str) -> None:
        self._files, self._target = open_filesystem(url)
        self._folder = Path(tempfile.mkdtemp(prefix="gradwatch-"))
        super().__init__(self._folder)
        self._upload: threading.Thread | None = None
        self._uploaded_at = time.monotonic()
        try:
            self._copy()
        except OSError:
            _remove(self._folder, self._process)
            raise

    def append(self, data: bytes) -> None:
        """Write one serialised event here, and begin a copy if the last one is old.

        Args:
            data: of the event.
        """
        super().append(data)
        is_running = self._upload is not None and self._upload.is_alive()
        is_due = time.monotonic() - self._uploaded_at >= UPLOAD_SECONDS
        if is_due and not is_running and os.getpid() == self._process:
            self._uploaded_at = time.monotonic()
            self._upload = threading.Thread(target=self._try_to_copy, daemon=True)
            self._upload.start()

    def close(self) -> None:
        """Copy the whole file for the last time.

        Raises:
            OSError: it could not be copied; the file that stays here is named.
        """
        super().close()
        if os.getpid() != self._process or not self.path.exists():
            return
        if self._upload is not None:
            self._upload.join()
        self._copy()
        _remove(self._folder, self._process)

    def _copy(self) -> None:
        try:
            self._files.makedirs(self._target, exist_ok=True)
            self._files.put_file(str(self.path), f"{self._target}/{self.path.name}")
        except Exception as error:  # of whatever network it is
            raise OSError(
                f"{self.path} could not be copied to {self._target} ({type(error).__name__}: "
                f"{error})"
            ) from error

    def _try_to_copy(self) -> None:
        """The next copy holds everything again: one that fails in between loses nothing."""
        try:
            self._copy()
        except OSError:
            return
