"""Ways through the network: from a layer to the loss, around a layer, and where one is narrow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from gradwatch.evidence.flow_facts import list_grads, list_references
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.topology import Topology
from gradwatch.records import Param
from gradwatch.thresholds import Thresholds

LEAST_NORM = 1e-18
"""Norms below it are made of elements whose squares float32 rounds (its least normal number is
1.2e-38): a quotient of two of them is no gain, and one of such a norm and a larger one says only
that at most so much is left."""


def find_fed_path(reading: Reading, start: int) -> tuple[int, ...]:
    """Layers from one behind ``start`` to its reference, each time the best-fed consumer.

    Args:
        reading: of one record.
        start: index of a layer.

    Returns:
        Indices of layers, without ``start``; empty where it is its own reference.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> find_fed_path(make_reading(), 0)
        (1, 2)
    """
    path = reading.paths.get(start)
    if path is None:
        path = reading.paths[start] = _follow_fed(reading, start)
    return path


def _follow_fed(reading: Reading, start: int) -> tuple[int, ...]:
    grad, reference = reading.pick(list_grads), reading.pick(list_references)
    consumers, here, full = reading.topology.consumers, start, reference[start]
    path = {start: None}
    while not grad[here] >= full:
        ahead = [c for c in consumers[here] if reference[c] >= full and c not in path]
        if not ahead:
            break
        here = max(ahead, key=lambda c: _rank(grad[c])) if len(ahead) > 1 else ahead[0]
        path[here] = None
    return tuple(path)[1:]


def find_block(reading: Reading, start: int) -> int:
    """Layer on the way to the loss that gets a gradient and lets nothing of it through, or -1.

    Args:
        reading: of one record.
        start: index of the layer that gets too little.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> rows = {"grad_output_l2_norm": (0.0, 0.125, 1.0), "grad_zero_fraction": (1.0, 0.0, 0.0)}
        >>> find_block(make_reading(layer=rows), 0)
        1
    """
    blocked, source, grad = -1, start, reading.pick(list_grads)
    for index in find_fed_path(reading, start):
        if grad[source] == 0 and grad[index] > LEAST_NORM:
            blocked = index
        source = index
    return blocked


def _rank(value: float) -> float:
    return value if math.isfinite(value) else -1.0


def has_way_around(topology: Topology, layer: int) -> bool:
    """Whether what comes before a layer reaches what comes behind it without passing through it.

    Args:
        topology: of the network.
        layer: its index.

    Example:
        >>> from gradwatch.evidence.topology import map_topology
        >>> from gradwatch.records import Layer, LayerSet
        >>> fc, act, add = Layer("fc"), Layer("act", inputs=(0,)), Layer("add", inputs=(0, 1))
        >>> has_way_around(map_topology(LayerSet((fc, act, add))), 1)
        True
    """
    before = reach([layer], lambda index: topology.layers[index].inputs)
    behind = reach([layer], lambda index: topology.consumers[index])
    around = reach(before - {layer}, lambda index: topology.consumers[index], avoid=layer)
    return bool(around & (behind - {layer}))


def reach(
    starts: Iterable[int], follow: Callable[[int], Iterable[int]], avoid: int = -1
) -> set[int]:
    """These layers and all that following from them leads to.

    Args:
        starts: indices of layers.
        follow: from a layer to the next ones.
        avoid: layer that is never passed.

    Example:
        >>> sorted(reach([0], {0: (1, 2), 1: (3,), 2: (4,), 3: (), 4: ()}.__getitem__, avoid=1))
        [0, 2, 4]
    """
    found = set(starts)
    ahead = list(found)
    while ahead:
        fresh = [layer for layer in follow(ahead.pop()) if layer not in found and layer != avoid]
        found.update(fresh)
        ahead.extend(fresh)
    return found


def find_opening(reading: Reading, indices: Iterable[int], thresholds: Thresholds) -> set[int]:
    """Parameters behind a bottleneck that is opening by itself.

    A branch that begins at zero (ReZero, a zero-initialised last layer, LayerScale) lets nothing
    through at first, but its factor moves fast against its own size: it is made to open. The
    weights of a network that gets no gradient stand still where it is lost.

    Args:
        reading: of one record.
        indices: of parameters.
        thresholds: ``opening``, update ``||dw|| / ||w||`` from which the factor is one that opens,
            and ``dominant_share``.

    Returns:
        Indices of parameters.

    Source:
        Bachlechner et al. (2021), ReZero; Touvron et al. (2021), LayerScale.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> from gradwatch.records import Layer, LayerSet
        >>> inputs = {"stem": (), "fc": (0,), "scale": (1,), "add": (0, 2), "out": (3,)}
        >>> layers = [Layer(fqn, 0, "weight", inputs=before) for fqn, before in inputs.items()]
        >>> params = [Param(f"{fqn}.weight", fqn, (4, 4)) for fqn in inputs]
        >>> rows = {"grad_output_l2_norm": (1.0, 1e-6, 1.0, 1.0, 1.0)}
        >>> rows["grad_input_l2_norm"] = (np.nan, 1e-6, 1e-6, 1.0, 1.0)
        >>> moves = {"update_l2_norm": (0.0, 0.0, 1.0, 0.0, 0.0), "weight_l2_norm": 1.0}
        >>> reading = make_reading(rows, moves, layer_set=LayerSet(tuple(layers), tuple(params)))
        >>> find_opening(reading, [1], Thresholds())  # fc, behind a scale that begins near zero
        {1}
    """
    topology = reading.topology
    return {
        index
        for index in indices
        if _is_opening(
            reading,
            find_bottleneck(reading, topology.calls[index], thresholds.dominant_share),
            thresholds.opening,
        )
        and has_way_around(topology, topology.calls[index][0])
    }


def find_bottleneck(reading: Reading, calls: Iterable[int], dominant_share: float) -> int:
    """Layer that takes most of what is lost on the way to the loss, in logarithms.

    Args:
        reading: of one record.
        calls: indices of layers; the best-fed one is looked from.
        dominant_share: of all that is lost, in logarithms, which that is.

    Returns:
        Its index; -1 when none takes so much.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> find_bottleneck(make_reading(), [0], 0.5)  # fc1 passes 1/8 of the 1/32 that is left
        2
    """
    known = [call for call in calls if np.isfinite(reading.relative_gradient[call])]
    if not known:
        return -1
    source = max(known, key=lambda call: float(reading.relative_gradient[call]))
    whole = float(reading.relative_gradient[source])
    drops = [(1.0, -1)]
    for index in find_fed_path(reading, source):
        own = float(reading.gains[index])
        is_join = reading.topology.layers[index].role in ("container", "other")
        if np.isnan(own) and is_join:  # a factor of a block's own, such as ReZero's
            own = float(reading.grad[source] / reading.grad[index])
        drops.append((own if np.isfinite(own) else 1.0, index))
        source = index
    drop, layer = min(drops)
    return layer if drop <= whole**dominant_share else -1


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
