"""When the next steps are worth a sample each, whatever the schedule says."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from gradwatch.records import StepRecord

LOSS_JUMP = 1.5
GRAD_JUMP = 3.0
"""A loss, or a norm of all gradients, above so many times the largest of the ``JUMP_RECORDS``
records before is a jump: what diverges goes on from there within a few steps."""

JUMP_RECORDS = 3

JUMP_SAMPLES = 4
"""Steps sampled one by one after a jump, or where other parameters get a gradient than before; one
where a sign has shown that must last to be a finding: it shows again, or it was noise."""

SILENT = 0.6
UNKNOWN_RECORDS = 8
"""Share of zeros of a rectifier, and records, from which it is worth a sample to learn whether its
units are dead: with a batch of one or two the schedule alone would take thousands of steps."""

ALLOWANCE = 8
"""Samples out of turn for jumps and signs are at most so many more than those of the schedule."""

CLOSE_SAMPLES = 1000
"""Steps sampled one by one once NaN or Inf has reached the weights, when nothing is lost by it any
more, and as many after a rollback: to see where it begins the next time."""


class Alertness:
    """Follows one run's records and says how many of the next steps to sample one by one."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=JUMP_RECORDS)
        self._grads: deque[float] = deque(maxlen=JUMP_RECORDS)
        self._learning: np.ndarray | None = None
        self._records = 0
        self._asked = 0
        self._is_broken = False

    def count_samples(self, record: StepRecord, has_sign: bool, lacks_losses: bool = False) -> int:
        """Steps right after this record that call for a sample.

        Args:
            record: the newest.
            has_sign: something has shown that is no finding yet.
            lacks_losses: the loss shows no fall, in few records. These samples, some ten for each
                doubling of the steps, leave the allowance to the others.

        Returns:
            0 where the schedule is enough.

        Example:
            >>> from gradwatch.evidence.worked_example import make_record
            >>> alertness = Alertness()
            >>> [alertness.count_samples(make_record(step), has_sign=False) for step in range(3)]
            [0, 0, 0]
            >>> jump = make_record(3, step={"loss": 9.0})  # it was 1
            >>> alertness.count_samples(jump, has_sign=False)
            4
        """
        self._records += 1
        jumps = self._find_jump(record) | self._find_turn(record)
        wanted = JUMP_SAMPLES if jumps else int(has_sign or self._lacks_samples(record))
        left = ALLOWANCE + self._records - 2 * self._asked
        granted = max(min(wanted, left), 0)
        self._asked += granted
        return CLOSE_SAMPLES if self._find_break(record) else max(granted, int(lacks_losses))

    def _lacks_samples(self, record: StepRecord) -> bool:
        """Whether a rectifier is mostly silent, and batches are too small to say more."""
        silent = record.layer("zero_fraction") >= SILENT
        unknown = silent & np.isnan(record.layer("unit_samples"))
        return self._records >= UNKNOWN_RECORDS and bool(unknown.any())

    def _find_jump(self, record: StepRecord) -> bool:
        """Whether the loss or the gradient is far above what it was; NaN and Inf are no measure."""
        norms = record.param("grad_l2_norm")
        grad = float(np.linalg.norm(norms[~np.isnan(norms)]))
        loss = record.step("loss")
        found = _jumps(loss, self._losses, LOSS_JUMP) or _jumps(grad, self._grads, GRAD_JUMP)
        self._losses.append(loss)
        self._grads.append(grad)
        return found

    def _find_turn(self, record: StepRecord) -> bool:
        """Whether other parameters have a gradient than at the record before."""
        before, now = self._learning, record.param("grad_l2_norm") > 0
        self._learning = now
        if before is None or before.shape != now.shape:
            return False
        return bool((before != now).any())

    def _find_break(self, record: StepRecord) -> bool:
        """Whether the weights have gone nonfinite, or a rollback has restored them."""
        was_broken = self._is_broken
        self._is_broken = bool(np.isinf(record.param("weight_l2_norm")).any())
        return self._is_broken != was_broken


def _jumps(value: float, before: deque[float], factor: float) -> bool:
    known = [earlier for earlier in before if math.isfinite(earlier)]
    return bool(known) and 0 < max(known) * factor < value
