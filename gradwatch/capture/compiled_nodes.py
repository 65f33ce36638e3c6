"""Nodes of a graph that dynamo has captured, and what makes the graph unsuited as a whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

_OPERATORS = torch._ops.OpOverload, torch._ops.OpOverloadPacket


class UnsuitedGraph(Exception):
    """A graph that cannot be read, and why."""


def read_example(node: Any) -> Tensor | None:
    """The fake tensor that stands for a node's value; ``None`` where that is no tensor.

    Args:
        node: of the graph, or a constant in its place.
    """
    value = node.meta.get("example_value") if isinstance(node, Node) else None
    return value if isinstance(value, Tensor) else None


def expect_example(node: Node) -> Tensor:
    """As ``read_example``, of a node whose value is known to be a tensor.

    Args:
        node: of the graph.
    """
    value = read_example(node)
    assert value is not None
    return value


def check_graph(graph: Graph) -> None:
    """Refuse what cannot be read.

    Args:
        graph: that dynamo has captured.

    Raises:
        UnsuitedGraph: it holds such a thing.
    """
    for node in graph.nodes:
        value, target = node.meta.get("example_value"), node.target
        is_operator = isinstance(target, torch._ops.HigherOrderOperator)
        if is_operator or node.op in ("get_attr", "call_module"):
            raise UnsuitedGraph("a higher-order operator")
        if isinstance(target, _OPERATORS) and not str(target).startswith("aten."):
            raise UnsuitedGraph("an operator that is not torch's")
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            raise UnsuitedGraph("dynamic shapes")
        if isinstance(value, Tensor):
            _check_value(value)


def _check_value(value: Tensor) -> None:
    is_plain = value.layout is torch.strided and not value.is_complex()
    if not is_plain or not all(isinstance(size, int) for size in value.shape):
        raise UnsuitedGraph("tensors of another kind, or dynamic shapes")


def list_before(node: Node) -> set[Node]:
    """A node and all that it is computed from.

    Args:
        node: of the graph.
    """
    before, waiting = {node}, [node]
    while waiting:
        fresh = set(waiting.pop().all_input_nodes) - before
        before |= fresh
        waiting += fresh
    return before


def list_learning_outputs(graph: Graph) -> list[Node]:
    """Outputs of a graph from which gradients come back.

    Args:
        graph: that dynamo has captured.
    """
    out = next(node for node in graph.nodes if node.op == "output")
    return [node for node in out.all_input_nodes if learns(node)]


def learns(node: Any) -> bool:
    """Whether a node's value is a tensor that gets a gradient.

    Args:
        node: of the graph, or a constant in its place.
    """
    value = read_example(node)
    return value is not None and value.requires_grad
