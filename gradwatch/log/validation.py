"""Layer sets as they come from a file: of the right types, and of a size that fits their bytes."""

from __future__ import annotations

from collections import Counter

from gradwatch.records import Layer, LayerSet, Param

_LEAST_BYTES_PER_BRACKET = 20
"""A layer takes some 160 bytes of JSON and two brackets; brackets alone would fill the memory."""
_MAX_DIMENSIONS = 64
_MAX_DEPTH = 200
"""Dots and colons in a layer's name."""
_MAX_CALLS = 4_000_000
"""Parameters times the calls of the one that is called most: a table of 32 MB in the topology."""


def check_json_shape(text: str) -> None:
    """Refuse JSON that is made of little but brackets, before it is parsed.

    Args:
        text: of a layer set.

    Raises:
        ValueError: it would take many times its size in memory.

    Example:
        >>> check_json_shape("[" * 100_000)
        Traceback (most recent call last):
        ...
        ValueError: 100000 brackets in 100000 characters
    """
    brackets = text.count("{") + text.count("[")
    if brackets * _LEAST_BYTES_PER_BRACKET > len(text) + 10_000:
        raise ValueError(f"{brackets} brackets in {len(text)} characters")


def check_layer_set(layer_set: LayerSet) -> None:
    """Refuse a layer set whose fields are not what they are declared to be.

    Args:
        layer_set: as it was read from a file.

    Raises:
        ValueError: a field of another type, or an input that is no layer.
    """
    for layer in layer_set.layers:
        _check_layer(layer, len(layer_set.layers))
    for param in layer_set.params:
        _check_param(param)
    calls = Counter(layer.fqn for layer in layer_set.layers)
    widest = max((calls[param.module] for param in layer_set.params), default=0)
    _require(widest * len(layer_set.params) <= _MAX_CALLS, "calls of parameters", widest)
    _require(_are(str, layer_set.notes), "notes", layer_set.notes)


def _check_layer(layer: Layer, n_layers: int) -> None:
    _require(_are(str, (layer.fqn, layer.role, layer.type, layer.dtype)), "names", layer)
    depth = layer.fqn.count(".") + layer.fqn.count(":")
    _require(depth <= _MAX_DEPTH, "a name of a module", layer)
    _require(_are(int, (layer.call, layer.output_numel)), "numbers", layer)
    _require(layer.call >= 0 and layer.output_numel >= 0, "numbers from 0", layer)
    _require(_are(int, layer.inputs), "inputs that are layers", layer)
    _require(all(0 <= index < n_layers for index in layer.inputs), "inputs that are layers", layer)


def _check_param(param: Param) -> None:
    _require(_are(str, (param.fqn, param.module, param.role, param.dtype)), "names", param)
    _require(_are(str, param.aliases), "names", param)
    _require(_are(int, param.shape) and len(param.shape) <= _MAX_DIMENSIONS, "a shape", param)
    _require(all(size >= 0 for size in param.shape), "a shape", param)


def _are(kind: type, values: object) -> bool:
    """Whether this is a tuple of values of one type; true and false are no numbers."""
    if not isinstance(values, tuple):
        return False
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def _require(holds: bool, what: str, came: object) -> None:
    if not holds:
        raise ValueError(f"expected {what}, got {came!r:.80}")
