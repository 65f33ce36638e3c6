"""Which of the records in a directory belong to one training, and which of them count.

A training that was resumed, or begun again in the same directory, leaves records of the same steps
more than once. The later-written one counts: when a step comes back, every earlier-written record
of that step and of later steps is dropped, as TensorBoard does on a restart. Two watches that write
into one directory at the same time are kept apart by their interleaved times and equal steps, and
become two runs, ``name`` and ``name#2``.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gradwatch.errors import UnreadableLog

MAX_PARTS = 1024
"""Layer sets times files in one directory; recurrent networks unrolled to any length have some."""


class Entry(NamedTuple):
    """Where one event of gradwatch's stands, and what its beginning says.

    Attributes:
        path: of the file.
        offset: of the event in it, bytes.
        length: of the event, bytes.
        wall_time: of writing, seconds since 1970.
        global_step: optimizer steps made before.
        digest: of a record's layer set; ``""`` for anything else.
        session: of a record; ``""`` in logs from before there were sessions.
        number: of the record in its session, from 0; -1 likewise.
    """

    path: Path
    offset: int
    length: int
    wall_time: float
    global_step: int
    digest: str
    session: str = ""
    number: int = -1


def split_streams(records: Sequence[Entry]) -> list[list[Entry]]:
    """Records of watches that wrote at the same time, apart; a resumed run stays whole.

    For logs from before there were sessions, which ``log.parts`` goes by.

    Args:
        records: in the order of their wall times.

    Raises:
        UnreadableLog: more layer sets than any training has.
    """
    parts: dict[tuple[Path, str], list[Entry]] = {}
    for entry in records:
        parts.setdefault((entry.path, entry.digest), []).append(entry)
    if len(parts) > MAX_PARTS:
        raise UnreadableLog(
            f"Expected at most {MAX_PARTS} layer sets in a run, got {len(parts)}. "
            "The event file is damaged; run the training again."
        )
    streams: list[list[Stretch]] = []
    for part in map(Stretch, parts.values()):
        home = next((s for s in streams if not any(part.is_beside(p) for p in s)), None)
        if home is None:
            streams.append([part])
        else:
            home.append(part)
    return [
        list(heapq.merge(*(part.entries for part in stream), key=lambda entry: entry.wall_time))
        for stream in streams
    ]


class Stretch:
    """Records that were written by one watch, with when and at which steps they were.

    Args:
        entries: in the order of writing; at least one.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.first = min(entry.wall_time for entry in entries)
        self.last = max(entry.wall_time for entry in entries)
        self.steps = frozenset(entry.global_step for entry in entries)

    def overlaps(self, other: Stretch) -> bool:
        """Whether the two were being written at the same time.

        Args:
            other: records of the same directory.
        """
        return self.last >= other.first and other.last >= self.first

    def is_beside(self, other: Stretch) -> bool:
        """Whether they are of two watches: written at the same time, and of the same steps.

        Args:
            other: records of the same directory.
        """
        return self.overlaps(other) and not self.steps.isdisjoint(other.steps)


def drop_overwritten(stream: Sequence[Entry]) -> list[Entry]:
    """A stream without the records that a resume wrote again; steps rise strictly.

    Args:
        stream: records in the order of writing.

    Example:
        >>> steps = (0, 10, 20, 10, 30)  # resumed from step 10
        >>> written = [Entry(Path("log"), 0, 0, float(i), step, "") for i, step in enumerate(steps)]
        >>> [entry.global_step for entry in drop_overwritten(written)]
        [0, 10, 30]
    """
    kept: list[Entry] = []
    for entry in stream:
        while kept and kept[-1].global_step >= entry.global_step:
            kept.pop()
        kept.append(entry)
    return kept
