"""Which dimension of a tensor counts units: read from the graph of the tensor itself.

A convolution counts them in its second dimension, a matrix product in its last one, and what comes
after moves them: a transposed view, a broadcast sum, a selected channel. Modules that ran elsewhere
in forward say nothing about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from torch import Tensor

from gradwatch.capture.graph import Edge, EdgeKey, Node, identify

SINGLE = -1
"""All elements belong to one unit: its dimension was squeezed or selected away."""

MAX_DEPTH = 64
"""Operations between a tensor and what produced its units that are looked through."""

MAX_WEIGHT_NODES = 32
"""Operations between a matrix product and the leaf that is its weight."""

POSITION_CORRELATION = 0.1
"""How alike the positions of one image or signal are to a unit (the intraclass correlation)."""

_SUFFIX = re.compile(r"Backward\d*$")
_PRODUCTS = frozenset(("Mm", "Addmm", "Bmm", "Baddbmm", "Linear", "SparseAddmm"))
_VECTOR_PRODUCTS = frozenset(("Mv", "Addmv"))
_VIEWS = frozenset(("View", "UnsafeView", "ReshapeAlias", "Reshape"))
_REMOVING = frozenset(("Select", "Unbind"))
_EXTREMES = ("Max", "Min", "Amax", "Amin", "Median")
_REDUCING = frozenset(
    (*_EXTREMES, "Sum", "Mean", "Norm", "LinalgVectorNorm", "Std", "Var", "Logsumexp", "Prod")
)


def find_unit_axis(edges: Iterable[Edge], known: Mapping[EdgeKey, int]) -> int | None:
    """Dimension that counts units of the tensor at these edges.

    Args:
        edges: of the tensor; one, or none where no graph was built.
        known: dimensions that are known, by edge.

    Returns:
        The dimension, ``SINGLE``, or ``None`` where the graph does not tell.

    Example:
        >>> import torch
        >>> from gradwatch.capture.graph import find_edge
        >>> x, layer = torch.ones(3, 2, 8, 8), torch.nn.Conv2d(2, 4, 3)
        >>> find_unit_axis([find_edge(layer(x).transpose(1, 3))], {})
        3
    """
    found = (_find(edge, known, 0) for edge in edges if edge[0] is not None)
    return next((axis for axis in found if axis is not None), None)


def find_output_axis(y: Tensor, inputs: Iterable[Edge], known: Mapping[EdgeKey, int]) -> int | None:
    """The same of what an elementwise function makes of the tensor at these edges.

    Args:
        y: output of the function.
        inputs, known: as in ``find_unit_axis``.

    Returns:
        Of a matrix ``(N, units)`` whose graph does not tell, the last dimension.
    """
    axis = find_unit_axis(inputs, known)
    return y.dim() - 1 if axis is None and y.dim() == 2 else axis


def count_unit_samples(output: Tensor, axis: int) -> int:
    """Samples behind each unit of ``output``.

    Positions beside the unit's dimension are samples too, but neighbours see much the same: ``m``
    of them in one item count as ``m / (1 + (m - 1) * POSITION_CORRELATION)`` (the design effect of
    a sample of clusters; Kish, 1965, "Survey Sampling").

    Args:
        output: of a layer that counts units.
        axis: dimension that counts them, or ``SINGLE``.

    Example:
        >>> import torch
        >>> [count_unit_samples(torch.zeros(shape), 1) for shape in ((32, 8), (32, 8, 5, 5))]
        [32, 235]
    """
    if axis == SINGLE:
        return output.numel()
    samples = output.numel() // max(output.shape[axis], 1)
    if axis == output.dim() - 1:
        return samples
    items = output.shape[0] if axis else 1
    positions = samples / max(items, 1)
    return round(samples / (1 + max(positions - 1, 0) * POSITION_CORRELATION))


def _find(edge: Edge, known: Mapping[EdgeKey, int], depth: int) -> int | None:
    axis = known.get(identify(edge))
    shape = _get_shape(edge)
    if axis is not None or shape is None or depth >= MAX_DEPTH:
        return axis
    node, name = edge[0], _SUFFIX.sub("", edge[0].name())
    produced = _find_produced(node, name, len(shape), known)
    if produced is not None:
        return produced if produced < len(shape) else None
    if name in _PRODUCTS:
        return None
    below = [function for function in node.next_functions if function[0] is not None]
    for source in sorted(below, key=lambda source: -prod(_get_shape(source) or (0,))):
        axis, before = _find(source, known, depth + 1), _get_shape(source)
        if axis is not None and before is not None:
            return axis if axis == SINGLE else _move(node, name, axis, before, shape)
    return len(shape) - 1 if name.endswith(("LayerNorm", "RmsNorm")) else None


def _find_produced(node: Node, name: str, n_dims: int, known: Mapping[EdgeKey, int]) -> int | None:
    """Dimension of the units that this operation itself makes."""
    if "onvolution" in name or "BatchNorm" in name or "GroupNorm" in name:
        return 1
    if name in _VECTOR_PRODUCTS:
        return 0
    if name.startswith("Embedding") or "Trilinear" in name or "trilinear" in name:
        return n_dims - 1
    if name not in _PRODUCTS:
        return None
    left, right = node.next_functions[-2:]
    if _is_weight(right, known):
        return n_dims - 1
    return n_dims - (2 if left[0] is not None else 1) if _is_weight(left, known) else None


def _is_weight(edge: Edge, known: Mapping[EdgeKey, int]) -> bool:
    """Whether an operand is made of leaves alone: a weight, as it is or scaled, or a constant."""
    pending, seen = [edge], 0
    while pending and seen < MAX_WEIGHT_NODES:
        operand = pending.pop()
        if operand[0] is None:
            continue
        seen += 1
        name = _SUFFIX.sub("", operand[0].name())
        if identify(operand) in known or name in _PRODUCTS or "onvolution" in name:
            return False
        pending.extend(operand[0].next_functions)
    return not pending


def _get_shape(edge: Edge) -> tuple[int, ...] | None:
    described = getattr(edge[0], "_input_metadata", ())
    return tuple(described[edge[1]].shape) if edge[1] < len(described) else None


def _read_dims(node: Node, n_dims: int) -> list[int]:
    """Dimensions that an operation was given; autograd keeps negative ones as unsigned numbers."""
    saved: Any = getattr(node, "_saved_dim", ())
    values = saved if isinstance(saved, tuple) else (saved,)
    return [_make_signed(value) % max(n_dims, 1) for value in values]


def _move(
    node: Node, name: str, axis: int, before: tuple[int, ...], after: tuple[int, ...]
) -> int | None:
    """Where an operation puts a dimension of what it was given."""
    n_dims = len(before)
    if name == "Permute":
        dims = [dim % n_dims for dim in map(_make_signed, node._saved_dims)]
        return dims.index(axis)
    if name in ("Transpose", "T"):
        first, second = (0, 1) if name == "T" else map(_make_signed, _get_swapped(node))
        pair = {first % n_dims: second % n_dims, second % n_dims: first % n_dims}
        return pair.get(axis, axis)
    if name == "Unsqueeze":
        return axis + (axis >= _read_dims(node, n_dims + 1)[0])
    if name in _VIEWS:
        return _match_view(axis, before, after)
    if name == "Squeeze":
        dims = _read_dims(node, n_dims) if hasattr(node, "_saved_dim") else list(range(n_dims))
        removed = [dim for dim in dims if before[dim] == 1] if len(after) < n_dims else []
        return _close_gap(axis, removed, SINGLE)
    if name in _REMOVING:
        return _close_gap(axis, _read_dims(node, n_dims), SINGLE)
    if name in _REDUCING:
        return _reduce(node, axis, before, after)
    return _align(axis, before, after)


def _make_signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _get_swapped(node: Node) -> tuple[int, int]:
    return node._saved_dim0, node._saved_dim1


def _close_gap(axis: int, removed: list[int], when_removed: int | None) -> int | None:
    return when_removed if axis in removed else axis - sum(dim < axis for dim in removed)


def _reduce(node: Node, axis: int, before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """A sum over units is none of them."""
    dims = _read_dims(node, len(before)) or list(range(len(before)))
    if len(after) == len(before):
        return None if axis in dims else axis
    return _close_gap(axis, dims, None)


def _match_view(axis: int, before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """The dimension of a view with the same extent and the same number of elements before it."""
    ahead = prod(before[:axis])
    for place, size in enumerate(after):
        if size == before[axis] and prod(after[:place]) == ahead:
            return place
    return SINGLE if before[axis] == 1 else None


def _align(axis: int, before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """Elementwise operations, slices and pools keep the place; broadcasting aligns to the right."""
    if len(before) == len(after):
        return axis
    place = axis + len(after) - len(before)
    return place if place >= 0 and after[place] == before[axis] else None
