"""Which calls speak of a parameter: those of its module, else those inside what holds it."""

from __future__ import annotations

from collections import Counter, defaultdict

from gradwatch.records import Layer, LayerSet


def find_own_calls(layer_set: LayerSet) -> tuple[tuple[int, ...], ...]:
    """For each parameter, the calls of its module, where they are its own.

    Args:
        layer_set: of the network.

    Returns:
        Indices of layers, one tuple per parameter; empty where the module is never called by
        itself, or is a network in itself.

    Example:
        >>> from gradwatch.records import Param
        >>> layers = Layer("cell", 0), Layer("cell", 1, inputs=(0,))
        >>> find_own_calls(LayerSet(layers, (Param("cell.weight", "cell"), Param("scale"))))
        ((0, 1), ())
    """
    calls: dict[str, list[int]] = defaultdict(list)
    for index, layer in enumerate(layer_set.layers):
        calls[layer.fqn].append(index)
    within, functions = _count_inside(layer_set.layers), _list_functions(layer_set.layers)
    composite = {
        fqn for fqn in calls if _is_composite(layer_set, fqn, calls[fqn], within, functions)
    }
    return tuple(
        () if param.module in composite else tuple(calls.get(param.module, ()))
        for param in layer_set.params
    )


def find_inner_layers(
    layer_set: LayerSet, calls: tuple[tuple[int, ...], ...]
) -> dict[int, tuple[int, ...]]:
    """For a parameter without calls, the activations inside the module that holds it.

    Args:
        layer_set: of the network.
        calls: as ``find_own_calls`` found them.

    Returns:
        Indices of layers by index of the parameter; one that finds no activation is left out.

    Example:
        >>> from gradwatch.records import Param
        >>> layers = (Layer("block:tanh", role="activation", type="tanh"),)
        >>> find_inner_layers(LayerSet(layers, (Param("block.w", "block"),)), ((),))
        {0: (0,)}
    """
    functions, found = _list_functions(layer_set.layers), {}
    for index, param in enumerate(layer_set.params):
        owner = param.module
        while not calls[index] and index not in found:
            if functions.get(owner):
                found[index] = tuple(functions[owner])
            if not owner:
                break
            owner = owner.rpartition(".")[0]
    return found


def _count_inside(layers: tuple[Layer, ...]) -> Counter[str]:
    """By name of a module, the calls of what stands below it; one pass over the layers."""
    within: Counter[str] = Counter()
    for layer in layers:
        parts = layer.fqn.split(".") if layer.fqn else []
        within.update(".".join(parts[:depth]) for depth in range(len(parts)))
    return within


def _is_composite(
    layer_set: LayerSet,
    fqn: str,
    calls: list[int],
    within: Counter[str],
    functions: dict[str, list[int]],
) -> bool:
    """Whether one call of a module with matrices of its own is a network in itself.

    Its output says nothing of where its matrices stand: activations are called inside it, or
    modules that have entries of their own.
    """
    if len(calls) > 1 or layer_set.layers[calls[0]].role != "weight":
        return False
    return within[fqn] > 0 or len(functions.get(fqn, ())) > 1


def _list_functions(layers: tuple[Layer, ...]) -> dict[str, list[int]]:
    """By name of a module, the activations that it calls as functions."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, layer in enumerate(layers):
        if layer.role != "activation":
            continue
        if layer.fqn == layer.type:
            found[""].append(index)
        for place in (i for i, letter in enumerate(layer.fqn) if letter == ":" and i):
            found[layer.fqn[:place]].append(index)
    return found
