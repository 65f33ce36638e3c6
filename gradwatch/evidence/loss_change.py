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
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from gradwatch.evidence.topology import Mask, Topology
from gradwatch.evidence.windows import RECENT_SHARES
from gradwatch.records import Array, Param, StepRecord


@dataclass(frozen=True, eq=False)
class LossChange:
    """The loss change of one record, by parameter and by optimizer.

    Attributes:
        size: ``|g . dw|`` of each parameter ``(n_params,)``, in units of the loss, the gradient as
            backward brought it: a factor that clipping has put on all of them is taken out. NaN
            where no step was made or no gradient came.
        group: number of the pool whose sum each parameter is held against ``(n_params,)``.
        counted: parameters that a pool's sum is made of ``(n_params,)``: matrices that an optimizer
            holds.
    """

    size: Array
    group: npt.NDArray[np.int64]
    counted: Mask

    @cached_property
    def totals(self) -> Array:
        """Sum of each pool ``(n_groups,)``; 0 without a step."""
        sizes = np.where(self.counted & np.isfinite(self.size), self.size, 0.0)
        totals: Array = np.bincount(self.group, weights=sizes, minlength=1).astype(np.float64)
        return totals

    @cached_property
    def share(self) -> Array:
        """Of each parameter in its pool's sum ``(n_params,)``; NaN where the pool has not moved.

        Example:
            Two matrices of one optimizer with ``g . dw`` of -3 and -1 have shares of 0.75 and 0.25.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            share: Array = self.size / self.totals[self.group]
        return np.where(np.isfinite(share), share, np.nan)

    @property
    def total(self) -> float:
        """Sum over all pools, in units of the loss."""
        return float(self.totals.sum())


def allocate_loss_change(record: StepRecord, topology: Topology) -> LossChange:
    """Allocate a step's loss change to the parameters: ``|g . dw|``, ``g`` before any clipping.

    Args:
        record: one sampled step.
        topology: of its layer set.

    Source:
        Lan, Liu, Zhou & Yosinski (2019), "LCA: Loss Change Allocation", equation 2.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> reading = make_reading()
        >>> change = allocate_loss_change(reading.record, reading.topology)
        >>> change.size.round(4).tolist(), change.share.round(4).tolist(), round(change.total, 4)
        ([0.0005, 0.5], [0.001, 0.999], 0.5005)
    """
    size = np.abs(record.param("loss_change")) * measure_clipping(record)
    return LossChange(size, *_find_pools(topology))


@lru_cache(maxsize=16)
def _find_pools(topology: Topology) -> tuple[npt.NDArray[np.int64], Mask]:
    counted = find_counted(topology)
    return pool_optimizers(topology.params, counted), counted


def find_counted(topology: Topology) -> Mask:
    """Matrices that an optimizer holds and that can learn; of a model without any, all tensors.

    Args:
        topology: of the network.

    Returns:
        bool ``(n_params,)``.

    Example:
        >>> from gradwatch.evidence.topology import map_topology
        >>> from gradwatch.records import LayerSet
        >>> params = Param("fc.weight", "fc", (4, 4)), Param("fc.bias", "fc", (4,), "bias")
        >>> find_counted(map_topology(LayerSet(params=params))).tolist()
        [True, False]
    """
    learns = np.array(
        [param.trainable and param.optimized for param in topology.params], dtype=bool
    )
    matrices = learns & np.array([len(param.shape) >= 2 for param in topology.params], dtype=bool)
    return matrices if matrices.any() else learns


def measure_clipping(record: StepRecord) -> float:
    """Norm of the gradient that arrived over that of the one the optimizer got.

    Args:
        record: one sampled step.

    Returns:
        Above 1 where gradients were clipped between backward and step; 1 when unknown.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> measure_clipping(make_record(param={"step_grad_l2_norm": (0.03125, 1.0)}))
        2.0
    """
    arrived, used = measure_step_norms(record)
    return arrived / used if arrived > 0 and used > 0 else 1.0


def measure_step_norms(record: StepRecord) -> tuple[float, float]:
    """Norm of all gradients together as they arrived, and as the optimizers got them.

    Args:
        record: one sampled step.

    Returns:
        Over the parameters of which both are finite; 0 where there are none.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> measure_step_norms(make_record(param={"grad_l2_norm": (3.0, 4.0)}))[0]
        5.0
    """
    arrived, used = record.param("grad_l2_norm"), record.param("step_grad_l2_norm")
    known = np.isfinite(arrived) & np.isfinite(used)
    return float(np.linalg.norm(arrived[known])), float(np.linalg.norm(used[known]))


def pool_optimizers(params: tuple[Param, ...], counted: Mask) -> npt.NDArray[np.int64]:
    """Number of each parameter's pool: its optimizer, or one pool where each has its own.

    Several optimizers of one matrix each are one optimizer written another way; the players of a
    game, whose losses have nothing to do with each other, hold several.

    Args:
        params: of the layer set.
        counted: bool ``(n_params,)``, the parameters that shares are made of.

    Returns:
        int64 ``(n_params,)``, from 0.

    Example:
        >>> each_its_own = tuple(Param(f"fc{i}.weight", optimizer=i) for i in range(3))
        >>> pool_optimizers(each_its_own, np.array([True] * 3)).tolist()
        [0, 0, 0]
        >>> players = tuple(Param(f"fc{i}.weight", optimizer=i // 2) for i in range(4))
        >>> pool_optimizers(players, np.array([True] * 4)).tolist()
        [0, 0, 1, 1]
    """
    group = np.array([param.optimizer for param in params], dtype=np.int64)
    if not group.size:
        return group
    counts = np.bincount(group[counted], minlength=int(group.max()) + 1)
    return group if counts.max(initial=0) > 1 else np.zeros_like(group)


@dataclass
class LossChangeHistory:
    """What is kept of the loss change over a run, whatever its length.

    Records without a step of the optimizer do not count, nor do those at a learning rate of 0.

    Attributes:
        recent: shares of the latest records ``(n_params,)``, newest last.
        largest_total: so far.
    """

    recent: deque[Array] = field(default_factory=lambda: deque(maxlen=RECENT_SHARES))
    totals: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_SHARES))
    largest_total: float = float("nan")
    _width: int = 0
    _made: float = 0.0
    _latest: tuple[int, float] | None = None

    def add(self, record: StepRecord, topology: Topology) -> LossChange:
        """Take in the next record.

        Args:
            record: newer than all before.
            topology: of its layer set, to which ``realign`` has carried over.

        Returns:
            Its loss change, also where it does not count.

        Example:
            >>> from gradwatch.evidence.worked_example import make_reading
            >>> reading, history = make_reading(), LossChangeHistory()
            >>> change = history.add(reading.record, reading.topology)
            >>> history.peak_share.round(3).tolist(), round(history.recent_total, 4)
            ([0.001, 0.999], 0.5005)
        """
        self._width = len(topology.params)
        change = allocate_loss_change(record, topology)
        self._sum_up(record, change)
        if record.step("learning_rate") == 0 or not np.isfinite(change.size[change.counted]).any():
            return change
        self.recent.append(change.share)
        self.totals.append(change.total)
        self.largest_total = float(np.fmax(self.largest_total, change.total))
        return change

    def _sum_up(self, record: StepRecord, change: LossChange) -> None:
        sizes = np.abs(record.param("loss_change"))[change.counted]
        if self._latest is not None:
            self._made += self._latest[1] * (record.global_step - self._latest[0])
        if np.isfinite(sizes).any():
            self._latest = record.global_step, float(np.nansum(sizes))

    @property
    def run_total(self) -> float:
        """Sum of ``|g . dw|`` over all steps so far, in units of the loss; NaN before the first.

        Each record stands for the steps up to the next one; gradients as the optimizer got them.
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
        peak: Array = np.fmax.reduce(np.stack(tuple(self.recent)), axis=0)
        return peak

    @property
    def recent_total(self) -> float:
        """Largest sum of the latest records, in units of the loss; NaN before the first."""
        return max(self.totals, default=float("nan"))
