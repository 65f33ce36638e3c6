"""Whether the ranks of a job hold the same weights and gradients, as data parallelism promises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import Mask
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

    def add(self, reading: Reading, thresholds: Thresholds) -> None:
        """Take in the next reading.

        Args:
            reading: of a record merged over ranks; one without comparisons changes nothing.
            thresholds: ``rank_spread`` from which weights are apart.

        Example:
            >>> from gradwatch.evidence.worked_example import make_reading
            >>> spreads = RankSpreads()
            >>> for spread in (0.0, 0.5, 0.0):  # averaged now and then
            ...     spreads.add(make_reading(param={"rank_weight_spread": spread}), Thresholds())
            >>> spreads.have_met
            True
        """
        if not reading.ask(_were_weights_compared):
            return
        spread = reading.record.param("rank_weight_spread")
        are_apart = bool((spread > thresholds.rank_spread).any())
        self.have_met |= self._were_apart and not are_apart
        self._were_apart = are_apart


def _were_weights_compared(table: RecordTable) -> Mask:
    spread = table.param("rank_weight_spread")
    compared: Mask = np.logical_or.reduce(np.isfinite(spread), axis=1)
    return compared


def find_apart(
    table: RecordTable, statistic: str, rank_spread: float, rounding_share: float
) -> Mask:
    """Parameters of which ranks have different norms.

    Args:
        table: of records merged over ranks.
        statistic: ``"grad"``, ``"step_grad"`` or ``"weight"``.
        rank_spread: what sums that are not exact to the bit may differ by.
        rounding_share: of the largest gradient, which is rounding and may differ.

    Returns:
        bool ``(n_records, n_params)``; false throughout where ranks were not compared.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> reading = make_reading(param={"rank_grad_spread": (0.0, 0.25)})
        >>> reading.ask(find_apart, "grad", 1e-3, 1e-6).tolist()
        [False, True]
    """
    apart: Mask = table.param(f"rank_{statistic}_spread") > rank_spread
    if statistic == "weight":
        return apart
    grad = table.param("grad_l2_norm")
    largest = np.fmax.reduce(grad, axis=1, initial=0.0)
    result: Mask = apart & (grad > rounding_share * largest[:, None])
    return result


def have_parted(table: RecordTable, *limits: float) -> Mask:
    """Records in which ``find_apart`` finds anything ``(n_records,)``.

    Args:
        table: of records merged over ranks.
        limits: those of ``find_apart``.
    """
    names = ("grad", "step_grad", "weight")
    if not any(np.count_nonzero(table.param(f"rank_{name}_spread") > limits[0]) for name in names):
        return np.zeros(len(table), dtype=bool)
    found = [table.ask(find_apart, name, *limits) for name in names]
    parted: Mask = np.logical_or.reduce(np.concatenate(found, axis=1), axis=1)
    return parted
