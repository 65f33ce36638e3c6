"""How far the loss has come since the start."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan, log2, nan, sqrt
from statistics import fmean, median

from gradwatch.evidence.paired_falls import PairedFalls
from gradwatch.evidence.rank_test import score_fall
from gradwatch.evidence.windows import EARLY_LOSSES, FIRST_RECORDS, LATEST_RECORDS
from gradwatch.records import StepRecord
from gradwatch.thresholds import DEFAULTS, Thresholds

LEAST_SCATTERED = 4
"""Records of which either half has a scatter: below that ``levelled_records`` says nothing."""


@dataclass
class LossLevels:
    """The loss at the first and at the latest records in which it was known.

    Attributes:
        early: of the first ``EARLY_LOSSES`` records.
        latest: of the latest ones that do not belong to the first ``FIRST_RECORDS``.
        count: of the records in which it was known.
        lacks_records: the loss has shown no fall, and of the run's later half there are fewer
            records than one is looked for in. It stays so until there are as many: whoever looks
            until there is a fall will see one.
        paired: falls of the loss on the same batches.
        thresholds: ``levelled``, ``levelled_records``, ``least_fall``, ``seen_fall`` and
            ``patience``; those of ``PairedFalls``.

    Example:
        >>> levels = LossLevels([2.3] * 5)
        >>> levels.latest.extend([0.4, 0.5, 0.6])
        >>> round(levels.remaining, 3)
        0.217
    """

    early: list[float] = field(default_factory=list)
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST_RECORDS))
    count: int = 0
    lacks_records: bool = False
    paired: PairedFalls = field(default_factory=PairedFalls)
    thresholds: Thresholds = DEFAULTS
    _ages: deque[int] = field(default_factory=lambda: deque(maxlen=LATEST_RECORDS))
    _first_step: int = 0
    _kept_weights: int = EARLY_LOSSES
    _beginning: tuple[int, float] = field(default=(0, nan), repr=False, compare=False)

    def add(self, record: StepRecord) -> None:
        """Take in the loss of the next record; one without a finite loss changes nothing.

        Args:
            record: newer than all before.

        Example:
            >>> from gradwatch.evidence.worked_example import make_record
            >>> levels = LossLevels()
            >>> for step in range(30):
            ...     levels.add(make_record(step, step={"loss": 1.0 if step < 10 else 0.25}))
            >>> levels.remaining, levels.fall, levels.has_levelled
            (0.25, (0.75, 0.0), True)
        """
        loss = record.step("loss")
        if not isfinite(loss):
            return
        if not self.count:
            self._first_step = record.global_step
        self.count += 1
        self.paired.add(record)
        if self.count <= EARLY_LOSSES:
            self.early.append(loss)
        if self.count > FIRST_RECORDS:
            self.latest.append(loss)
            self._ages.append(max(record.global_step - self._first_step, 1))
            self._see_whether_records_lack()

    def _see_whether_records_lack(self) -> None:
        of_later_half = sum(2 * age >= self._ages[-1] for age in self._ages)
        self.lacks_records = of_later_half < LATEST_RECORDS and self._is_open

    @property
    def _is_open(self) -> bool:
        """Whether no fall has been seen yet, or only after one was looked for several times."""
        return self.is_at_start or (self.lacks_records and not self._is_paired)

    @property
    def _is_paired(self) -> bool:
        """Whether a fall is seen on the same batches."""
        return self.paired.are_seen(self.beginning, self.thresholds)

    @property
    def beginning(self) -> float:
        """Median of the first records; NaN where no loss was known."""
        known = min(len(self.early), FIRST_RECORDS)
        if self._beginning[0] != known:
            self._beginning = known, median(self.early[:known])
        return self._beginning[1]

    @property
    def now(self) -> float:
        """Median of the latest records; NaN before there are any."""
        return median(self.latest) if self.latest else nan

    @property
    def fall(self) -> tuple[float, float]:
        """How far the mean loss has fallen, as a share of the first, and its standard error.

        NaN where there are too few records of either end to know their scatter.
        """
        if self.count < EARLY_LOSSES + FIRST_RECORDS or not self.beginning > 0:
            return nan, nan
        return _measure_fall(self.early, self._list_late(EARLY_LOSSES))

    def _list_late(self, known: int) -> list[float]:
        """The latest losses, none of the first ``known`` among them; fewer than there were."""
        return list(self.latest)[known - self.count :]

    @property
    def is_at_start(self) -> bool:
        """Whether the loss shows no fall since the start, beyond what chance makes of it.

        Neither over many records nor over a few of either end, which leave out what lies between:
        a peak, or that it has fallen among the first ones already; nor on the same batches, by
        their gradients. Only after ``patience`` optimizer steps; before that, or where no loss is
        known, False. So it is where one of the first losses is not above 0: such a value has no
        floor to fall to, as the surrogate loss of a policy. Of a run with few records it takes a
        clearer fall to be seen than of others.
        """
        if not self.latest or self._ages[-1] < self.thresholds.patience or min(self.early) <= 0:
            return False
        known = min(max(self.count // 2, self.count - FIRST_RECORDS), EARLY_LOSSES)
        early, late = self._untouched[:known], self._list_late(known)
        if max(late) < min(early):  # as clear as can be, however few they are
            return False
        scores = score_fall(early, late), score_fall(early[:FIRST_RECORDS], late[-FIRST_RECORDS:])
        is_seen = max(scores) >= self.thresholds.seen_fall
        return not (is_seen or self._is_paired)

    @property
    def _untouched(self) -> list[float]:
        """The early losses, but for those behind a step that has replaced weights and raised them.

        To come back from there is no fall.
        """
        before, behind = self.early[: self._kept_weights], self.early[self._kept_weights :]
        return before if before and behind and median(behind) > max(before) else self.early

    @property
    def leap(self) -> float:
        """How many times its start the loss was soon after a step that has replaced weights.

        1 where none has, or where it has raised nothing.
        """
        before = self._untouched
        return max(self.early) / max(before) if len(before) < len(self.early) else 1.0

    def mark_replaced(self) -> None:
        """The step behind the newest record has replaced weights; the first such step counts."""
        self._kept_weights = min(self._kept_weights, self.count)
        self.paired.forget()

    @property
    def has_hardly_fallen(self) -> bool:
        """Whether the loss has levelled off within ``least_fall`` of where it began."""
        is_high = self.fall_lately[0] < self.thresholds.least_fall
        return is_high and self._ages[-1] >= self.thresholds.patience and self.has_levelled

    @property
    def fall_lately(self) -> tuple[float, float]:
        """As ``fall``, of the latest few records against the first few."""
        if isnan(self.fall[0]):
            return nan, nan
        return _measure_fall(self.early[:FIRST_RECORDS], list(self.latest)[-FIRST_RECORDS:])

    @property
    def has_levelled(self) -> bool:
        """Whether the latest records show no fall worth the time, beyond the loss's scatter."""
        if len(self.latest) < max(self.thresholds.levelled_records, LEAST_SCATTERED):
            return False
        losses, ages, half = list(self.latest), list(self._ages), len(self.latest) // 2
        before, after = losses[:half], losses[half:]
        error = sqrt(_measure_variance(before) / half + _measure_variance(after) / len(after))
        doublings = fmean(map(log2, ages[half:])) - fmean(map(log2, ages[:half]))
        least = (1 - max(1 - self.thresholds.levelled, 0.0) ** doublings) * abs(fmean(before))
        return bool(fmean(before) - fmean(after) <= least + error)

    @property
    def peak(self) -> float:
        """Largest of the latest losses against the beginning; NaN as for ``remaining``."""
        return max(self.latest, default=nan) / self.beginning if self.beginning > 0 else nan

    @property
    def remaining(self) -> float:
        """Loss now against that at the beginning; NaN where unknown or where it was not above 0."""
        return self.now / self.beginning if self.beginning > 0 else nan


def _measure_fall(early: Sequence[float], late: Sequence[float]) -> tuple[float, float]:
    """Of the mean, as a share of the early one, and its standard error."""
    start = fmean(early)
    error = sqrt(_measure_variance(early) / len(early) + _measure_variance(late) / len(late))
    return (start - fmean(late)) / start, error / start


def _measure_variance(values: Sequence[float]) -> float:
    """Of a sample; that of ``statistics`` computes with fractions, fifty times as long."""
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)
