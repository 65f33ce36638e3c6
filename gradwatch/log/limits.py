"""How much a log may make of its bytes: a crafted one must take neither the memory nor the day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradwatch.errors import UnreadableLog
from gradwatch.log.resume import Entry
from gradwatch.records import LayerSet

MAX_COLUMNS = 60_000
"""Columns (a layer or a parameter of one record) that are read whatever the size of the log ..."""
BYTES_PER_COLUMN = 8
"""... and what each further one takes at least: two numbers that differ from layer to layer."""
MAX_RECORDS = 2_000
"""Records that are read whatever the size of the files ..."""
BYTES_PER_RECORD = 256
"""... and what each further one takes at least, with its scalars (over 300 for a parameter)."""
MAX_COLUMNS_KEPT = 200_000


def count_columns(layer_set: LayerSet) -> int:
    """Columns of one record: layers and parameters.

    Args:
        layer_set: of the record.
    """
    return len(layer_set.layers) + len(layer_set.params)


def require_modest(columns: int, allowed: int, entry: Entry) -> None:
    """Refuse a log whose records stand for more columns than its bytes can hold.

    Args:
        columns: of all records so far.
        allowed: at most.
        entry: the record that is read.

    Raises:
        UnreadableLog: there are more.
    """
    if columns > allowed:
        raise UnreadableLog(
            f"Expected at most {allowed} columns in records of this size, got more at byte "
            f"{entry.offset} of {entry.path.name}. The event file is damaged; train again."
        )


def require_columns(records: Sequence[tuple[LayerSet, Any]]) -> None:
    """Of records that are at hand as vectors: that their numbers can stand for so many columns.

    Args:
        records: layer set and packed vector of each, with ``nbytes``.

    Raises:
        UnreadableLog: they cannot.
    """
    allowed = MAX_COLUMNS + sum(vector.nbytes for _, vector in records) // BYTES_PER_COLUMN
    columns = sum(count_columns(layer_set) for layer_set, _ in records)
    if columns > allowed:
        raise UnreadableLog(
            f"Expected at most {allowed} columns in records of this size, got {columns}. "
            "The event file is damaged; train again."
        )


def count_allowed_records(entries: tuple[Entry, ...]) -> int:
    """How many records a log may have, by the size of all files that they stand in.

    Args:
        entries: of the records.
    """
    size = sum(path.stat().st_size for path in {entry.path for entry in entries})
    return MAX_RECORDS + size // BYTES_PER_RECORD


def require_few(count: int, most: int, entry: Entry) -> None:
    """Refuse a log that has more records than its bytes can hold.

    Args:
        count: of the records so far.
        most: at most.
        entry: the record that is read.

    Raises:
        UnreadableLog: there are more.
    """
    if count > most:
        raise UnreadableLog(
            f"Expected at most {most} records in files of this size, got more at byte "
            f"{entry.offset} of {entry.path.name}. The event file is damaged; train again."
        )


def make_room(sets: dict[str, LayerSet], coming: LayerSet) -> None:
    """Forget the layer sets read longest ago where all of them would fill the memory.

    Args:
        sets: those that are kept, by digest, in the order of reading; is changed.
        coming: the one that is to be added.
    """
    while sets and sum(map(count_columns, (*sets.values(), coming))) > MAX_COLUMNS_KEPT:
        del sets[next(iter(sets))]
