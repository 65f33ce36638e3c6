"""Changes in place inside a captured graph, made the same without writing to anything."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Graph, Node

from gradwatch.capture.compiled_nodes import UnsuitedGraph, learns, read_example
from gradwatch.capture.functions import FUNCTIONS, find_call

_UPDATES: dict[Any, Any] = {operator.iadd: operator.add, operator.imul: operator.mul}
"""Operators that write to their left side, and those that give the same without that."""


def avoid_changes(graph: Graph) -> None:
    """Let nothing that learns be changed in place: what is put between must not be a view of it.

    Args:
        graph: that is going to be changed.

    Raises:
        UnsuitedGraph: something is, and somebody may see it.
    """
    for node in graph.nodes:
        changed = _find_changed(node)
        if changed is None or not (learns(changed) or learns(node)):
            continue
        before, after = read_example(changed), read_example(node)
        if before is None or after is None or set(changed.users) != {node} or before._is_view():
            raise UnsuitedGraph("a change in place")
        if changed.op == "placeholder" or before.dtype != after.dtype:
            raise UnsuitedGraph("a change in place")
        _replace(node)


def _find_changed(node: Node) -> Any:
    """What a node changes in place, if anything."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.op not in ("call_function", "call_method"):
        return None
    if "out" in node.kwargs or node.target in (operator.setitem, operator.delitem):
        raise UnsuitedGraph("a change in place")
    writes = name.endswith("_") and not name.endswith("__") and not name.startswith("_")
    is_flagged = node.kwargs.get("inplace") or (node.target in FUNCTIONS and _has_flag(node))
    is_update = name.startswith("i") and hasattr(operator, f"__{name}__")
    return node.args[0] if node.args and (writes or is_flagged or is_update) else None


def _has_flag(node: Node) -> bool:
    return bool(find_call(node.target, node.args, node.kwargs)[1].get("inplace"))


def _replace(node: Node) -> None:
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
    elif node.target in FUNCTIONS and _has_flag(node):
        place = 1 + FUNCTIONS[node.target].options.index("inplace")
        node.args = (*node.args[:place], False, *node.args[place + 1 :])
    elif node.target in FUNCTIONS and (plain := _find_plain(node.target)) is not None:
        node.target = plain
    elif node.target in _UPDATES:
        node.target = _UPDATES[node.target]
    else:
        raise UnsuitedGraph("a change in place")


def _find_plain(function: Any) -> Any:
    """Of an activation that writes in place, such as ``elu_``, the one that does not."""
    name = str(function.__name__)
    if not name.endswith("_"):
        return None
    found = (getattr(home, name[:-1], None) for home in _HOMES)
    return next((plain for plain in found if plain is not None), None)


_HOMES = torch._C._nn, torch
