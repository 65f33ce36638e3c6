"""One worker process, from the side that asks it."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any

from gradwatch.workers.serving import READY, Answer

_START = (
    "import sys; sys.path[:] = sys.argv[1:]; from gradwatch.workers.serving import serve; serve()"
)
_PATIENCE_SECONDS = 5.0  # for a process whose pipe is closed to be gone


class WorkerDied(Exception):
    """The process has ended instead of answering; the message says how."""


class WorkerProcess:
    """An interpreter with the same modules to import, which asks for nothing.

    Raises:
        OSError: the system starts no process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_stopped = False
        self._process = _start()

    def is_ready(self) -> bool:
        """Wait until it serves; False where it has ended instead."""
        try:
            return _pipe(self._process.stdout).read(len(READY)) == READY
        except (OSError, ValueError):  # closed by ``stop``
            return False

    def ask(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Answer:
        """Have a function called with each of some items, and wait for it.

        Args:
            function: at the top level of a module, or a ``partial`` of one.
            items: that can be pickled.

        Raises:
            WorkerDied: it has ended instead.
        """
        request = pickle.dumps((function, items), pickle.HIGHEST_PROTOCOL)
        try:
            _pipe(self._process.stdin).write(request)
            _pipe(self._process.stdin).flush()
            answer: Answer = pickle.load(_pipe(self._process.stdout))
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            raise WorkerDied(self._describe_end()) from error
        return answer

    def start_again(self) -> None:
        """Another process in the place of one that has died; none once this was stopped."""
        with self._lock:
            if self._is_stopped:
                return
            _end(self._process)
            try:
                self._process = _start()
            except OSError:  # the dead one stays, and dies of whatever it is asked
                return
        self.is_ready()

    def stop(self) -> None:
        """End the process, whatever it is at."""
        with self._lock:
            self._is_stopped = True
            self._process.kill()
            _end(self._process)

    def _describe_end(self) -> str:
        try:
            status = self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            return "does not answer"
        if status >= 0:
            return f"ended with status {status}"
        return f"was ended by {_name_signal(-status)}"


def _start() -> subprocess.Popen[bytes]:
    path = [entry for entry in sys.path if isinstance(entry, str)]
    command = [sys.executable, "-c", _START, *path]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            _pipe(pipe).close()
        except OSError:  # what was not sent goes nowhere
            continue


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise OSError("no pipe")
    return pipe


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
