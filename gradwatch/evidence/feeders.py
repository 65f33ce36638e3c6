"""Which weight feeds an activation: there one can act, and its rows are the units."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from gradwatch.evidence.topology import Topology
from gradwatch.schema.layer_set import OUTSIDE


@lru_cache(maxsize=1024)
def count_units(topology: Topology, activation: int) -> int | None:
    """Units of an activation: rows of the one matrix that feeds it, where there is one.

    Args:
        topology: of the network.
        activation: index of a layer.

    Returns:
        ``None`` where several matrices feed it, or none.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> count_units(make_reading().topology, 1)  # fc0 has four rows
        4
    """
    sources = topology.layers[activation].inputs
    feeder = _find_weight(topology, sources[0]) if len(sources) == 1 else ""
    shapes = [
        param.shape
        for param in topology.params
        if param.module == feeder and param.role == "weight"
    ]
    return shapes[0][0] if feeder and len(shapes) == 1 else None


def name_with_feeders(topology: Topology, activations: Iterable[int]) -> tuple[str, ...]:
    """Names of activations, each followed by the weight that feeds it: there one can act.

    Args:
        topology: of the network.
        activations: indices of layers.

    Returns:
        Fully qualified names, each once.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> name_with_feeders(make_reading().topology, [1])
        ('act', 'fc0')
    """
    return _name_with_feeders(topology, tuple(activations))


@lru_cache(maxsize=16)
def _name_with_feeders(topology: Topology, activations: tuple[int, ...]) -> tuple[str, ...]:
    names: list[str] = []
    for index in activations:
        feeders = [_find_weight(topology, source) for source in topology.layers[index].inputs]
        fqn = topology.layers[index].fqn
        owner = fqn.rpartition(":")[0].removeprefix(OUTSIDE)
        names += [fqn, *(name for name in (*feeders, owner) if name)]
    return tuple(dict.fromkeys(names))


def _find_weight(topology: Topology, index: int) -> str:
    """The weight behind a layer's input, through normalisation and the like."""
    while topology.layers[index].role not in ("weight", "recurrent"):
        inputs = [source for source in topology.layers[index].inputs if source < index]
        if len(inputs) != 1:
            return ""
        index = inputs[0]
    return topology.layers[index].fqn


@lru_cache(maxsize=1024)
def is_wrapped(topology: Topology, index: int) -> bool:
    """Whether an activation is called inside a module made for it, which may scale its input.

    Args:
        topology: of the network.
        index: of the layer.
    """
    layer = topology.layers[index]
    owner, _, function = layer.fqn.rpartition(":")
    if layer.role != "activation" or not owner or not function:
        return False
    return not any(
        param.module == owner or param.module.startswith(f"{owner}.") for param in topology.params
    )
