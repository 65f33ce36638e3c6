"""The modules and parameters of a model, listed once and checked at each sampled step."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from gradwatch.capture.parameters import Watched, list_parameters
from gradwatch.capture.sample_rows import Gatherer
from gradwatch.capture.weight_samples import WeightSamples
from gradwatch.capture.wrappers import name_modules


@dataclass(frozen=True)
class _Seen:
    """A module as it was when it was listed; nothing of it is kept alive.

    Attributes:
        module: itself.
        members: names of its own parameters and modules, and weak references to them; ``None``
            where a name stands for nothing.
    """

    module: weakref.ref[nn.Module]
    members: tuple[tuple[str, weakref.ref[Any] | None], ...]

    def is_same(self) -> bool:
        """Whether it has the same parameters and modules as then."""
        module = self.module()
        if module is None:
            return False
        current = (*module._parameters.items(), *module._modules.items())
        if len(current) != len(self.members):
            return False
        for (name, value), (known, member) in zip(current, self.members, strict=True):
            if name != known or value is not (None if member is None else member()):
                return False
        return True


class Inventory:
    """Names of a model's modules, and its parameters.

    Attributes:
        modules: fqn by ``id`` of each module.
        listing: grows when all is listed again.
        gatherer: takes samples of the parameters.
        weights: of a step that is over, while the next one is armed in the same breath.
    """

    def __init__(self) -> None:
        self.gatherer = Gatherer()
        self.weights: WeightSamples | None = None
        self.listing = 0
        self.modules: dict[int, str] = {}
        self._seen: list[_Seen] = []
        self._params: list[tuple[weakref.ref[nn.Parameter], tuple[Any, ...]]] = []

    def list_watched(self, model: nn.Module) -> list[Watched]:
        """The parameters as they are now; all is listed again where something was exchanged.

        Args:
            model: the same at every call, but for what was exchanged in it.
        """
        if not self._is_current(model):
            return self._list(model)
        found = [(ref(), facts) for ref, facts in self._params]
        return [
            Watched(fqn, module, param, aliases, role, is_leaf, param.requires_grad)
            for param, (fqn, module, aliases, role, is_leaf) in found
            if param is not None
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

    def _is_current(self, model: nn.Module) -> bool:
        is_same = bool(self._seen) and self._seen[0].module() is model
        return is_same and all(snapshot.is_same() for snapshot in self._seen)

    def _list(self, model: nn.Module) -> list[Watched]:
        modules = name_modules(model)
        self.listing += 1
        self.modules = {id(module): fqn for fqn, module in modules}
        watched = list_parameters(modules)
        self._seen = [_look(module) for _, module in modules]
        self._params = [
            (
                weakref.ref(entry.param),
                (entry.fqn, entry.module, entry.aliases, entry.role, entry.is_leaf),
            )
            for entry in watched
        ]
        if any(_is_lazy(module) for _, module in modules):
            self._seen = []  # what it becomes is still the same object
        return watched


def _look(module: nn.Module) -> _Seen:
    members = (*module._parameters.items(), *module._modules.items())
    return _Seen(
        weakref.ref(module),
        tuple((name, None if member is None else weakref.ref(member)) for name, member in members),
    )


def _is_lazy(module: nn.Module) -> bool:
    return any(isinstance(param, UninitializedParameter) for param in module._parameters.values())
