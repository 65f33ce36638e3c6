"""Where a finding is, and what of the network a remedy may take hold of there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from gradwatch.evidence.feeders import is_wrapped
from gradwatch.evidence.topology import Topology
from gradwatch.records import Layer
from gradwatch.schema.activations import LECUN, Activation, choose_scheme, find_activation
from gradwatch.verdict.init_schemes import (
    find_following_type,
    is_hidden_activation,
    join_schemes,
)
from gradwatch.wording.module_names import describe_layers, name_patterns

_STOPS = ("activation", "recurrent", "embedding")
"""Roles beyond which a weight no longer feeds what comes behind them."""


@dataclass(frozen=True)
class Place:
    """Where a finding is, and what a remedy can take hold of there.

    Attributes:
        layers: fully qualified names that the finding names, worst first.
        topology: of the network; ``None`` when it is not known.
        faults: keys of the layers to blame; empty: all that the gradient comes through.
    """

    layers: tuple[str, ...]
    topology: Topology | None
    faults: tuple[str, ...] = ()

    @property
    def region(self) -> str:
        """The named layers in few words; weights alone where activations are named with them."""
        named = [layer for layer in self.layers if layer]
        silent = {layer.fqn for layer in self._all if layer.role == "activation"}
        chosen = [name for name in named if name not in silent] or named
        types = self.topology.types if self.topology else {}
        return name_patterns(chosen, types) if chosen else "the model"

    @property
    def _all(self) -> tuple[Layer, ...]:
        return self.topology.layers if self.topology else ()

    @property
    def _known(self) -> Topology:
        assert self.topology is not None  # without one nothing is blamed
        return self.topology

    @cached_property
    def blamed(self) -> tuple[int, ...]:
        """The faults; where none are known, the named layers and all their gradient comes through.

        Frozen weights are among them: that they are frozen is part of the answer.
        """
        if self.faults:
            faults = set(self.faults)
            return tuple(i for i, layer in enumerate(self._all) if layer.key in faults)
        named, reached = set(self.layers), set[int]()
        for index, layer in enumerate(self._all):
            if layer.fqn in named or reached & set(layer.inputs):
                reached.add(index)
        return tuple(sorted(reached))

    @cached_property
    def activations(self) -> list[Layer]:
        """Activations to blame; hidden ones, where nobody has said which."""
        found = [i for i in self.blamed if self._all[i].role == "activation"]
        chosen = [i for i in found if self.faults or is_hidden_activation(self._known, i)]
        return [self._all[i] for i in chosen]

    @cached_property
    def weights(self) -> list[Layer]:
        """Weights to blame that an optimizer trains: what is frozen stays as it is."""
        found = [self._all[i] for i in self.blamed if self._all[i].role == "weight"]
        return [layer for layer in found if self._can_change(layer)]

    @property
    def frozen(self) -> list[Layer]:
        """Weights to blame that no optimizer trains."""
        found = [self._all[i] for i in self.blamed if self._all[i].role == "weight"]
        return [layer for layer in found if not self._can_change(layer)]

    def _can_change(self, layer: Layer) -> bool:
        own = [
            param
            for param in self._known.params
            if param.module == layer.fqn and param.role == "weight"
        ]
        return any(param.trainable and param.optimized for param in own) or not own

    @property
    def has_gates(self) -> bool:
        """Whether a named layer is an LSTM or GRU already."""
        named = [layer.type for layer in self._all if layer.fqn in self.layers]
        return any(name.upper().startswith(("LSTM", "GRU")) for name in named)

    def are_wrapped(self, activations: Sequence[Layer]) -> bool:
        """Whether one of them is called in a module of its own, which may scale its input.

        Args:
            activations: of this network.
        """
        keys = {layer.key for layer in activations}
        places = [i for i, layer in enumerate(self._all) if layer.key in keys]
        return any(is_wrapped(self._known, index) for index in places)

    def choose_activations(self, is_meant: Callable[[Activation], bool]) -> list[Layer]:
        """Activations to blame whose rows are meant.

        Args:
            is_meant: says so of an activation's row in the schema.
        """
        rows = [(layer, find_activation(layer.type)) for layer in self.activations]
        return [layer for layer, row in rows if row is not None and is_meant(row)]

    def find_feeding(self, activations: Sequence[Layer]) -> list[Layer]:
        """Weights that are trained and reach an activation with no other weight between.

        Args:
            activations: of this network.
        """
        found = self._look_back(activations, "weight", _STOPS)
        return [layer for layer in found if self._can_change(layer)]

    def find_shifts(self, activations: Sequence[Layer]) -> list[Layer]:
        """Normalisations right before an activation: their shift decides where it begins.

        Args:
            activations: of this network.
        """
        return self._look_back(activations, "norm", ("weight", *_STOPS))

    def _look_back(self, starts: Sequence[Layer], role: str, stops: tuple[str, ...]) -> list[Layer]:
        layers, keys = self._all, {layer.key for layer in starts}
        queue = [i for i, layer in enumerate(layers) if layer.key in keys]
        found, seen = set[int](), set[int]()
        while queue:
            for source in set(layers[queue.pop()].inputs) - seen:
                seen.add(source)
                if layers[source].role == role:
                    found.add(source)
                elif layers[source].role not in stops:
                    queue.append(source)
        return [layers[index] for index in sorted(found)]

    def is_first(self, layers: Sequence[Layer]) -> bool:
        """Whether one of these layers sees the model's inputs, with no other weight before.

        Args:
            layers: of this network.
        """
        return any(not self._look_back([layer], "weight", ()) for layer in layers)

    def describe_weights(self) -> str:
        """``"all 12 Linear modules"``, or the region when none is known."""
        return self.describe(self.weights) or self.region

    def describe(self, layers: Sequence[Layer]) -> str:
        """``"all 11 Sigmoid modules"``; empty without layers.

        Args:
            layers: of this network.
        """
        return describe_layers(layers, self._all)

    def name_scheme(self, weights: Sequence[Layer]) -> str:
        """Initialisation that fits what follows these weights.

        Args:
            weights: layers of this network.
        """
        keys = {layer.key for layer in weights}
        places = [i for i, layer in enumerate(self._all) if layer.key in keys]
        types = [find_following_type(self._known, index) for index in places]
        schemes = [choose_scheme(name)[0] for name in types if name]
        return join_schemes(schemes) if schemes else LECUN
