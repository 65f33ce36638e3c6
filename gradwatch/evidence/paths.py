"""Ways through the network: from a layer to the loss, around a layer, and where one is narrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.topology import Topology
from gradwatch.records import Param


def find_path(reading: Reading, start: int) -> tuple[int, ...]:
    """Layers from one behind ``start`` to its reference, each time the best-fed consumer."""
    reference, here = reading.reference[start], start
    path: list[int] = []
    seen = {start}
    while True:
        ahead = [c for c in reading.topology.consumers[here] if c not in seen]
        ahead = [c for c in ahead if reading.reference[c] >= reference]
        if not ahead or reading.grad[here] >= reference:
            return tuple(path)
        here = max(ahead, key=lambda c: _rank(float(reading.grad[c])))
        seen.add(here)
        path.append(here)


def _rank(value: float) -> float:
    return value if np.isfinite(value) else -1.0


def has_way_around(topology: Topology, layer: int) -> bool:
    """Whether what comes before a layer reaches what comes behind it without passing through it."""
    before = reach([layer], lambda index: topology.layers[index].inputs)
    behind = reach([layer], lambda index: topology.consumers[index])
    around = reach(before - {layer}, lambda index: topology.consumers[index], avoid=layer)
    return bool(around & (behind - {layer}))


def reach(
    starts: Iterable[int], follow: Callable[[int], Iterable[int]], avoid: int = -1
) -> set[int]:
    """These layers and all that following from them leads to, never through ``avoid``."""
    found = set(starts)
    ahead = list(found)
    while ahead:
        fresh = [layer for layer in follow(ahead.pop()) if layer not in found and layer != avoid]
        found.update(fresh)
        ahead.extend(fresh)
    return found


def find_opening(reading: Reading, indices: Iterable[int], opening: float) -> set[int]:
    """Parameters behind a bottleneck that is opening by itself.

    A branch that begins at zero (ReZero, a zero-initialised last layer, LayerScale) lets nothing
    through at first, but its factor moves fast against its own size: it is made to open. The
    weights of a network that gets no gradient stand still where it is lost.
    """
    topology = reading.topology
    return {
        index
        for index in indices
        if _is_opening(reading, find_bottleneck(reading, topology.calls[index]), opening)
        and has_way_around(topology, topology.calls[index][0])
    }


def find_bottleneck(reading: Reading, calls: Iterable[int]) -> int:
    """Layer that takes most of what is lost on the way to the loss; -1 when none takes half."""
    known = [call for call in calls if np.isfinite(reading.relative_gradient[call])]
    if not known:
        return -1
    source = max(known, key=lambda call: float(reading.relative_gradient[call]))
    whole = float(reading.relative_gradient[source])
    drops = [(1.0, -1)]
    for index in find_path(reading, source):
        own = float(reading.gains[index])
        is_join = reading.topology.layers[index].role in ("container", "other")
        if np.isnan(own) and is_join:  # a factor of a block's own, such as ReZero's
            own = float(reading.grad[source] / reading.grad[index])
        drops.append((own if np.isfinite(own) else 1.0, index))
        source = index
    drop, layer = min(drops)
    return layer if drop * drop <= whole else -1


def _is_opening(reading: Reading, layer: int, opening: float) -> bool:
    if layer < 0:
        return False
    owner = reading.topology.layers[layer].fqn
    update = reading.record.param("update_l2_norm")
    weight = reading.record.param("weight_l2_norm")
    return any(
        update[index] > opening * weight[index]
        for index, param in enumerate(reading.topology.params)
        if param.module == owner and param.trainable and not _is_bias(param)
    )


def _is_bias(param: Param) -> bool:
    """By its name: a vector may as well be a scale."""
    return param.fqn.rpartition(".")[2].startswith("bias")
