"""Records that figures are drawn from: all of a short run, an even selection of a long one."""

from __future__ import annotations

from gradwatch.evidence.thinning import Thinned
from gradwatch.records import StepRecord


class KeptRecords:
    """A selection that is thinned as it grows, with the newest record."""

    def __init__(self) -> None:
        self._thinned: Thinned[StepRecord] = Thinned()
        self._newest: StepRecord | None = None

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
        self._thinned.add(record)

    def list_all(self) -> tuple[StepRecord, ...]:
        """The selection in order; the newest record is always part of it."""
        kept = self._thinned.kept
        if self._newest is None or kept[-1] is self._newest:
            return tuple(kept)
        return (*kept, self._newest)
