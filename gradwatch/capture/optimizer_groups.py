"""What optimizers say of each parameter; who is in which group is worked out once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.capture.optimizer_state import is_decoupled, read_rate
from gradwatch.records import Array


@dataclass
class GroupSettings:
    """What holds for each parameter in one step.

    Attributes:
        rates: learning rate of its group; NaN without one, or where it lives on a device.
        decays: weight decay of its group; NaN where none is known.
        coupled: weight decay that is added to the gradient; 0 for none.
        decoupled: learning rate times weight decay that acts on the weight itself, as of AdamW;
            0 for none.
        optimized: by ``id`` of a parameter, the number of its optimizer; ``None``: all are.
        strangers: shapes of what an optimizer holds, the model has not, and no backward pass has
            reached.

    Source: Loshchilov & Hutter (2019), "Decoupled Weight Decay Regularization", algorithm 2.
    """

    rates: Array
    decays: Array
    coupled: Array
    decoupled: Array
    optimized: dict[int, int] | None
    strangers: frozenset[tuple[int, ...]]


@dataclass
class GroupMap:
    """Where each parameter stands in the groups of the optimizers; holds numbers alone."""

    _known: Any = None
    _places: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _strangers: list[list[int]] = field(default_factory=list)
    _optimized: dict[int, int] | None = None

    def read(self, optimizers: Sequence[Optimizer], params: Sequence[Tensor]) -> GroupSettings:
        """The settings in force.

        Args:
            optimizers: in the order in which they were handed over.
            params: of the model.

        Example:
            >>> import torch
            >>> params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
            >>> optimizer = torch.optim.AdamW(params[:1], lr=0.5, weight_decay=0.1)
            >>> settings = GroupMap().read([optimizer], params)
            >>> settings.rates.tolist(), settings.decoupled.tolist(), settings.coupled.tolist()
            ([0.5, nan], [0.05, 0.0], [0.0, 0.0])
        """
        self._learn(optimizers, params)
        count = len(params)
        rates, decays = np.full(count, np.nan), np.full(count, np.nan)
        coupled, decoupled = np.zeros(count), np.zeros(count)
        for (optimizer, group), places in zip(_list_groups(optimizers), self._places, strict=True):
            rate, decay = read_rate(group), float(group.get("weight_decay") or 0.0)
            rates[places] = rate
            if "weight_decay" in group:
                decays[places] = decay
            if decay and not is_decoupled(optimizer, group):
                coupled[places] = decay
            elif rate * decay > 0:
                decoupled[places] = rate * decay
        strangers = self._find_strangers(optimizers)
        return GroupSettings(rates, decays, coupled, decoupled, self._optimized, strangers)

    def _learn(self, optimizers: Sequence[Optimizer], params: Sequence[Tensor]) -> None:
        groups = [[_list_ids(group) for group in each.param_groups] for each in optimizers]
        known = groups, list(map(id, params))
        if known == self._known:
            return
        self._known = known
        numbers = {param: number for number, param in enumerate(known[1])}
        listed = [ids for each in groups for ids in each]
        self._places = [np.array([numbers[i] for i in ids if i in numbers], int) for ids in listed]
        self._strangers = [
            [place for place, i in enumerate(ids) if i not in numbers] for ids in listed
        ]
        self._optimized = (
            {i: number for number, each in enumerate(groups) for ids in each for i in ids}
            if optimizers
            else None
        )

    def _find_strangers(self, optimizers: Sequence[Optimizer]) -> frozenset[tuple[int, ...]]:
        pairs = zip(_list_groups(optimizers), self._strangers, strict=True)
        found = (group["params"][place] for (_, group), places in pairs for place in places)
        return frozenset(tuple(param.shape) for param in found if param.grad is None)


def find_held_ids(optimizers: Iterable[Optimizer]) -> set[int]:
    """``id`` of each parameter that one of them holds.

    Args:
        optimizers: any number of them.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(3, 2)
        >>> held = find_held_ids([torch.optim.SGD([layer.weight])])
        >>> [id(param) in held for param in layer.parameters()]
        [True, False]
    """
    groups = [group["params"] for optimizer in optimizers for group in optimizer.param_groups]
    return {id(param) for params in groups for param in params}


def _list_groups(optimizers: Sequence[Optimizer]) -> Iterator[tuple[Optimizer, dict[str, Any]]]:
    return ((optimizer, group) for optimizer in optimizers for group in optimizer.param_groups)


def _list_ids(group: dict[str, Any]) -> list[int]:
    return list(map(id, group["params"]))
