"""Reading the autograd graph: which call's output reaches which call's input.

Hooks are put on graph nodes, never on tensors or modules: a node stands for the value before any
later in-place change, and dies with the graph. Nothing is added to the graph, and nothing of it is
kept alive: what is remembered of a node is its number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradwatch.capture.opaque_tensors import is_opaque

Node = Any
"""A ``torch.autograd.graph.Node``; its Python type differs from version to version."""

Edge = tuple[Node, int]
"""An output of a node: ``(node, output_nr)``."""

EdgeKey = tuple[int, str, int]
"""Stands for an edge without keeping its graph alive: sequence number, name, output number."""

WHOLE_VIEWS = frozenset(
    f"{name}Backward0"
    for name in ("View", "UnsafeView", "ReshapeAlias", "Transpose", "Permute", "Squeeze", "T")
) | {"UnsqueezeBackward0", "SqueezeBackward1", "AliasBackward0"}
"""Operations that keep every element as it is, and change its place at most."""

is_functorch_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_FakeTensor = torch._subclasses.FakeTensor

MAX_INNER_NODES = 64
"""A single call is searched for its input edges through at most this many nodes."""

MAX_WALK_NODES = 20_000
"""A walk from one call back to its predecessors visits at most this many nodes."""


NodeKind = Any
"""What tells a node's operation: its type where it has one of its own, else its name."""


def find_kind_of(node: Node | None) -> NodeKind:
    """The operation that a node stands for; the type of ``None`` for none.

    Args:
        node: of an autograd graph.
    """
    kind = type(node)
    return node.name() if node is not None and kind.__name__ == "CppFunction" else kind


def adds_to_grad(node: Node) -> bool:
    """Whether a node stands for a leaf, whose gradient it adds to.

    Args:
        node: of an autograd graph.
    """
    return bool(node.name().endswith("AccumulateGrad"))


def find_edge(tensor: Tensor) -> Edge | None:
    """The graph edge at which this tensor's gradient arrives; ``None`` for leaves.

    Args:
        tensor: also a view, which has an edge of its own.
    """
    node = tensor.grad_fn
    return None if node is None else (node, tensor.output_nr)


def find_input_edges(values: Any) -> frozenset[Edge]:
    """Edges of all tensors in nested containers; of a leaf the one that adds to its ``grad``.

    Args:
        values: such as the arguments of a call.
    """
    edges = set()
    for tensor in collect_tensors(values):
        node = tensor.grad_fn
        if node is not None:
            edges.add((node, tensor.output_nr))
        elif tensor.requires_grad and tensor.layout is torch.strided:
            with torch.enable_grad():
                node = tensor.view_as(tensor).grad_fn
            if node is not None:
                edges.add(_get_first(node))
    return frozenset(edges)


def _get_first(node: Node) -> Edge:
    edge: Edge = node.next_functions[0]
    return edge


def identify(edge: Edge) -> EdgeKey:
    """A key for an edge; sequence numbers grow with every node that a thread makes.

    Args:
        edge: of a graph that lives.
    """
    node, number = edge
    return node._sequence_nr(), node.name(), number


def is_readable(tensor: Tensor) -> bool:
    """Whether there are numbers to read: not so under ``vmap``, in a trace or on ``meta``.

    Args:
        tensor: whose elements are wanted.
    """
    if tensor.layout is not torch.strided or is_opaque(tensor):
        return False
    return not (is_functorch_wrapped(tensor) or isinstance(tensor, _FakeTensor))


def collect_tensors(value: Any, depth: int = 4) -> list[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclasses, to a limited depth.

    Args:
        value: anything; what holds no tensor gives none.
        depth: containers inside each other that are opened.

    Returns:
        In their order; a tensor that stands there twice is listed twice.
    """
    if isinstance(value, Tensor):
        return [value]
    if depth == 0 or value is None or isinstance(value, (str, bytes, int, float)):
        return []
    return [
        tensor for inner in _list_contents(value) for tensor in collect_tensors(inner, depth - 1)
    ]


def _list_contents(value: Any) -> Sequence[Any]:
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, Mapping):
        return list(value.values())
    names = getattr(type(value), "__dataclass_fields__", ())
    return [getattr(value, name, None) for name in names]


def find_outputs(result: Any) -> dict[Edge, Tensor]:
    """Tensors with a graph in what a call has returned, by their edges.

    Args:
        result: of a call.

    Returns:
        Floating point and complex tensors only, in their order.

    Example:
        >>> import torch
        >>> x = torch.ones(2, requires_grad=True)
        >>> [tensor.shape for tensor in find_outputs((x * 2, {"mask": x > 0})).values()]
        [torch.Size([2])]
    """
    outputs = {}
    for tensor in collect_tensors(result):
        edge = find_edge(tensor)
        numeric = tensor.is_floating_point() or tensor.is_complex()
        if edge is not None and numeric and is_readable(tensor):
            outputs[edge] = tensor
    return outputs


def skip_views(edge: Edge, stop: frozenset[Edge]) -> Edge:
    """Follow views that keep every element down to the edge that computed the values.

    A view's node leaves the graph when the view is changed in place; the node below it stays.

    Args:
        edge: where to begin.
        stop: edges that are not passed, such as a call's inputs.
    """
    node, number = edge
    while node.name() in WHOLE_VIEWS and len(node.next_functions) == 1:
        below = node.next_functions[0]
        if below[0] is None or below in stop or adds_to_grad(below[0]):
            break
        node, number = below
    return node, number


def find_input_slots(outputs: Iterable[Edge], inputs: frozenset[Edge]) -> list[tuple[Node, int]]:
    """Places inside one call where the gradient of its inputs leaves: ``(node, position)``.

    The contribution of this call alone, not the sum over everything that uses the same input.

    Args:
        outputs: edges of what the call has returned.
        inputs: edges of what it was given.

    Example:
        >>> import torch
        >>> x = torch.ones(2, requires_grad=True)
        >>> y = (x * 2).exp().sum()
        >>> slots = find_input_slots([find_edge(y)], find_input_edges(x))
        >>> [(node.name(), position) for node, position in slots]
        [('MulBackward0', 0)]
    """
    pending = [node for node, _ in outputs]
    seen: set[Node] = set()
    slots: list[tuple[Node, int]] = []
    while pending and len(seen) < MAX_INNER_NODES:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        for position, below in enumerate(node.next_functions):
            if below in inputs:
                slots.append((node, position))
            elif below[0] is not None:
                pending.append(below[0])
    return slots


def find_sources(
    edges: Iterable[Edge], known: Mapping[EdgeKey, int]
) -> tuple[tuple[int, ...], bool]:
    """Calls whose outputs reach these edges with no other known call between.

    Args:
        edges: where to begin; a walk visits at most ``MAX_WALK_NODES`` nodes.
        known: index of the call by the edge of its output.

    Returns:
        Their indices, and whether any value on the way is float16.
    """
    pending = [edge for edge in edges if edge[0] is not None]
    seen: set[Edge] = set()
    found: set[int] = set()
    has_float16 = False
    while pending and len(seen) < MAX_WALK_NODES:
        edge = pending.pop()
        if edge in seen:
            continue
        seen.add(edge)
        source = known.get(identify(edge))
        if source is not None:
            found.add(source)
            continue
        has_float16 = has_float16 or _get_dtype(edge) is torch.float16
        pending.extend(below for below in edge[0].next_functions if below[0] is not None)
    return tuple(sorted(found)), has_float16


def _get_dtype(edge: Edge) -> torch.dtype | None:
    """Type of the value at this edge, where its node tells."""
    node, number = edge
    described = getattr(node, "_input_metadata", ())
    return described[number].dtype if number < len(described) else None
