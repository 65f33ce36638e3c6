"""Which weight the loss has to thank for its change: loss change allocation, to first order.

A step of an optimizer changes the loss by ``sum_i g_i . dw_i`` to first order. Each matrix's share
of that does not depend on the loss's scale, and it knows what the optimizer makes of a gradient: it
is the one quantity that says who is learning, whatever the layers in between do.

Source: Lan, Liu, Zhou & Yosinski (2019), "LCA: Loss Change Allocation for Neural Network Training",
NeurIPS, equation 2 with one evaluation at the beginning of each step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import reduce
from math import isnan
from statistics import median

import numpy as np

from gradwatch.evidence.flow_facts import measure_row_norms
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.optimizer_pools import find_pools
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import Mask
from gradwatch.evidence.windows import LATEST_RECORDS, RECENT_SHARES
from gradwatch.records import Array


@np.errstate(all="ignore")
def measure_changes(table: RecordTable) -> Array:
    """Loss change of each parameter to first order, in units of the loss: ``|g . dw|``.

    The gradient is that which backward brought: a factor that clipping has put on all of them is
    taken out.

    Args:
        table: of records.

    Returns:
        float64 ``(n_records, n_params)``; NaN where no step was made or no gradient came.

    Source:
        Lan, Liu, Zhou & Yosinski (2019), "LCA: Loss Change Allocation", equation 2.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> make_reading().ask(measure_changes).round(4).tolist()
        [0.0005, 0.5]
    """
    arrived, used = table.ask(measure_step_norms).T
    clipping = np.where((arrived > 0) & (used > 0), arrived / used, 1.0)
    changes: Array = np.abs(table.param("loss_change")) * clipping[:, None]
    return changes


def measure_pools(table: RecordTable) -> Array:
    """Loss change of each pool of parameters; 0 without a step.

    Args:
        table: of records.

    Returns:
        float64 ``(n_records, n_pools)``.
    """
    group, counted = find_pools(table.topology)
    changes = table.ask(measure_changes)
    sizes = np.where(counted & np.isfinite(changes), changes, 0.0)
    width = int(group.max(initial=0)) + 1
    places = width * np.arange(len(table))[:, None] + group
    sums = np.bincount(places.ravel(), weights=sizes.ravel(), minlength=width * len(table))
    return sums.astype(np.float64).reshape(len(table), width)


@np.errstate(all="ignore")
def measure_shares(table: RecordTable) -> Array:
    """Share of each parameter in the loss change of its pool; NaN where that has not moved.

    Args:
        table: of records.

    Returns:
        float64 ``(n_records, n_params)``.

    Example:
        Two matrices of one optimizer with ``g . dw`` of -3 and -1 have shares of 0.75 and 0.25.
    """
    group, _ = find_pools(table.topology)
    share = table.ask(measure_changes) / table.ask(measure_pools)[:, group]
    return np.where(np.isfinite(share), share, np.nan)


def measure_totals(table: RecordTable) -> Array:
    """Loss change of all pools together, in units of the loss ``(n_records,)``.

    Args:
        table: of records.
    """
    total: Array = table.ask(measure_pools).sum(axis=1)
    return total


def find_counting(table: RecordTable) -> Mask:
    """Records whose shares count: made by a step, at a learning rate above 0 ``(n_records,)``.

    Args:
        table: of records.
    """
    _, counted = find_pools(table.topology)
    has_moved = (np.isfinite(table.ask(measure_changes)) & counted).any(axis=1)
    result: Mask = has_moved & (table.step("learning_rate") != 0)
    return result


def measure_made(table: RecordTable) -> Array:
    """``|g . dw|`` of all that is counted, as in ``measure_changes`` ``(n_records,)``.

    Args:
        table: of records.

    Returns:
        NaN where it is not known.
    """
    _, counted = find_pools(table.topology)
    sizes = np.compress(counted, table.ask(measure_changes), axis=1)
    is_known = np.isfinite(sizes).any(axis=1)
    whole = np.add.reduce(np.where(np.isnan(sizes), 0.0, sizes), axis=1)
    return np.where(is_known, whole, np.nan)


def measure_signed(table: RecordTable) -> Array:
    """``g . dw`` of all that is counted, with its sign ``(n_records,)``; 0 where none is known.

    Args:
        table: of records.
    """
    _, counted = find_pools(table.topology)
    sums: Array = np.nansum(np.compress(counted, table.param("loss_change"), axis=1), axis=1)
    return sums


def measure_step_norms(table: RecordTable) -> Array:
    """Norm of all gradients together as they arrived, and as the optimizers got them.

    Args:
        table: of records.

    Returns:
        float64 ``(n_records, 2)``, over the parameters of which both are finite; 0 where there are
        none.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> make_reading(param={"grad_l2_norm": (3.0, 4.0)}).ask(measure_step_norms).tolist()[0]
        5.0
    """
    arrived, used = table.param("grad_l2_norm"), table.param("step_grad_l2_norm")
    known = np.isfinite(arrived) & np.isfinite(used)
    return np.stack([measure_row_norms(arrived, known), measure_row_norms(used, known)], axis=1)


@dataclass
class LossChangeHistory:
    """What is kept of the loss change over a run, whatever its length.

    Records without a step of the optimizer do not count, nor do those at a learning rate of 0.

    Attributes:
        recent: shares of the latest records ``(n_params,)``, newest last.
        totals: changes of the latest records, in units of the loss, newest last.
        largest_total: so far.
    """

    recent: deque[Array] = field(default_factory=lambda: deque(maxlen=RECENT_SHARES))
    totals: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST_RECORDS))
    largest_total: float = float("nan")
    _width: int = 0
    _made: float = 0.0
    _latest: tuple[int, float] | None = None
    _uphill: int = 0
    _downhill: int = 0

    def add(self, reading: Reading) -> None:
        """Take in the next reading.

        Args:
            reading: of a record newer than all before, to whose layers ``realign`` has carried
                over.

        Example:
            >>> from gradwatch.evidence.worked_example import make_reading
            >>> history = LossChangeHistory()
            >>> history.add(make_reading())
            >>> history.peak_share.round(3).tolist(), round(history.recent_total, 4)
            ([0.001, 0.999], 0.5005)
        """
        self._width = len(reading.topology.params)
        self._sum_up(reading.record.global_step, float(reading.ask(measure_made)))
        if not reading.ask(find_counting):
            return
        total = float(reading.ask(measure_totals))
        self.recent.append(reading.ask(measure_shares))
        self.totals.append(total)
        self.largest_total = float(np.fmax(self.largest_total, total))
        change = float(reading.ask(measure_signed))
        self._uphill += change > 0
        self._downhill += change < 0

    def _sum_up(self, global_step: int, made: float) -> None:
        if self._latest is not None:
            self._made += self._latest[1] * (global_step - self._latest[0])
        if not isnan(made):
            self._latest = global_step, made

    @property
    def climbs(self) -> bool:
        """Whether most steps went up the gradient, as those of an optimizer that maximises."""
        return self._uphill > self._downhill

    @property
    def run_total(self) -> float:
        """Sum of ``|g . dw|`` over all steps so far, in units of the loss; NaN before the first.

        Each record stands for the steps up to the next one.
        """
        return float("nan") if self._latest is None else self._made + self._latest[1]

    def realign(self, places: list[int]) -> None:
        """Carry the shares over to a new layer set.

        Args:
            places: for each of its parameters, the index in the old one, or -1.
        """
        carried = [np.append(share, np.nan)[places] for share in self.recent]
        self.recent = deque(carried, maxlen=RECENT_SHARES)

    @property
    def peak_share(self) -> Array:
        """Largest share of each parameter over the latest records ``(n_params,)``; NaN: none."""
        if not self.recent:
            return np.full(self._width, np.nan)
        return reduce(np.fmax, self.recent)

    @property
    def recent_total(self) -> float:
        """Largest sum of the latest records, in units of the loss; NaN before the first."""
        return max(list(self.totals)[-RECENT_SHARES:], default=float("nan"))

    @property
    def usual_total(self) -> float:
        """Median of more of the latest records; NaN before the first."""
        return median(self.totals) if self.totals else float("nan")
