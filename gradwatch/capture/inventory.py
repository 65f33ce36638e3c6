"""The modules and parameters of a model, listed once and checked at each sampled step."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from gradwatch.capture.optimizer_groups import GroupMap
from gradwatch.capture.parameters import Watched, list_parameters
from gradwatch.capture.past_weights import PastWeights
from gradwatch.capture.sample_rows import Gatherer
from gradwatch.capture.weight_samples import WeightSamples
from gradwatch.capture.wrappers import name_modules


class _Members:
    """Parameters and modules that stand in some modules; nothing of them is kept alive.

    Args:
        modules: as they are now.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        names, ends, members = _list_members(modules)
        self._names, self._ends = names, ends
        self._modules = [weakref.ref(module) for module in modules]
        self._members = [_find_nothing if each is None else weakref.ref(each) for each in members]

    def are_current(self, model: nn.Module) -> bool:
        """Whether all are still there, under the same names.

        Args:
            model: the first of the modules.
        """
        modules = [module for ref in self._modules if (module := ref()) is not None]
        if len(modules) < len(self._modules) or modules[0] is not model:
            return False
        names, ends, members = _list_members(modules)
        if names != self._names or ends != self._ends:
            return False
        return all(map(is_, members, [ref() for ref in self._members]))


def _find_nothing() -> None:
    """In place of a reference, where a name stands for nothing."""


def _list_members(modules: Iterable[nn.Module]) -> tuple[list[str], list[int], list[Any]]:
    """Names and members of all modules, one after the other, and where those of each one end."""
    names: list[str] = []
    ends: list[int] = []
    members: list[Any] = []
    for module in modules:
        params, inner = module._parameters, module._modules
        names += params.keys()
        names += inner.keys()
        members += params.values()
        members += inner.values()
        ends.append(len(names))
    return names, ends, members


class Inventory:
    """Names of a model's modules, and its parameters.

    Attributes:
        modules: fqn by ``id`` of each module.
        listing: grows when all is listed again.
        gatherer: takes samples of the parameters.
        groups: of the optimizers that hold them.
        weights: of a step that is over, while the next one is armed in the same breath.
        past: samples of the parameters at the sampled step before.
    """

    def __init__(self) -> None:
        self.gatherer = Gatherer()
        self.groups = GroupMap()
        self.weights: WeightSamples | None = None
        self.past = PastWeights()
        self.listing = 0
        self.modules: dict[int, str] = {}
        self._members: _Members | None = None
        self._params: list[tuple[weakref.ref[nn.Parameter], tuple[Any, ...]]] = []

    def list_watched(self, model: nn.Module) -> list[Watched]:
        """The parameters as they are now; all is listed again where something was exchanged.

        Args:
            model: the same at every call, but for what was exchanged in it.
        """
        if self._members is None or not self._members.are_current(model):
            return self._list(model)
        return [
            Watched(fqn, module, param, aliases, role, is_leaf, param.requires_grad)
            for ref, (fqn, module, aliases, role, is_leaf) in self._params
            if (param := ref()) is not None
        ]

    def find_weights(self, watched: Sequence[Watched]) -> WeightSamples:
        """Those of the step before where that one has just ended: its last samples are our first.

        Args:
            watched: all parameters.
        """
        known, self.weights = self.weights, None
        if known is not None and known.belong_to(watched):
            return known
        return WeightSamples(watched, self.gatherer)

    def _list(self, model: nn.Module) -> list[Watched]:
        modules = name_modules(model)
        self.listing += 1
        self.past.forget()
        self.modules = {id(module): fqn for fqn, module in modules}
        watched = list_parameters(modules)
        self._params = [
            (
                weakref.ref(entry.param),
                (entry.fqn, entry.module, entry.aliases, entry.role, entry.is_leaf),
            )
            for entry in watched
        ]
        is_lazy = any(_is_lazy(module) for _, module in modules)  # and becomes another by itself
        self._members = None if is_lazy else _Members([module for _, module in modules])
        return watched


def _is_lazy(module: nn.Module) -> bool:
    return any(isinstance(param, UninitializedParameter) for param in module._parameters.values())
