"""Recurrent layers: the gradient along the time steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from gradwatch.evidence.flow_facts import read_grads
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.paths import reach
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import Topology
from gradwatch.records import Array, Layer
from gradwatch.thresholds import Thresholds

TIME = ":time"
"""Suffix of the entries that capture makes for the time steps inside a recurrent module."""

READ = "steps"
"""Type of the entries of an output that a loop reads step by step."""

WALKED = 64
"""Layers that are looked through between two calls: what one step of a loop may hold."""


@dataclass(frozen=True)
class TimeProfile:
    """Gradient along the time steps of one recurrent layer.

    Attributes:
        fqn: of the layer.
        calls: its entries, in time order.
        steps: how many there are.
        share: gradient at the first steps against the largest: 1 is full, 0 none.
        growth: gradient at the first steps against that at the last.
        is_bucketed: the entries are stretches of time steps inside a module, not single ones.
        is_read: a loop reads the layer's output step by step, and carries its state itself; or it
            hands the state on without its graph.
    """

    fqn: str
    calls: tuple[int, ...]
    steps: int
    share: float
    growth: float
    is_bucketed: bool = False
    is_read: bool = False

    def list_layers(self, reading: Reading) -> tuple[str, ...]:
        """The layer itself, and those that feed it step by step.

        Args:
            reading: that the profile was made from.

        Returns:
            Fully qualified names.
        """
        topology, layers = reading.topology, reading.topology.layers
        if self.is_read:
            return self._list_read(topology)
        if layers[self.calls[0]].role == "activation":
            return (*(topology.params[i].fqn for i in find_matrices(topology)), self.fqn)
        own = {self.fqn}
        feeding = [layers[s].fqn for call in self.calls[:2] for s in layers[call].inputs]
        return tuple(dict.fromkeys([self.fqn, *(fqn for fqn in feeding if fqn not in own)]))

    def _list_read(self, topology: Topology) -> tuple[str, ...]:
        """The layer; in front of an activation's name the weights that it follows."""
        index = next(i for i, layer in enumerate(topology.layers) if layer.fqn == self.fqn)
        layer = topology.layers[index]
        before = layer.inputs if layer.role == "activation" else ()
        return (*(topology.layers[i].fqn for i in before), self.fqn)


@lru_cache(maxsize=16)
def find_chains(topology: Topology, recurrent_calls: int) -> dict[str, tuple[int, ...]]:
    """Entries of each recurrent layer in time order: cells called in a loop, or time buckets.

    Args:
        topology: of the network.
        recurrent_calls: see ``Thresholds.recurrent_calls``.

    Returns:
        By fqn of the layer, indices of its calls.

    Example:
        >>> from gradwatch.evidence.topology import map_topology
        >>> from gradwatch.records import Layer, LayerSet
        >>> calls = [Layer("cell", i, "recurrent", inputs=(i - 1,) if i else ()) for i in range(5)]
        >>> find_chains(map_topology(LayerSet(tuple(calls))), recurrent_calls=4)
        {'cell': (0, 1, 2, 3, 4)}
    """
    roles = {"recurrent", "weight", *(["activation"] if find_matrices(topology) else [])}
    repeated = _list_repeated(topology, lambda layer: layer.role in roles, recurrent_calls)
    return {
        fqn.removesuffix(TIME): calls
        for fqn, calls in repeated.items()
        if _is_chain(topology, calls, recurrent_calls)
    }


@lru_cache(maxsize=16)
def find_cut_loops(topology: Topology, recurrent_calls: int) -> dict[str, tuple[int, ...]]:
    """Entries of layers that are called over and over, and whose output loses its graph.

    Args:
        topology: of the network.
        recurrent_calls: see ``Thresholds.recurrent_calls``.

    Returns:
        By fqn of the layer, indices of its calls.

    Example:
        >>> from gradwatch.evidence.topology import map_topology
        >>> from gradwatch.records import Layer, LayerSet
        >>> from gradwatch.schema.cut import Cut
        >>> calls = tuple(Layer("cell", i, "recurrent") for i in range(5))
        >>> layer_set = LayerSet(calls, cuts=(Cut("detach", layers=("cell",)),))
        >>> find_cut_loops(map_topology(layer_set), recurrent_calls=4)
        {'cell': (0, 1, 2, 3, 4)}
    """
    cuts = [cut for cut in topology.layer_set.cuts if cut.is_end and not cut.is_flat]
    names = {fqn for cut in cuts for fqn in cut.layers}
    return _list_repeated(topology, lambda layer: layer.fqn in names, recurrent_calls)


def _list_repeated(
    topology: Topology, is_wanted: Callable[[Layer], bool], least: int
) -> dict[str, tuple[int, ...]]:
    """Entries of layers with at least so many calls, in the order of the calls."""
    calls: dict[str, list[int]] = defaultdict(list)
    for index, layer in enumerate(topology.layers):
        if is_wanted(layer):
            calls[layer.fqn].append(index)
    return {
        fqn: tuple(sorted(found, key=lambda i: topology.layers[i].call))
        for fqn, found in calls.items()
        if len(found) >= least
    }


def _is_chain(topology: Topology, calls: Sequence[int], recurrent_calls: int) -> bool:
    """Whether each call depends on the one before, and is not just one of many parallel uses."""
    if topology.layers[calls[0]].fqn.endswith(TIME):
        return True
    if topology.layers[calls[0]].role == "activation":  # an unrolled loop shares its matrices
        matrices = find_matrices(topology)
        if not matrices or recurrent_calls * len(matrices) > len(calls):
            return False
    return all(_reaches(topology, earlier, later) for earlier, later in pairwise(calls[:3]))


def find_matrices(topology: Topology) -> list[int]:
    """Weights that no module of their own applies, as in a loop written out by hand.

    Args:
        topology: of the network.

    Returns:
        Indices of parameters.
    """
    return [i for i in topology.inner_layers if topology.params[i].role == "weight"]


def _reaches(topology: Topology, start: int, goal: int) -> bool:
    ahead, seen = [start], {start}
    while ahead and len(seen) < WALKED:
        for consumer in topology.consumers[ahead.pop()]:
            if consumer == goal:
                return True
            if consumer not in seen:
                seen.add(consumer)
                ahead.append(consumer)
    return False


def _profile(reading: Reading, thresholds: Thresholds) -> list[TimeProfile]:
    calls = thresholds.recurrent_calls
    topology = reading.topology
    has_chains = bool(find_chains(topology, calls) or find_cut_loops(topology, calls))
    profiles: list[TimeProfile] = reading.ask(_profile_all, calls) if has_chains else []
    return profiles


def _profile_all(table: RecordTable, recurrent_calls: int) -> Any:
    """The profiles of each record."""
    chains = find_chains(table.topology, recurrent_calls)
    loops = find_cut_loops(table.topology, recurrent_calls)
    return [
        _profile_chains(table.topology, chains, grads, recurrent_calls)
        + _profile_cut_loops(loops, grads)
        for grads in table.ask(read_grads)
    ]


def _profile_cut_loops(loops: dict[str, tuple[int, ...]], grads: Array) -> list[TimeProfile]:
    """Layers of whose calls a gradient reaches the last one only."""
    return [
        TimeProfile(fqn, calls, len(calls), 0.0, float("nan"), is_read=True)
        for fqn, calls in loops.items()
        if grads[calls[-1]] > 0 and not np.any(grads[list(calls[:-1])] > 0)
    ]


def _profile_chains(
    topology: Topology, chains: dict[str, tuple[int, ...]], all_grads: Array, recurrent_calls: int
) -> list[TimeProfile]:
    profiles = []
    for fqn, calls in chains.items():
        grads = all_grads[list(calls)]
        known = grads[np.isfinite(grads)].tolist()
        if len(known) < recurrent_calls or not max(known, default=0.0) > 0:
            continue
        quarter = max(len(known) // 4, 1)
        first, last = median(known[:quarter]), median(known[-quarter:])
        growth = first / last if last > 0 else float("nan")
        share = first / max(known)
        is_bucketed = topology.layers[calls[0]].fqn.endswith(TIME)
        is_read = topology.layers[calls[0]].type == READ
        profiles.append(TimeProfile(fqn, calls, len(known), share, growth, is_bucketed, is_read))
    return profiles


def measure_time_share(reading: Reading, thresholds: Thresholds) -> list[TimeProfile]:
    """Profiles of all recurrent layers through which a gradient passed.

    ``share`` is the median gradient norm of the first quarter of the time steps against the
    largest of all.

    Args:
        reading: of one record.
        thresholds: ``recurrent_calls``.

    Source:
        Bengio, Simard & Frasconi (1994); Pascanu, Mikolov & Bengio (2013), section 2.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> from gradwatch.records import Layer, LayerSet
        >>> calls = [Layer("cell", i, "recurrent", inputs=(i - 1,) if i else ()) for i in range(8)]
        >>> halves = {"grad_output_l2_norm": [0.5**i for i in range(8)][::-1]}
        >>> reading = make_reading(layer=halves, layer_set=LayerSet(tuple(calls)))
        >>> (profile,) = measure_time_share(reading, Thresholds())
        >>> profile.fqn, profile.steps, profile.share
        ('cell', 8, 0.01171875)
    """
    return _profile(reading, thresholds)


def measure_time_growth(reading: Reading, thresholds: Thresholds) -> list[TimeProfile]:
    """Profiles of the recurrent layers whose growth is known; not of what a loop reads, whose last
    steps the loss may have no use for.

    ``growth`` is the median gradient norm of the first quarter of the time steps against that of
    the last quarter.

    Args:
        reading: of one record.
        thresholds: ``recurrent_calls``.
    """
    profiles = (profile for profile in _profile(reading, thresholds) if not profile.is_read)
    return [profile for profile in profiles if np.isfinite(profile.growth)]


def find_forgetful(
    reading: Reading, params: Sequence[int], thresholds: Thresholds
) -> TimeProfile | None:
    """Recurrent layer that loses the gradient over time and lies on the way of the first parameter.

    Args:
        reading: of the record that is judged.
        params: parameters that get too little, the worst first.
        thresholds: ``time_gain`` and ``recurrent_calls``.
    """
    profiles = [row for row in _profile(reading, thresholds) if row.share < thresholds.time_gain]
    if not profiles:
        return None
    topology = reading.topology
    ahead = reach(topology.calls[params[0]], lambda index: topology.consumers[index])
    names = {topology.layers[index].fqn for index in ahead}
    met = [row for row in profiles if row.fqn in names]
    return min(met, key=lambda row: row.share, default=None)
