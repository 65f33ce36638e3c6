"""Where a plan's calls are in a graph that dynamo has captured: what they take and what they give.

A call that is not found beyond doubt makes the whole graph unsuited: the step then runs eagerly.
"""

from __future__ import annotations

import operator
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Graph, Node

from gradwatch.capture.attention import find_sampler
from gradwatch.capture.call_measures import list_settings
from gradwatch.capture.compiled_nodes import (
    UnsuitedGraph,
    check_graph,
    learns,
    list_learning_outputs,
    read_example,
)
from gradwatch.capture.functions import FUNCTIONS, find_call
from gradwatch.capture.plan import CallSettings, Slot
from gradwatch.schema.activations import Activation
from gradwatch.schema.derivatives import Options

_LINEAR = torch._C._nn.linear
_SAME_ELEMENTS = frozenset(
    ("view", "reshape", "flatten", "unflatten", "transpose", "permute", "contiguous", "squeeze")
)
"""Methods whose result has the elements of what they are called on."""


class Site(NamedTuple):
    """One call in a graph.

    Attributes:
        slot: of the plan.
        outputs: nodes of what it gives; those of a module in any order.
        uses: what it was given, or another name of it inside, and the node that takes it: where the
            gradient leaves.
        given: its input; ``None``: no gradient leaves.
        settings: arguments of an activation's call.
        attention: of a fused attention, as ``compiled_taps.list_attention_readings`` takes it.
    """

    slot: Slot
    outputs: tuple[Node, ...]
    uses: tuple[tuple[Node, Node], ...] = ()
    given: Node | None = None
    settings: CallSettings | None = None
    attention: tuple[bool, tuple[Any, ...], dict[str, Any]] | None = None


def find_sites(slots: Sequence[Slot], graph: Graph, root: int) -> list[Site]:
    """All calls of a plan that have an entry, in the plan's order.

    Args:
        slots: events of one forward.
        graph: that dynamo has captured of it, whole.
        root: ``id`` of the outermost watched module, without what compilation puts around it.

    Raises:
        UnsuitedGraph: it holds something else than the plan, or what cannot be read.
    """
    check_graph(graph)
    finder = _Finder(graph, root)
    sites = [site for slot in slots if (site := finder.take(slot)) is not None]
    finder.check_end()
    if not list_learning_outputs(graph):
        raise UnsuitedGraph("no output that learns")
    for value in map(
        read_example, (node for site in sites for node in (*site.outputs, site.given))
    ):
        if value is not None and not value.numel():
            raise UnsuitedGraph("an empty tensor")
    return sites


def _is_data(node: Node) -> bool:
    """Whether it is no parameter."""
    is_param = node.op == "placeholder" and "_parameters_" in str(node.target)
    return learns(node) and not is_param


class _Finder:
    """Takes the graph's calls one by one, as the plan has them."""

    def __init__(self, graph: Graph, root: int) -> None:
        self._graph = graph
        self._root = root
        self._inside: dict[str, list[Node]] = defaultdict(list)
        self._functions: dict[tuple[int, bool], deque[Node]] = defaultdict(deque)
        self._counts: Counter[int] = Counter()
        for node in graph.nodes:
            if node.op in ("call_function", "call_method"):
                self._sort_in(node)

    def _sort_in(self, node: Node) -> None:
        keys = list(node.meta.get("nn_module_stack") or ())
        for key in keys:
            self._inside[key].append(node)
        module = int(keys[-1].partition("@")[0]) if keys else self._root
        is_attention = find_sampler(node.target) is not None
        if is_attention or (_find_activation(node)[0] is not None and learns(node)):
            self._functions[module, is_attention].append(node)

    def take(self, slot: Slot) -> Site | None:
        """The call of a slot; ``None`` for one that has no entry.

        Args:
            slot: the plan's next.
        """
        if slot.is_function:
            return self._take_function(slot)
        number = self._counts[slot.module]
        self._counts[slot.module] += 1
        if slot.key is None:
            return None
        suffix = f"@{number}" if number else ""
        inside = self._inside.get(f"{slot.module}{suffix}", [])
        outputs = self._find_outputs(slot, set(inside))
        _check_views(slot, outputs)
        given, uses = _find_given(slot, inside)
        return Site(slot, outputs, uses, given)

    def _take_function(self, slot: Slot) -> Site:
        waiting = self._functions[slot.module, slot.attention is not None]
        if not waiting:
            raise UnsuitedGraph("a function that is not found")
        node = waiting.popleft()
        if slot.attention is not None:
            return Site(slot, (node,), attention=_read_attention(node))
        activation, options = _find_activation(node)
        value, settings = read_example(node), list_settings(options)
        if activation is not slot.activation or _drop_flag(settings) != _drop_flag(slot.settings):
            raise UnsuitedGraph("another activation")
        if value is None or value.dim() != slot.n_dims:
            raise UnsuitedGraph("an activation of another shape")
        _check_views(slot, (node,))
        given = node.args[0]
        if not isinstance(given, Node) or read_example(given) is None:
            raise UnsuitedGraph("an activation of something else")
        has_gradient = bool(slot.inputs) and _is_data(given)
        uses = ((given, node),) if has_gradient else ()
        return Site(slot, (node,), uses, given, settings or tuple(options.items()))

    def _find_outputs(self, slot: Slot, inside: set[Node]) -> tuple[Node, ...]:
        leaving = [node for node in inside if learns(node) and not inside >= set(node.users)]
        if not inside and slot.module == self._root:
            leaving = list_learning_outputs(self._graph)
        if len(leaving) != slot.n_outputs:
            raise UnsuitedGraph("a call whose output is not found")
        return tuple(leaving)

    def check_end(self) -> None:
        """Nothing may be left of what the plan has taken.

        Raises:
            UnsuitedGraph: some is.
        """
        if any(self._functions.values()):
            raise UnsuitedGraph("functions that were not planned")
        found = Counter(int(key.partition("@")[0]) for key in self._inside)
        if any(module in self._counts and n > self._counts[module] for module, n in found.items()):
            raise UnsuitedGraph("calls that were not planned")


def _find_activation(node: Node) -> tuple[Activation | None, Options]:
    """The activation that a node is, or ``None``, and its arguments; tensors are nodes."""
    func: Any = node.target
    if node.op == "call_method":
        func = getattr(Tensor, str(func), None)
    if func not in FUNCTIONS:
        return None, {}
    return find_call(func, node.args, node.kwargs)


def _drop_flag(settings: CallSettings | None) -> CallSettings | None:
    """Arguments but for ``inplace``, which dynamo replaces by the name of the function."""
    return settings and tuple(setting for setting in settings if setting[0] != "inplace")


def _check_views(slot: Slot, outputs: Sequence[Node]) -> None:
    """A gradient that is read behind views has to be that of the views, and of nobody else."""
    for node in outputs if any(tap.path for tap in slot.outputs) else ():
        while node.op == "call_method" and node.target in _SAME_ELEMENTS:
            (node,) = node.all_input_nodes[:1]
            if len(node.users) > 1:
                raise UnsuitedGraph("a gradient that is read behind a view")
        value = read_example(node)
        if value is None or (value._is_view() and not _ends_in_view(node)):
            raise UnsuitedGraph("a gradient that is read behind a view")


def _ends_in_view(node: Node) -> bool:
    """Whether a function gives a view of what it has computed, and looks at that no more."""
    source = node.args[0] if node.target is operator.getitem else node
    return isinstance(source, Node) and (
        source.target is _LINEAR or find_sampler(source.target) is not None
    )


def _find_given(
    slot: Slot, inside: Sequence[Node]
) -> tuple[Node | None, tuple[tuple[Node, Node], ...]]:
    if not slot.inputs:
        return None, ()
    own = set(inside)
    pairs = [
        (given, node)
        for node in inside
        for given in _list_inputs(node)
        if given not in own and _is_data(given)
    ]
    if len({given for given, _ in pairs}) != 1:
        raise UnsuitedGraph("an input that is not found")
    uses = [use for pair in pairs for use in _follow_names(*pair)]
    if len(slot.inputs) == 1:  # a function that takes it several times may let it out at one place
        uses = list(dict.fromkeys(uses))
    if len(uses) != len(slot.inputs) or not own.issuperset(user for _, user in uses):
        raise UnsuitedGraph("an input that is not found")
    if len({user for _, user in uses}) != len(uses):
        raise UnsuitedGraph("an input that one function takes twice")
    return pairs[0][0], tuple(uses)


def _follow_names(given: Node, user: Node) -> Iterator[tuple[Node, Node]]:
    """Uses of a tensor, also of what is the same one again, as after a conversion to its dtype."""
    if read_example(user) is not read_example(given):
        yield given, user
        return
    for other in user.users:
        yield from _follow_names(user, other)


def _list_inputs(node: Node) -> Iterator[Node]:
    """As often as they are taken."""
    found: list[Node] = []
    torch.fx.map_arg((node.args, node.kwargs), found.append)
    return iter(found)


def _read_attention(node: Node) -> tuple[bool, tuple[Any, ...], dict[str, Any]]:
    if any(read_example(given) is None for given in node.all_input_nodes):
        raise UnsuitedGraph("an attention whose settings vary")
    return node.target is F.multi_head_attention_forward, node.args, dict(node.kwargs)
