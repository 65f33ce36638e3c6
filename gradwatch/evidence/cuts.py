"""Where the way of a gradient ends: the call in the user's code that let nothing through."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.paths import reach
from gradwatch.evidence.topology import Topology
from gradwatch.records import Layer, Param
from gradwatch.schema.cut import Cut


def find_calls(topology: Topology, index: int) -> tuple[int, ...]:
    """Calls that speak of a parameter: its module's own, or those inside the module that holds it.

    Args:
        topology: of the network.
        index: of the parameter.

    Returns:
        Indices of layers; empty for a parameter that the model itself holds, of which any call or
        none may speak.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> find_calls(make_reading().topology, 1)
        (2,)
    """
    own = topology.calls[index] or topology.inner_layers.get(index, ())
    module = topology.params[index].module
    if own or not module:
        return own
    inner = f"{module}.", f"{module}:"
    return tuple(
        i
        for i, layer in enumerate(topology.layers)
        if layer.fqn == module or layer.fqn.startswith(inner)
    )


def find_cuts(reading: Reading, indices: Iterable[int]) -> list[Cut]:
    """Calls at which the gradient of these parameters ends, the nearest to the loss first.

    Args:
        reading: of one record, at which forward was followed call by call.
        indices: of the parameters.

    Returns:
        One per line of code; empty where none was noted.

    Example:
        >>> from dataclasses import replace
        >>> from gradwatch.evidence.worked_example import make_layer_set, make_reading
        >>> cut = Cut("detach", "model.py:42", layers=("act",))
        >>> arriving = {"grad_output_l2_norm": (np.nan, np.nan, 1.0)}
        >>> cut_off = make_reading(layer=arriving, layer_set=replace(make_layer_set(), cuts=(cut,)))
        >>> [cut.source for cut in find_cuts(cut_off, [0])]
        ['model.py:42']
    """
    topology = reading.topology
    cuts = [cut for cut in topology.layer_set.cuts if cut.is_end]
    if not cuts:
        return []
    found: dict[Cut, bool] = {}
    for index in indices:
        param = topology.params[index]
        ahead = reach(find_calls(topology, index), lambda call: topology.consumers[call])
        silent = {call for call in ahead if not reading.grad[call] > 0}
        last = {call for call in silent if not silent & set(topology.consumers[call])}
        names, ends = ({topology.layers[i].fqn for i in chosen} for chosen in (silent, last))
        for cut in cuts:
            if param.fqn in cut.params or ends & set(cut.layers) or _runs_there(param, cut):
                found[cut] = True
            elif names & set(cut.layers):
                found.setdefault(cut, False)
    nearest = [cut for cut, is_last in found.items() if is_last] or list(found)
    return _keep_telling(nearest)


def find_readings(reading: Reading, layers: Iterable[str]) -> list[Cut]:
    """Calls outside of forward that made plain numbers of what these layers returned.

    Args:
        reading: of one record.
        layers: fully qualified names.
    """
    names = set(layers)
    return [cut for cut in reading.topology.layer_set.cuts if cut.is_read and names & {*cut.layers}]


def _keep_telling(cuts: list[Cut]) -> list[Cut]:
    """One for each line: what a user draws with ``sample()`` looks at its input besides."""
    by_source: dict[str, Cut] = {}
    for cut in sorted(cuts, key=lambda cut: cut.function not in ("sample", "sample_n")):
        by_source.setdefault(cut.source, cut)
    return list(by_source.values())


def _runs_there(param: Param, cut: Cut) -> bool:
    """Whether the module that holds a parameter, or one around it, was cut off as a whole."""
    if param.module in cut.layers:
        return True
    owners = (param.module.rsplit(".", n)[0] for n in range(param.module.count(".") + 1))
    return any(owner in cut.layers for owner in owners) and cut.function == "torch.no_grad"


def find_unused(reading: Reading, indices: Iterable[int]) -> set[int]:
    """Parameters of which what they compute has no consumer on the way to the loss.

    No gradient arrives at any of its calls, nor at anything that takes their outputs in; or only at
    modules around it, which return several values: with no call found there that lets no gradient
    through, the loss has no use for the value that it is in.

    Args:
        reading: of one record.
        indices: of the parameters.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> find_unused(make_reading(), [0, 1])
        set()
        >>> find_unused(make_reading(layer={"grad_output_l2_norm": np.nan}), [0, 1])
        {0, 1}
    """
    heard = set(np.flatnonzero(~np.isnan(reading.grad)).tolist())
    ways = ((index, _find_way(reading.topology, index)) for index in indices)
    return {index for index, way in ways if way and heard.isdisjoint(way)}


@lru_cache(maxsize=1024)
def _find_way(topology: Topology, index: int) -> frozenset[int]:
    """A parameter's calls and all on their way to the loss, but through a module around it."""
    calls = find_calls(topology, index)
    ahead = reach(calls, lambda call: topology.consumers[call])
    around = {i for i in ahead if _encloses(topology.layers[i], topology.params[index])}
    return frozenset(reach(calls, lambda call: set(topology.consumers[call]) - around))


def _encloses(layer: Layer, param: Param) -> bool:
    """Whether a layer is a module that holds the parameter's own, and calls it."""
    return layer.role in ("container", "other") and param.module.startswith(f"{layer.fqn}.")
