"""What a step is expected to do in forward: drafted while a step is followed call by call.

A later step that does the same is executed from the plan: nobody walks the graph, compares names
with those of the step before or asks what a module is. What the plan relies on is checked as it
goes, and a step that turns out otherwise gives no record.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from gradwatch.capture.calls import Call, CallKey
from gradwatch.capture.graph import Edge, Node, find_input_slots, skip_views
from gradwatch.schema.activations import Activation

MAX_PATH = 32
"""Graph nodes between a call's output and where its gradient is read; a call with more of them
cannot be planned."""

MAX_SEARCH = 128
"""Nodes that are looked at on the way from one to the other."""

Path = tuple[int, ...]
"""Which of ``next_functions`` to take at each node, from an output's node on."""


class Tap(NamedTuple):
    """A node at which a gradient is read, as seen from a call's output.

    Attributes:
        output: number of the output.
        path: from its node.
        name: of the node that is reached.
        number: of the value at that node.
        below: names of the nodes behind it; "" for what takes no gradient.
    """

    output: int
    path: Path
    name: str
    number: int
    below: tuple[str, ...]

    def find(self, nodes: Sequence[Node]) -> Node | None:
        """The node in another step's graph; ``None`` where that is another graph.

        Args:
            nodes: of the call's outputs, in their order.
        """
        node = nodes[self.output]
        for number in self.path:
            behind = node.next_functions
            if number >= len(behind) or behind[number][0] is None:
                return None
            node = behind[number][0]
        return node if node.name() == self.name and name_below(node) == self.below else None


def name_below(node: Node) -> tuple[str, ...]:
    """Names of the nodes behind a node.

    Args:
        node: of an autograd graph.
    """
    return tuple(["" if below is None else below.name() for below, _ in node.next_functions])


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
        attention: fqn of the module inside which a fused attention is called.
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
    attention: str | None = None
    root: int | None = None


@dataclass(frozen=True)
class Plan:
    """All passes of a step.

    Attributes:
        passes: events of each pass; one for all of them where they are the same.
    """

    passes: tuple[tuple[Slot, ...], ...]

    @property
    def needs_mode(self) -> bool:
        """Whether functions have to be seen, and not modules only."""
        return any(
            slot.activation or slot.attention is not None for each in self.passes for slot in each
        )

    def is_known(self, linked: Container[CallKey]) -> bool:
        """Whether a record has described all its calls.

        Args:
            linked: calls that a record has described.
        """
        return all(slot.key is None or slot.key in linked for each in self.passes for slot in each)


@dataclass
class Draft:
    """Collects the events of a step that is followed call by call.

    Attributes:
        obstacle: why the step cannot be planned; ``""``: it can.
    """

    obstacle: str = ""
    _passes: list[list[Slot]] = field(default_factory=lambda: [[]])
    _root: int | None = None

    def begin_root(self, module: nn.Module) -> None:
        """The outermost watched module is about to run.

        Args:
            module: that is watched.
        """
        self._root = id(module)

    def begin_pass(self) -> None:
        """Another pass begins."""
        self._passes.append([])

    def reject(self, obstacle: str) -> None:
        """Something has happened that only following each call gets right.

        Args:
            obstacle: what it was, in a few words; the first one stays.
        """
        self.obstacle = self.obstacle or obstacle

    def skip(self, module: nn.Module, n_outputs: int) -> None:
        """A module without an entry has returned.

        Args:
            module: that has returned.
            n_outputs: tensors that it returned with a graph.
        """
        self._add(Slot(id(module), module.training, n_outputs=n_outputs))

    def add_attention(self, module: nn.Module, fqn: str) -> None:
        """A fused attention is called inside a module.

        Args:
            module: that is running.
            fqn: of the module.
        """
        self._add(Slot(id(module), module.training, attention=fqn))

    def add_call(
        self,
        module: nn.Module,
        call: Call | None,
        outputs: Mapping[Edge, Tensor],
        inputs: frozenset[Edge],
        **facts: Any,
    ) -> None:
        """A call with an entry has returned.

        Args:
            module: that was called, or inside which an activation was.
            call: its entry; ``None`` beyond ``calls.MAX_CALLS``: the step cannot be planned.
            outputs: tensors by their edges.
            inputs: edges of what it was given, where the gradients of its inputs are read.
            facts: further fields of ``Slot``.
        """
        if call is None:
            self.reject("calls without an entry")
            return
        nodes = [node for node, _ in outputs]
        above = [
            _describe_output(number, *output, inputs)
            for number, output in enumerate(outputs.items())
        ]
        below = [_describe_slot(nodes, *slot) for slot in find_input_slots(tuple(outputs), inputs)]
        taps = [tap for tap in (*above, *below) if tap is not None]
        if len(taps) < len(above) + len(below):
            self.reject("a gradient that is read far from its call")
            return
        where = tuple(taps[: len(above)]), tuple(taps[len(above) :])
        known = id(module), module.training, (call.layer.fqn, call.layer.call), len(outputs)
        self._add(Slot(*known, *where, **facts))

    def _add(self, slot: Slot) -> None:
        if self._root is not None:
            slot = replace(slot, root=self._root)
            self._root = None
        self._passes[-1].append(slot)

    def finish(self) -> Plan | None:
        """The plan, or ``None`` where there is none."""
        passes = [tuple(slots) for slots in self._passes]
        if self.obstacle or not all(passes):
            return None
        same = all(slots == passes[0] for slots in passes)
        return Plan(tuple(passes[:1]) if same else tuple(passes))


def _describe_output(
    number: int, edge: Edge, tensor: Tensor, inputs: frozenset[Edge]
) -> Tap | None:
    node, output_number = skip_views(edge, inputs) if tensor._is_view() else edge
    path = find_path(edge[0], node)
    return None if path is None else Tap(number, path, node.name(), output_number, name_below(node))


def _describe_slot(nodes: Sequence[Node], node: Node, position: int) -> Tap | None:
    for number, start in enumerate(nodes):
        path = find_path(start, node)
        if path is not None:
            return Tap(number, path, node.name(), position, name_below(node))
    return None


def find_path(start: Node, goal: Node) -> Path | None:
    """A shortest way down the graph; ``None`` where there is none of at most ``MAX_PATH`` nodes.

    Args:
        start, goal: nodes of one graph.
    """
    reached: list[tuple[Node, Path]] = [(start, ())]
    seen: set[Node] = {start}
    for node, path in reached:  # grows
        if node == goal:
            return path
        if len(path) < MAX_PATH and len(seen) < MAX_SEARCH:
            for number, (below, _) in enumerate(node.next_functions):
                if below is not None and below not in seen:
                    seen.add(below)
                    reached.append((below, (*path, number)))
    return None
