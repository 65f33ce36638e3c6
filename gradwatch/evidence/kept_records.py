"""Records that figures are drawn from: all of a short run, an even selection of a long one."""

from __future__ import annotations

from gradwatch.records import StepRecord

KEPT_RECORDS = 512
"""Records kept for figures; every other one is dropped when there are more."""


class KeptRecords:
    """A selection that is thinned as it grows."""

    def __init__(self) -> None:
        self._kept: list[StepRecord] = []
        self._newest: StepRecord | None = None
        self._count = 0
        self._stride = 1

    def add(self, record: StepRecord) -> None:
        """Take in the next record.

        Args:
            record: newer than all before.

        Example:
            >>> from gradwatch.evidence.worked_example import make_record
            >>> kept = KeptRecords()
            >>> for step in range(2000):
            ...     kept.add(make_record(step))
            >>> [record.global_step for record in kept.list_all()][:3], len(kept.list_all())
            ([0, 4, 8], 501)
        """
        self._newest = record
        if self._count % self._stride == 0:
            self._kept.append(record)
        self._count += 1
        if len(self._kept) > KEPT_RECORDS:
            self._kept = self._kept[::2]
            self._stride *= 2

    def list_all(self) -> tuple[StepRecord, ...]:
        """The selection in order; the newest record is always part of it."""
        if self._newest is None or self._kept[-1] is self._newest:
            return tuple(self._kept)
        return (*self._kept, self._newest)
