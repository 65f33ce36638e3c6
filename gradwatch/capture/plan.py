"""What a step is expected to do in forward, as steps before it did.

A later step that does the same is executed from the plan: nobody walks the graph, compares names
with those of the step before or asks what a module is. What the plan relies on is checked as it
goes, and a step that turns out otherwise gives no record.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradwatch.capture.calls import CallKey
from gradwatch.capture.graph import Node, NodeKind, find_kind_of
from gradwatch.capture.reach import Path, Source, follow, read_saved
from gradwatch.schema.activations import Activation

CallSettings = tuple[tuple[str, Any], ...]
"""Arguments of a call by name, sorted."""


class Tap(NamedTuple):
    """A node at which a gradient is read, as seen from a call's output.

    Attributes:
        output: number of the output.
        path: from its node.
        kind: of the node that is reached.
        number: of the value at that node.
        below: kinds of the nodes behind it.
    """

    output: int
    path: Path
    kind: NodeKind
    number: int
    below: tuple[NodeKind, ...]


class Probe(NamedTuple):
    """A node at which gradients are read, of all taps that lead to it.

    Attributes:
        output, path, kind, below: as of ``Tap``.
        numbers: of the values at which gradients of outputs arrive.
        positions: at which gradients of inputs leave.
        is_builtin: the node is torch's own, which does not write to what arrives; a function of
            the user's may.
    """

    output: int
    path: Path
    kind: NodeKind
    below: tuple[NodeKind, ...]
    numbers: tuple[int, ...]
    positions: tuple[int, ...]
    is_builtin: bool = False

    def find(self, nodes: Sequence[Node]) -> Node | None:
        """The node in another step's graph; ``None`` where that is another graph.

        Args:
            nodes: of the call's outputs, in their order.
        """
        node = nodes[self.output] if not self.path else follow(nodes, self.output, self.path)
        if node is None or (type(node) is not self.kind and find_kind_of(node) != self.kind):
            return None
        behind = node.next_functions
        if len(behind) != len(self.below):
            return None
        for (below, _), kind in zip(behind, self.below, strict=True):
            if type(below) is not kind and find_kind_of(below) != kind:
                return None
        return node


def _is_builtin(kind: NodeKind) -> bool:
    return not (
        isinstance(kind, type) and issubclass(kind, torch.autograd.function.BackwardCFunction)
    )


def list_below(node: Node) -> tuple[NodeKind, ...]:
    """Kinds of the nodes behind a node.

    Args:
        node: of an autograd graph.
    """
    return tuple([find_kind_of(below) for below, _ in node.next_functions])


@dataclass(frozen=True)
class Slot:
    """One event of forward.

    Attributes:
        module: ``id`` of the module that is running, or has returned.
        is_training: its mode.
        key: of the call's entry; ``None`` without one.
        n_outputs: tensors that the call returned with a graph.
        outputs, inputs: where to read the gradients of its outputs and of its inputs.
        role: of a module.
        activation: of an activation's call.
        axis, n_dims: dimension that counts units of what the activation returned, and how many
            dimensions that has; ``None``: nobody counts its units.
        settings: arguments of an activation's call; ``None`` where some are no plain values.
        attention: fqn of the module inside which a fused attention is called.
        source: where a function's tensors are found without seeing its call; ``None``: nowhere.
        takes_argument: its input is its module's first argument; else its node keeps it.
        root: ``id`` of the outermost module, at its first event.
    """

    module: int
    is_training: bool
    key: CallKey | None = None
    n_outputs: int = 0
    outputs: tuple[Tap, ...] = ()
    inputs: tuple[Tap, ...] = ()
    role: str = ""
    activation: Activation | None = None
    axis: int | None = None
    n_dims: int = 0
    settings: CallSettings | None = None
    attention: str | None = None
    source: Source | None = None
    takes_argument: bool = False
    root: int | None = None

    @cached_property
    def probes(self) -> tuple[Probe, ...]:
        """Its taps by node."""
        found: dict[Any, tuple[list[int], list[int]]] = {}
        for number, taps in enumerate((self.outputs, self.inputs)):
            for tap in taps:
                key = tap.output, tap.path, tap.kind, tap.below
                found.setdefault(key, ([], []))[number].append(tap.number)
        return tuple(
            Probe(output, path, kind, below, tuple(numbers), tuple(positions), _is_builtin(kind))
            for (output, path, kind, below), (numbers, positions) in found.items()
        )

    @cached_property
    def is_builtin(self) -> bool:
        """Whether all nodes at which its gradients are read are torch's own."""
        return all(each.is_builtin for each in self.probes)

    @property
    def is_function(self) -> bool:
        """Whether it is no module that returns, but a function that is called."""
        return self.activation is not None or self.attention is not None


class Stop(NamedTuple):
    """An event at which a step that is executed reads something.

    Attributes:
        slot: the event.
        functions: what was called before it, and is reached from it.
        is_function: the event is the call of one, and no module's return.
    """

    slot: Slot
    functions: tuple[Slot, ...] = ()
    is_function: bool = False


@dataclass(frozen=True)
class Plan:
    """All passes of a step.

    Attributes:
        passes: events of each pass; one for all of them where they are the same.
    """

    passes: tuple[tuple[Slot, ...], ...]

    @cached_property
    def needs_mode(self) -> bool:
        """Whether functions have to be seen, and not modules only."""
        return any(slot.is_function and not slot.source for each in self.passes for slot in each)

    @cached_property
    def stops(self) -> tuple[tuple[Stop, ...], ...]:
        """Of each pass, the events in their order; of modules only where those lead to the rest."""
        if self.needs_mode:
            return tuple(
                tuple(Stop(slot, (), slot.is_function) for slot in each) for each in self.passes
            )
        return tuple(_list_stops(each) for each in self.passes)

    def list_roots(self) -> list[int]:
        """``id`` of each outermost module, in the order of their calls."""
        return [slot.root for each in self.passes for slot in each if slot.root is not None]

    def is_known(self, linked: Container[CallKey]) -> bool:
        """Whether a record has described all its calls.

        Args:
            linked: calls that a record has described.
        """
        return all(slot.key is None or slot.key in linked for each in self.passes for slot in each)


def _list_stops(slots: Sequence[Slot]) -> tuple[Stop, ...]:
    reached: dict[int, list[Slot]] = {}
    for slot in slots:
        if slot.source is not None:
            reached.setdefault(slot.source.event, []).append(slot)
    return tuple(
        Stop(slot, tuple(reached.get(number, ())))
        for number, slot in enumerate(slots)
        if not slot.is_function
    )


def find_function(slot: Slot, outputs: Sequence[Tensor], args: tuple[Any, ...]) -> Any:
    """What a function was given and gave, once a module has returned.

    Args:
        slot: of the function.
        outputs: of the module.
        args: that the module was called with.

    Returns:
        Input and output of an activation (twice the output where the input is not needed), the
        node of an attention; ``None`` where they are not where they were.
    """
    source = slot.source
    if source is None:
        return None
    if source.where != "saved":
        tensors = outputs if source.where == "result" else args
        y = tensors[source.number] if source.number < len(tensors) else None
        if isinstance(y, Tensor) and y._version == source.version and y.grad_fn is not None:
            return _add_input(slot, y, args)
        return None
    node = source.find_node([output.grad_fn for output in outputs])
    if node is None or slot.attention is not None:
        return node
    y = read_saved(node, "result")
    return None if y is None else _add_input(slot, y, args)


def _add_input(slot: Slot, y: Tensor, args: tuple[Any, ...]) -> tuple[Tensor, Tensor] | None:
    if slot.activation is None or not slot.activation.needs_input:
        return y, y
    given = args[:1] if slot.takes_argument else (read_saved(y.grad_fn, "self"),)
    is_found = bool(given) and isinstance(given[0], Tensor) and given[0].shape == y.shape
    return (given[0], y) if is_found else None
