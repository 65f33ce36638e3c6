"""Loops over time steps that carry a state from step to step outside of any module's call.

The weights of such a cell see the whole sequence at once; the loop then reads their output one step
after the other. That is seen in the graph: many reads of one dimension, each deeper than the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from gradwatch.capture.calls import Measured, Part
from gradwatch.capture.device_values import ROOT, RawValue
from gradwatch.capture.graph import MAX_WALK_NODES, Edge, EdgeKey, Node, identify
from gradwatch.capture.unrolling import N_BUCKETS

LEAST_READS = 4
"""Positions of a dimension that a loop over time reads at least."""

MAX_READ_NODES = 64
"""Nodes between what is read and the call that gave it."""


class StepRead(NamedTuple):
    """An output of which a loop reads one step after the other.

    Attributes:
        call: index of the call that gave it.
        edge: of the output.
        axis: dimension of its time steps.
    """

    call: int
    edge: Edge
    axis: int


class _Group(NamedTuple):
    """What is read, and in which dimension."""

    edge: Edge
    dim: int


def find_step_reads(
    outputs: Iterable[Edge], known: Mapping[EdgeKey, int], cut_off: Collection[int]
) -> list[StepRead]:
    """Outputs that are read step by step in a graph.

    Args:
        outputs: of the graph; a walk visits at most ``MAX_WALK_NODES`` edges.
        known: index of the call by the edge of its output.
        cut_off: calls of which something was seen to lose its graph: a state that is detached at
            each step leaves no chain.
    """
    visited = _walk(outputs)
    groups: dict[_Group, dict[int, Edge]] = defaultdict(dict)
    for edge in visited:
        found = _find_position(edge)
        if found is not None:
            groups[found[0]][found[1]] = edge
    groups = {group: reads for group, reads in groups.items() if len(reads) >= LEAST_READS}
    depths = _measure_depths(visited) if groups else {}
    return [
        read
        for group, reads in groups.items()
        for read in _find_calls(group, known)
        if _is_chain(reads, depths) or read.call in cut_off
    ]


def _walk(outputs: Iterable[Edge]) -> set[Edge]:
    pending = list(outputs)
    visited: set[Edge] = set()
    while pending and len(visited) < MAX_WALK_NODES:
        edge = pending.pop()
        if edge[0] is not None and edge not in visited:
            visited.add(edge)
            pending.extend(edge[0].next_functions)
    return visited


def _find_position(edge: Edge) -> tuple[_Group, int] | None:
    """What a node reads, and at which position of a dimension."""
    node, number = edge
    name = node.name()
    if name == "UnbindBackward0" or (name == "SplitBackward0" and node._saved_split_size == 1):
        position = number
    elif name == "SelectBackward0":
        position = node._saved_index
    elif name == "SliceBackward0" and node._saved_end - node._saved_start == 1:
        position = node._saved_start
    else:
        return None
    below = node.next_functions[0]
    if below[0] is None:
        return None
    return _Group(below, node._saved_dim), position


def _measure_depths(edges: set[Edge]) -> dict[Edge, int]:
    """Nodes on the longest way down to each edge; a node has a higher number than what it takes."""
    depths: dict[Edge, int] = defaultdict(int)
    of_nodes: dict[Node, int] = defaultdict(int)
    for node in sorted({edge[0] for edge in edges}, key=lambda node: -node._sequence_nr()):
        for below in node.next_functions:
            if below in edges:
                depth = of_nodes[node] + 1
                depths[below] = max(depths[below], depth)
                of_nodes[below[0]] = max(of_nodes[below[0]], depth)
    return depths


def _is_chain(reads: Mapping[int, Edge], depths: Mapping[Edge, int]) -> bool:
    """Whether what is read first has to go through what is made of the later reads."""
    first, last = reads[min(reads)], reads[max(reads)]
    return depths.get(first, 0) - depths.get(last, 0) >= len(reads) - 1


def _find_calls(group: _Group, known: Mapping[EdgeKey, int]) -> list[StepRead]:
    """The calls whose outputs are read, with no other call between."""
    size = _get_shape(group.edge)[group.dim : group.dim + 1]
    pending, found = [group.edge], []
    seen: set[Edge] = set()
    while pending and len(seen) < MAX_READ_NODES:
        edge = pending.pop()
        if edge[0] is None or edge in seen:
            continue
        seen.add(edge)
        call = known.get(identify(edge))
        if call is None:
            pending.extend(edge[0].next_functions)
            continue
        axis = _find_axis(_get_shape(edge), group.dim, size)
        if axis is not None:
            found.append(StepRead(call, edge, axis))
    return found


def _get_shape(edge: Edge) -> tuple[int, ...]:
    described = getattr(edge[0], "_input_metadata", ())
    return tuple(described[edge[1]].shape) if edge[1] < len(described) else ()


def _find_axis(shape: tuple[int, ...], dim: int, size: tuple[int, ...]) -> int | None:
    """Dimension of a call's output that is read, perhaps after a transposition."""
    if not size:
        return None
    if shape[dim : dim + 1] == size:
        return dim
    return shape.index(size[0]) if shape.count(size[0]) == 1 else None


def list_step_parts(steps: int) -> list[Part]:
    """Entries for stretches of time.

    Args:
        steps: how many there are.
    """
    return [Part("time", bucket, "recurrent", "steps") for bucket in range(min(N_BUCKETS, steps))]


def measure_steps(grad: Tensor, axis: int) -> Measured:
    """Norm of a gradient by stretches of time, of the average step.

    Args:
        grad: of an output that is read step by step.
        axis: dimension of its time steps.

    Example:
        >>> import torch
        >>> grad = torch.tensor([[0.0, 0.0, 0.0, 5.0], [0.0, 0.0, 3.0, 0.0]])
        >>> norms = [value for _, name, value in measure_steps(grad, 1) if name.endswith("norm")]
        >>> [norm.value.sqrt().item() for norm in norms]
        [0.0, 0.0, 3.0, 5.0]
    """
    rows = grad.detach().movedim(axis, 0).reshape(grad.shape[axis], -1)
    squares, zeros = rows.abs().double().square().sum(1), (rows == 0).double().mean(1)
    parts = list_step_parts(len(rows))
    for part in parts:
        first, last = (-(-b * len(rows) // len(parts)) for b in (part.call, part.call + 1))
        yield part, "grad_output_l2_norm", RawValue(squares[first:last].mean(), ROOT)
        yield part, "grad_zero_fraction", RawValue(zeros[first:last].mean())
