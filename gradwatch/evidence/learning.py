"""Which parameters were seen to learn, and at how many of the records that could show it.

A finite gradient is no evidence: a network that stands still has those too. Evidence is a part in
the loss's change, or a move of the weight itself by a gradient above zero, in a network that moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gradwatch.evidence.flow_facts import find_called, measure_updates
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.loss_change import measure_shares
from gradwatch.evidence.optimizer_pools import find_pools
from gradwatch.evidence.per_param import Counts, PerParam, keep_param
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import Mask, Topology
from gradwatch.thresholds import Thresholds


@dataclass
class LearningEvidence(PerParam):
    """Counts by parameter ``(n_params,)``, carried over from one layer set to the next.

    Attributes:
        learned: records at which a parameter was seen to learn.
        called: records at which forward has used it, and its optimizer has stepped.
    """

    learned: Counts = keep_param(0)
    called: Counts = keep_param(0)

    def add(self, reading: Reading, motion: float, limits: Thresholds) -> None:
        """Take in the next record.

        Args:
            reading: of the record.
            motion: loss change of the step against the loss at the start; NaN: not known.
            limits: what counts as a part in the change, as a move, and as a network that moves.

        Example:
            >>> from gradwatch.evidence.worked_example import make_history, make_record
            >>> history = make_history(make_record(step) for step in range(7))
            >>> history.learning.learned.tolist(), history.learning.called.tolist()
            ([7, 7], [7, 7])
        """
        self.called += reading.ask(find_used_calls)
        if not motion < limits.loss_progress:
            decide = limits.loss_share, limits.weight_floor, limits.update_ratio
            self.learned += reading.ask(find_learning, *decide)


def find_used_calls(table: RecordTable) -> Mask:
    """Parameters that forward has used, and whose optimizer has stepped ``(n_records, n_params)``.

    Args:
        table: of records.
    """
    grad, used = table.param("grad_l2_norm"), _find_used(table.topology)
    has_stepped = ~np.isnan(table.param("update_l2_norm"))
    called: Mask = has_stepped & ((table.ask(find_called) & used) | (grad > 0))
    return called


@lru_cache(maxsize=16)
def _find_used(topology: Topology) -> Mask:
    """Parameters that forward has used, as far as that can be seen."""
    return np.array([param.used for param in topology.params], dtype=bool)


def find_learning(
    table: RecordTable, loss_share: float, weight_floor: float, update_ratio: float
) -> Mask:
    """Parameters that a record shows to learn: by a part in the loss's change, or by a move.

    Args:
        table: of records.
        loss_share: of a part that counts.
        weight_floor: see ``Reading.measure_update``.
        update_ratio: of a move that counts; a player of a game of which nothing moves so far has
            all of its own loss change, and that proves nothing.

    Returns:
        bool ``(n_records, n_params)``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> still = {"update_l2_norm": (1e-9, 0.25), "loss_change": (-1e-9, -0.5)}
        >>> make_reading(param=still).ask(find_learning, 1e-4, 0.1, 1e-6).tolist()
        [False, True]
    """
    grad, moved = table.param("grad_l2_norm"), table.ask(measure_updates, weight_floor)
    takes_part = table.ask(measure_shares) >= loss_share
    takes_part &= ~_find_resting_players(table, moved >= update_ratio)
    moves = (grad > 0) & np.isfinite(grad) & (moved >= update_ratio)
    learns: Mask = takes_part | moves
    return learns


def _find_resting_players(table: RecordTable, moves: Mask) -> Mask:
    """Parameters of optimizers of which no weight moves, where several follow losses of their own.

    Args:
        table: of records.
        moves: ``(n_records, n_params)``.
    """
    has_players = table.step("passes") > 1
    if not np.count_nonzero(has_players):
        return np.zeros_like(moves)
    group, counted = find_pools(table.topology)
    pools = group[None, :] == np.arange(int(group.max(initial=0)) + 1)[:, None]
    moving = (moves & counted) @ pools.T
    resting: Mask = ~moving[:, group] & has_players[:, None]
    return resting & (len(set(group[counted])) > 1)
