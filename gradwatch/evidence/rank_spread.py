"""Whether the ranks of a job hold the same weights and gradients, as data parallelism promises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradwatch.evidence.topology import Mask
from gradwatch.records import StepRecord
from gradwatch.thresholds import Thresholds


@dataclass
class RankSpreads:
    """What is kept of the weights over the ranks.

    Attributes:
        have_met: weights that were apart have been equal again: the ranks train on their own and
            are averaged now and then, as local SGD does on purpose.
    """

    have_met: bool = False
    _were_apart: bool = False

    def add(self, record: StepRecord, thresholds: Thresholds) -> None:
        """Take in the next record.

        Args:
            record: merged over ranks; one without comparisons changes nothing.
            thresholds: ``rank_spread`` from which weights are apart.

        Example:
            >>> from gradwatch.evidence.worked_example import make_record
            >>> spreads = RankSpreads()
            >>> for spread in (0.0, 0.5, 0.0):  # averaged now and then
            ...     spreads.add(make_record(param={"rank_weight_spread": spread}), Thresholds())
            >>> spreads.have_met
            True
        """
        spread = record.param("rank_weight_spread")
        if not np.isfinite(spread).any():
            return
        are_apart = bool((spread > thresholds.rank_spread).any())
        self.have_met |= self._were_apart and not are_apart
        self._were_apart = are_apart


def find_apart(record: StepRecord, statistic: str, thresholds: Thresholds) -> Mask:
    """Parameters of which ranks have different norms.

    Args:
        record: merged over ranks.
        statistic: ``"grad"``, ``"step_grad"`` or ``"weight"``.
        thresholds: ``rank_spread`` is what sums that are not exact to the bit may differ by,
            ``rounding_share`` of the largest gradient is rounding, which may differ.

    Returns:
        bool ``(n_params,)``; false throughout where ranks were not compared.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> record = make_record(param={"rank_grad_spread": (0.0, 0.25)})
        >>> find_apart(record, "grad", Thresholds()).tolist()
        [False, True]
    """
    apart: Mask = record.param(f"rank_{statistic}_spread") > thresholds.rank_spread
    if statistic == "weight":
        return apart
    grad = record.param("grad_l2_norm")
    return apart & (grad > thresholds.rounding_share * np.nanmax(grad, initial=0.0))
