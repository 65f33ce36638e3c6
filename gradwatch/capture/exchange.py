"""Messages between the ranks of a job: nobody ever waits for a rank that does not come.

They go through the store with which the ranks have found each other, so that training's own
collectives and streams are never touched, and a rank that is late, done or dead blocks nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.distributed as dist

from gradwatch.interruption import is_foreign

MAX_WAIT_S = 0.5
"""All that one watch ever waits for other ranks, at its end or where a message is overdue:
with the time that its other work takes, less than a second."""

POLL_S = 0.002
"""Between two looks while waiting."""

SLOW_S = 0.05
"""A single question that takes longer counts as waiting."""

_T = TypeVar("_T")


def is_job() -> bool:
    """Whether this process is one of several that have found each other."""
    return count_ranks() > 1


def count_ranks() -> int:
    """Processes that have found each other; 1 for one that is alone."""
    is_ready = dist.is_available() and dist.is_initialized()
    return int(dist.get_world_size()) if is_ready else 1


def _get_store() -> Any:
    return dist.distributed_c10d._get_default_store()


class Exchange:
    """One channel among the ranks; a store that fails closes it, and raises nothing.

    Args:
        name: of the channel, the same on every rank.

    Attributes:
        rank: of this process.
        world: number of ranks.
        is_open: messages can be sent.
    """

    def __init__(self, name: str) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.is_open = True
        self._patience_s = MAX_WAIT_S
        distributed: Any = dist  # which does not list it among what it exports
        self._store: Any = distributed.PrefixStore(name, _get_store())
        self._answers_many = bool(self._store.has_extended_api())

    def put(self, key: str, content: bytes) -> None:
        """Leave a message.

        Args:
            key: within this channel.
            content: replaces what was there.
        """
        self._ask(lambda: self._store.set(key, content), None)

    def has(self, *keys: str) -> bool:
        """Whether all of these messages have come.

        Args:
            *keys: within this channel; of none all have come.

        Returns:
            ``False`` also where the channel is closed.
        """
        return not keys or self._ask(lambda: self._store.check(list(keys)), False)

    def take(self, key: str) -> bytes | None:
        """A message, if it has come.

        Args:
            key: within this channel; the message stays.

        Returns:
            ``None`` where it has not come, or the channel is closed.
        """
        return self._ask(lambda: self._store.get(key), None) if self.has(key) else None

    def take_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Of each of these the message, if it has come; in one question where all have.

        Args:
            keys: within this channel; the messages stay.
        """
        if not (self._answers_many and self.has(*keys)):
            return [self.take(key) for key in keys]
        nothing: list[bytes | None] = [None] * len(keys)
        return self._ask(lambda: list(self._store.multi_get(list(keys))), nothing)

    def forget(self, key: str) -> None:
        """Free the store's memory.

        Args:
            key: of a message that nobody needs any more; harmless where there is none.
        """
        self._ask(lambda: self._store.delete_key(key), None)

    def wait(self, keys: Sequence[str]) -> bool:
        """Wait for all of these, no longer than is left of ``MAX_WAIT_S``.

        Args:
            keys: within this channel.

        Returns:
            Whether all have come.
        """
        while not self.has(*keys):
            if not self.is_open or self._patience_s <= 0:
                return False
            began = time.monotonic()
            time.sleep(POLL_S)
            self._patience_s -= time.monotonic() - began
        return True

    def stop_waiting(self) -> None:
        """From now on ``wait`` only looks."""
        self._patience_s = 0.0

    def _ask(self, question: Callable[[], _T], default: _T) -> _T:
        """A store that takes long, or that is gone with its host, is asked no more."""
        if not self.is_open:
            return default
        began = time.monotonic()
        try:
            return question()
        except RuntimeError as error:  # of every kind that torch's stores raise
            if is_foreign(error):
                raise
            self.is_open = False
            return default
        finally:
            took_s = time.monotonic() - began
            if took_s > SLOW_S:
                self._patience_s -= took_s
                self.is_open &= self._patience_s > 0
