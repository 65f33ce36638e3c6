"""How far apart the ranks of a job are that should hold the same weights and gradients.

``DistributedDataParallel`` gives every rank the same start and the same mean gradient, bit for bit,
so that two norms of each parameter tell whether it still does.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from gradwatch.records import Array, StepRecord

ROWS = {
    "rank_grad_spread": "grad_l2_norm",
    "rank_step_grad_spread": "step_grad_l2_norm",
    "rank_weight_spread": "weight_l2_norm",
}
"""By row of a merged record, what it compares."""

_LOCAL = "PostLocalSGDState"
"""Of a communication hook that averages weights now and then instead of gradients."""


class Wrappers:
    """The ``DistributedDataParallel`` modules of a job, as far as they were met; held weakly.

    Attributes:
        left_out: names of parameters that they were asked not to keep equal.
        is_enclosed: some other module holds the model, which may make the ranks work together.
    """

    def __init__(self) -> None:
        self.left_out: frozenset[str] = frozenset()
        self.is_enclosed = False
        self._found: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._is_local = False

    def meet(self, module: nn.Module) -> None:
        """One was made or is called, compiled or not.

        Args:
            module: a ``DistributedDataParallel``, or what ``torch.compile`` has made of it.
        """
        wrapper = getattr(module, "_orig_mod", module)
        self._found.add(wrapper)
        self.left_out |= frozenset(getattr(wrapper, "parameters_to_ignore", ()))
        is_closed = not getattr(wrapper, "require_backward_grad_sync", True)
        self._is_local = is_closed or any(map(_averages_weights, _list_hooks(wrapper)))

    def meet_other(self, module: nn.Module, model: nn.Module | None) -> None:
        """A module that is none of torch's wrappers is called, outside of the model.

        Args:
            module: that is called.
            model: that is watched; ``None`` where it is gone.
        """
        self.is_enclosed = self.is_enclosed or any(part is model for part in module.modules())

    def keep_equal(self, world: int) -> bool:
        """Whether the ranks are to be equal: gradients are reduced over all of them.

        Not where the last forward ran under ``no_sync``, as steps between averages do, nor where a
        group of ranks works together.

        Args:
            world: number of ranks.
        """
        groups = (getattr(wrapper, "process_group", None) for wrapper in self._found)
        sizes = [group.size() for group in groups if group is not None]
        return bool(sizes) and not self._is_local and all(size == world for size in sizes)


def _list_hooks(wrapper: nn.Module) -> list[Any]:
    """States of the communication hooks."""
    return [state for _, state in getattr(wrapper, "_comm_hooks", ())]


def _averages_weights(state: object) -> bool:
    return any(base.__name__ == _LOCAL for base in type(state).__mro__)


def fill_spreads(
    merged: StepRecord,
    records: Sequence[StepRecord],
    parts: Sequence[int],
    left_out: frozenset[str],
) -> None:
    """Write the spreads over ranks into a merged record.

    Args:
        merged: its parameter rows are changed.
        records: of the ranks that have sent one.
        parts: for each parameter, among how many ranks it is divided.
        left_out: names of parameters that need not be equal.
    """
    params, places = merged.layer_set.params, merged.layer_set.rows.places["param"]
    compared = np.array([param.fqn not in left_out for param in params], dtype=bool)
    counts = np.ones(len(params))
    counts[: len(parts)] = parts[: len(params)]
    compared &= counts == 1
    for row, statistic in ROWS.items():
        if row in places:
            spread = measure_spread([_align(record, statistic, merged) for record in records])
            merged.param_values[places[row]] = np.where(compared, spread, np.nan)


def measure_spread(values: Sequence[Array]) -> Array:
    """``(largest - smallest) / largest`` over ranks ``(n_params,)``; NaN where one has none.

    Args:
        values: of each rank float64 ``(n_params,)``.

    Example:
        >>> import numpy as np
        >>> measure_spread([np.array([2.0, 1.0]), np.array([2.0, 0.5])]).tolist()
        [0.0, 0.5]
    """
    table = np.stack(tuple(values))
    top, bottom = table.max(axis=0), table.min(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread: Array = (top - bottom) / top
    return np.where(top == bottom, 0.0, spread)


def _align(record: StepRecord, statistic: str, merged: StepRecord) -> Array:
    """One statistic in the merged record's order of parameters; NaN where this rank has none."""
    values: Array = record.param(statistic)
    own = [param.fqn for param in record.layer_set.params]
    wanted = [param.fqn for param in merged.layer_set.params]
    if own == wanted:
        return values
    found = dict(zip(own, values.tolist(), strict=True))
    return np.array([found.get(fqn, np.nan) for fqn in wanted])
