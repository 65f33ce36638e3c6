"""Which of the records in a directory belong to one training, and which of them count.

A training that was resumed, or begun again in the same directory, leaves records of the same steps
more than once. The later-written one counts: when a step comes back, every earlier-written record
of that step and of later steps is dropped, as TensorBoard does on a restart. Two watches that write
into one directory at the same time are told apart by their interleaved times and equal steps, and
become two runs, ``name`` and ``name#2``.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """Where one event of gradwatch's stands, and what its beginning says."""

    path: Path
    offset: int
    length: int
    wall_time: float
    global_step: int
    digest: str  # of a record; "" for a text


def split_streams(records: Sequence[Entry]) -> list[list[Entry]]:
    """Records of watches that wrote at the same time, apart; a resumed run stays one."""
    parts: dict[tuple[Path, str], list[Entry]] = {}
    for one in records:
        parts.setdefault((one.path, one.digest), []).append(one)
    streams: list[list[list[Entry]]] = []
    for part in parts.values():
        home = next((s for s in streams if not any(_are_parallel(part, p) for p in s)), None)
        if home is None:
            streams.append([part])
        else:
            home.append(part)
    return [list(heapq.merge(*stream, key=lambda one: one.wall_time)) for stream in streams]


def _are_parallel(one: Sequence[Entry], other: Sequence[Entry]) -> bool:
    apart = one[-1].wall_time < other[0].wall_time or other[-1].wall_time < one[0].wall_time
    if apart:
        return False
    steps = {entry.global_step for entry in one}
    return any(entry.global_step in steps for entry in other)


def drop_overwritten(stream: Sequence[Entry]) -> list[Entry]:
    """A stream without the records that a resume wrote again; steps rise strictly."""
    kept: list[Entry] = []
    for entry in stream:
        while kept and kept[-1].global_step >= entry.global_step:
            kept.pop()
        kept.append(entry)
    return kept
