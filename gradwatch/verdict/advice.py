"""Cause -> what to change, and where: modules by type and pattern, as the layer set has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from gradwatch.evidence.topology import Topology
from gradwatch.records import Layer
from gradwatch.schema.activations import LECUN, Activation, choose_scheme, find_activation
from gradwatch.verdict.init_schemes import (
    find_following_type,
    is_hidden_activation,
    join_schemes,
)
from gradwatch.wording.module_names import describe_layers, name_patterns


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
        """The named layers in few words."""
        named = [layer for layer in self.layers if layer]
        return name_patterns(named) if named else "the model"

    @cached_property
    def _reached(self) -> tuple[int, ...]:
        """The named layers and all that their gradient comes through."""
        if self.topology is None:
            return ()
        named = set(self.layers)
        if self.faults:
            return self._blamed
        reached: set[int] = set()
        for index, layer in enumerate(self.topology.layers):
            if layer.fqn in named or reached & set(layer.inputs):
                reached.add(index)
        return tuple(sorted(reached))

    @property
    def _blamed(self) -> tuple[int, ...]:
        """The layers to blame, and the weights whose outputs are what they get."""
        faults = set(self.faults)
        blamed = [i for i, layer in enumerate(self._known.layers) if layer.key in faults]
        culprits = [self._known.layers[i] for i in blamed if self._known.layers[i].role != "weight"]
        feeding = {layer.key for layer in self.find_feeding(culprits)}
        faults |= feeding
        if len(blamed) > 1:
            faults |= {layer.key for layer in self._known.layers if layer.fqn in self.layers}
        return tuple(i for i, layer in enumerate(self._known.layers) if layer.key in faults)

    def _can_change(self, index: int) -> bool:
        """Whether an optimizer trains a matrix of this layer: what is frozen stays as it is."""
        owner = self._known.layers[index].fqn
        own = [
            param
            for param in self._known.params
            if param.module == owner and param.role == "weight"
        ]
        return any(param.trainable and param.optimized for param in own) or not own

    @cached_property
    def activations(self) -> tuple[int, ...]:
        """Hidden activations that the gradient of the named layers comes through."""
        return tuple(i for i in self._reached if is_hidden_activation(self._known, i))

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """Weights among the named layers and behind them."""
        return tuple(
            i
            for i in self._reached
            if self._known.layers[i].role == "weight" and self._can_change(i)
        )

    @property
    def has_gates(self) -> bool:
        """Whether a named layer is an LSTM or GRU already."""
        layers = self.topology.layers if self.topology else ()
        named = [layer.type for layer in layers if layer.fqn in self.layers]
        return any(kind.upper().startswith(("LSTM", "GRU")) for kind in named)

    @property
    def _known(self) -> Topology:
        assert self.topology is not None  # without one nothing is reached
        return self.topology

    def choose_activations(self, is_meant: Callable[[Activation], bool]) -> list[Layer]:
        """Hidden activations of the region whose rows are meant.

        Args:
            is_meant: of a row in ``schema.activations``.
        """
        layers = [self._known.layers[index] for index in self.activations]
        rows = [(layer, find_activation(layer.type)) for layer in layers]
        return [layer for layer, row in rows if row is not None and is_meant(row)]

    def find_feeding(self, activations: Sequence[Layer]) -> list[Layer]:
        """Weights whose output reaches one of the activations with no weight between.

        Args:
            activations: of the network.

        Returns:
            In the order of forward; empty where the network is not known.
        """
        if self.topology is None:
            return []
        wanted = {layer.key for layer in activations}
        layers = self.topology.layers
        found: set[int] = set()
        queue = [i for i, layer in enumerate(layers) if layer.key in wanted]
        seen: set[int] = set()
        while queue:
            for source in set(layers[queue.pop()].inputs) - seen:
                seen.add(source)
                if layers[source].role == "weight":
                    found.add(source)
                elif layers[source].role != "activation":
                    queue.append(source)
        return [layers[index] for index in sorted(found)]

    def describe_weights(self) -> str:
        """``"all 12 Linear modules"``, or the region when none is known."""
        return self.describe([self._known.layers[i] for i in self.weights]) or self.region

    def describe(self, layers: Sequence[Layer]) -> str:
        """Modules as a person would say them.

        Args:
            layers: of the network.

        Returns:
            Such as ``"all 11 Sigmoid modules"``; empty without layers.
        """
        return describe_layers(layers, () if self.topology is None else self.topology.layers)

    def name_scheme(self) -> str:
        """Initialisation that fits what follows the weights here."""
        types = [find_following_type(self._known, index) for index in self.weights]
        schemes = [choose_scheme(kind)[0] for kind in types if kind]
        return join_schemes(schemes) if schemes else LECUN


def _replace_activations(place: Place) -> str:
    culprits = place.choose_activations(lambda row: row.squashes or row.flat == "middle")
    if not culprits:
        return (
            f"Replace the activations at and above {place.region} by ReLU and re-initialise "
            f"{place.describe_weights()} with He; or add BatchNorm or LayerNorm, or residual "
            "connections."
        )
    return (
        f"Replace {place.describe(culprits)} by ReLU and re-initialise "
        f"{place.describe_weights()} with He; or keep the activations and add BatchNorm or "
        "LayerNorm before them, or residual connections."
    )


def _initialise(place: Place) -> str:
    if not place.weights:
        return (
            f"Re-initialise {place.region} with He (ReLU family) or Xavier (tanh, sigmoid), and "
            "look for a constant factor in forward that shrinks or blows up the signal."
        )
    return (
        f"Re-initialise {place.describe_weights()} with {place.name_scheme()}, and look for a "
        "constant factor in forward that shrinks or blows up the signal."
    )


def _desaturate(place: Place) -> str:
    saturated = place.choose_activations(lambda row: row.squashes)
    where = place.describe(saturated) or place.region
    feeding = place.describe(place.find_feeding(saturated)) or "the weights before them"
    return (
        f"Normalise the inputs and re-initialise {feeding} with Xavier and a bias of 0, so that "
        f"|z| stays below about 2 at {where}; BatchNorm or LayerNorm before them keeps it there."
    )


def _revive(place: Place) -> str:
    silent = place.choose_activations(lambda row: row.can_die)
    where = place.describe(silent) or place.region
    feeding = place.describe(place.find_feeding(silent)) or "the weights before them"
    return (
        f"Re-initialise {feeding} with He and a bias of 0 and lower the learning rate; or replace "
        f"{where} by LeakyReLU or GELU, or normalise before them."
    )


def _shorten(place: Place) -> str:
    return (
        f"Add residual connections around {place.describe_weights()}, or BatchNorm or LayerNorm "
        "between them, or use fewer of them."
    )


def _bridge_time(place: Place) -> str:
    change = (
        f"Let the gates of {place.region} begin open, with a forget (in a GRU: update) bias of 1"
        if place.has_gates
        else f"Use an LSTM or GRU, or an orthogonal recurrent matrix, for {place.region}"
    )
    return f"{change}; shorten the way back through time, or add attention or skips over time."


_BY_CAUSE: dict[str, Callable[[Place], str]] = {
    "activation_derivative": _replace_activations,
    "weight_scale": _initialise,
    "saturation": _desaturate,
    "dead_units": _revive,
    "depth": _shorten,
    "precision": lambda place: (
        f"Scale the loss (torch.amp.GradScaler) or use bfloat16 where {place.region} run in half "
        "precision, and keep small losses and reductions in float32."
    ),
    "weight_decay": lambda place: (
        f"Lower the weight decay (in the optimizer, or as a penalty in the loss): it has taken "
        f"{place.describe_weights()} away faster than the gradient builds them; 1e-4 to 1e-2 is "
        "usual."
    ),
    "disconnected": lambda place: (
        f"Look between {place.region} and the loss for .detach(), torch.no_grad(), .item(), "
        ".data, argmax or a comparison; freeze the parameters on purpose if that is meant."
    ),
    "through_time": _bridge_time,
    "learning_rate": lambda place: (
        f"Lower the learning rate, warm it up, or clip gradients: {place.region} broke under "
        "steps that were too large."
    ),
}

_BY_KIND: dict[str, Callable[[Place], str]] = {
    "nonfinite": lambda place: (
        f"Look at {place.region} first: guard log, sqrt and divisions with an epsilon, check the "
        "input batch for NaN, and find the operation with "
        "torch.autograd.set_detect_anomaly(True)."
    ),
    "exploding": lambda place: (
        f"Lower the scale of the weights at {place.region}, clip gradients, add normalisation."
    ),
}


def suggest_remedy(
    kind: str,
    cause: str | None,
    layers: Sequence[str],
    topology: Topology | None = None,
    faults: Sequence[str] = (),
) -> str:
    """The standard remedy for a cause, naming the modules it takes hold of.

    Args:
        kind: of the finding; decides when there is no cause.
        cause: a name in ``schema.kinds.CAUSES``, or ``None``.
        layers: fully qualified names of the finding, worst first.
        topology: of the network; without it only the layers can be named.
        faults: keys of the layers to blame, which alone a remedy changes; empty: not known.

    Returns:
        One sentence or two.

    Example:
        >>> suggest_remedy("exploding", None, ["fc1", "fc2"])
        'Lower the scale of the weights at `fc1` and `fc2`, clip gradients, add normalisation.'
    """
    place = Place(tuple(layers), topology, tuple(faults))
    write = _BY_CAUSE.get(cause or "") or _BY_KIND.get(kind)
    return write(place) if write else f"Look at {place.region}."
