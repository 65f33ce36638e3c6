"""Where a later step finds what a function of forward was given and gave, without seeing its call.

A module's output leads down the graph to the nodes of the functions that were called before, which
keep tensors for backward. A tensor that a user's hook packs, as in a checkpoint, is left alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from gradwatch.capture.graph import Edge, Node, NodeKind, find_kind_of
from gradwatch.interruption import is_foreign

MAX_LENGTH = 32
"""Graph nodes between a module's output and a function's."""

MAX_SEARCH = 128
"""Nodes that are looked at on the way from one to the other."""

MAX_TRIES = 4
"""Modules that return after a function was called, and in which it is looked for."""

Path = tuple[int, ...]
"""Which of ``next_functions`` to take at each node, from an output's node on."""

_MISSING = object()


class Source(NamedTuple):
    """How a function's tensors are reached once a module has returned.

    Attributes:
        event: number of the module's event in its pass.
        where: ``"result"`` of the module, its ``"argument"``, or ``"saved"`` in the graph.
        number: of the result, the argument, or the output to start from.
        path: to the function's node, from there on.
        kind: of the node.
        version: of the tensor; another one has been changed in place.
    """

    event: int
    where: str
    number: int
    path: Path = ()
    kind: NodeKind = None
    version: int = 0

    def find_node(self, nodes: Sequence[Node]) -> Node | None:
        """The function's node; ``None`` where the graph is another one.

        Args:
            nodes: of the module's outputs.
        """
        node = follow(nodes, self.number, self.path)
        return node if node is not None and find_kind_of(node) == self.kind else None


def follow(nodes: Sequence[Node], number: int, path: Path) -> Node | None:
    """Go down a graph.

    Args:
        nodes: to start from.
        number: of the one to start from.
        path: to take.

    Returns:
        ``None`` where it leads nowhere.
    """
    if number >= len(nodes):
        return None
    node = nodes[number]
    for step in path:
        behind = node.next_functions
        if step >= len(behind):
            return None
        node = behind[step][0]
        if node is None:
            return None
    return node


def find_path(start: Node, goal: Node) -> Path | None:
    """A shortest way down the graph; ``None`` where there is none of at most ``MAX_LENGTH`` nodes.

    Args:
        start, goal: nodes of one graph.
    """
    reached: list[tuple[Node, Path]] = [(start, ())]
    seen: set[Node] = {start}
    for node, path in reached:  # grows
        if node == goal:
            return path
        if len(path) < MAX_LENGTH and len(seen) < MAX_SEARCH:
            for number, (below, _) in enumerate(node.next_functions):
                if below is not None and below not in seen:
                    seen.add(below)
                    reached.append((below, (*path, number)))
    return None


def read_saved(node: Node, name: str) -> Tensor | None:
    """A tensor that a node keeps; ``None`` where it has none of that name, or hooks have it.

    Args:
        node: of the graph, before its backward.
        name: such as ``"result"``.
    """
    raw = getattr(node, f"_raw_saved_{name}", None)
    if raw is None or getattr(raw, "unpack_hook", _MISSING) is not None:
        return None
    try:
        saved = getattr(node, f"_saved_{name}")
    except RuntimeError as error:  # it was changed in place, or its backward has run
        if is_foreign(error):
            raise
        return None
    return saved if isinstance(saved, Tensor) else None


@dataclass
class Pending:
    """A function that was called, until a module returns from which it can be reached.

    Attributes:
        position: of its event in the pass.
        node: of its output.
        saved: what is read of the node; ``""``: the output has to be found itself.
        output: held weakly; ``None`` where nobody asks for it.
        version: of the output.
        tries: modules that have returned since.
    """

    position: int
    node: Node
    saved: str
    output: weakref.ref[Tensor] | None = None
    version: int = 0
    tries: int = 0

    def find(
        self, event: int, outputs: Mapping[Edge, Tensor], args: tuple[Any, ...]
    ) -> Source | None:
        """Whether the event of a module leads to it.

        Args:
            event: number of the event.
            outputs: of the module, by edges.
            args: that the module was called with.
        """
        self.tries += 1
        output = None if self.output is None else self.output()
        if output is not None and output._version == self.version:
            for where, tensors in (("result", list(outputs.values())), ("argument", args)):
                for number, tensor in enumerate(tensors):
                    if tensor is output:
                        return Source(
                            event, where, number, (), find_kind_of(self.node), self.version
                        )
        return self._find_saved(event, [node for node, _ in outputs])

    def _find_saved(self, event: int, nodes: Sequence[Node]) -> Source | None:
        if not self.saved or read_saved(self.node, self.saved) is None:
            return None
        for number, node in enumerate(nodes):
            path = find_path(node, self.node)
            if path is not None:
                return Source(event, "saved", number, path, find_kind_of(self.node))
        return None
