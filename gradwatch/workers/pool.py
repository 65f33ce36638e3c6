"""Several worker processes, or none, behind one ``map``."""

from __future__ import annotations

import os
import queue
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from gradwatch.plugins import warn_again
from gradwatch.workers.process import WorkerDied, WorkerProcess
from gradwatch.workers.serving import Answer, Warned

Asked = TypeVar("Asked")
Result = TypeVar("Result")

CHUNK = 8
"""Items that a worker is given at once: short runs take 100 ms to judge then, and 2 ms to send."""


MOST = 8
"""Processes that are started unless somebody asks for more: whoever asks and reads answers does a
tenth of the work and cannot keep more of them busy, and each takes 45 MB."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container, as "QUOTA PERIOD" in microseconds


def count_cores() -> int:
    """Cores that this process may use, of those that it may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return min(cores, max(int(quota) // int(period), 1))
    except (OSError, ValueError, ZeroDivisionError):  # none, "max", or another system
        return cores


class Workers:
    """Some worker processes; where there are none, everything happens in this process.

    They end with the ``with`` statement, whatever they are at.

    Args:
        most: of processes that somebody wants; ``None``: nobody has said.

    Example:
        >>> with Workers() as workers:
        ...     list(workers.map(abs, [-1, 2], lambda number, reason: 0))
        [1, 2]
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._processes: list[WorkerProcess] = []
        self._idle: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.stop()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def start(self, count: int) -> None:
        """Start the processes; none where no interpreter can be started.

        Args:
            count: of processes; fewer than two are none.
        """
        if count < 2 or not sys.executable or getattr(sys, "frozen", False):
            return
        try:
            for _ in range(count):
                self._processes.append(WorkerProcess())
            is_ready = all(process.is_ready() for process in self._processes)
        except OSError:
            is_ready = False
        if is_ready:
            self._threads = ThreadPoolExecutor(count)
            for process in self._processes:
                self._idle.put(process)

    def map(
        self,
        function: Callable[[Asked], Result],
        items: Sequence[Asked],
        make_lost: Callable[[Asked, str], Result],
    ) -> Iterator[Result]:
        """Results in the order of the items; what is printed and warned of comes in it too.

        Args:
            function: at the top level of a module, or a ``partial`` of one.
            items: that can be pickled, as can the results.
            make_lost: from an item and a reason in words, the result where its process has died.

        Raises:
            RuntimeError: the function has raised something in a worker.
        """
        if self._threads is None:
            yield from map(function, items)
            return
        chunks = [items[place : place + CHUNK] for place in range(0, len(items), CHUNK)]
        for answers in self._threads.map(partial(self._ask, function, make_lost), chunks):
            for answer in answers:
                yield from _repeat(answer)

    def _ask(
        self,
        function: Callable[[Asked], Result],
        make_lost: Callable[[Asked, str], Result],
        items: Sequence[Asked],
    ) -> list[Answer]:
        """The answer to some items; of those that a worker has died of, the answer to each."""
        process = self._idle.get()
        try:
            return [process.ask(function, items)]
        except WorkerDied as death:
            reason = f"the process that was at it {death}"
            process.start_again()
        finally:
            self._idle.put(process)
        if len(items) == 1:
            return [Answer([make_lost(items[0], reason)])]
        return [answer for item in items for answer in self._ask(function, make_lost, [item])]


def _repeat(answer: Answer) -> Sequence[Any]:
    """The results, after what was said while they were made."""
    for said in answer.said:
        if isinstance(said, Warned):
            warn_again(*said)
        else:
            getattr(sys, said.stream).write(said.text)
    if answer.fault:
        raise RuntimeError(f"a worker process has failed:\n{answer.fault}")
    return answer.results
