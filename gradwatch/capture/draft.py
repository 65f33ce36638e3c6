"""What a step does in forward, written down while it is followed call by call."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from gradwatch.capture.calls import Call
from gradwatch.capture.graph import Edge, Node, find_input_slots, find_kind_of, skip_views
from gradwatch.capture.plan import Plan, Slot, Tap, list_below
from gradwatch.capture.reach import MAX_TRIES, Pending, find_path, read_saved


@dataclass
class Draft:
    """Collects the events of a step that is followed call by call.

    Attributes:
        obstacle: why the step cannot be planned; ``""``: it can.
    """

    obstacle: str = ""
    _passes: list[list[Slot]] = field(default_factory=lambda: [[]])
    _root: int | None = None
    _roots: list[int] = field(default_factory=list)
    _pending: list[Pending] = field(default_factory=list)

    def begin_root(self, module: nn.Module) -> None:
        """The outermost watched module is about to run.

        Args:
            module: that is watched.
        """
        self._root = id(module)
        self._roots.append(self._root)
        self._pending.clear()

    def begin_pass(self) -> None:
        """Another pass begins."""
        self._passes.append([])
        self._pending.clear()

    def reject(self, obstacle: str) -> None:
        """Something has happened that only following each call gets right.

        Args:
            obstacle: what it was, in a few words; the first one stays.
        """
        self.obstacle = self.obstacle or obstacle

    def skip(
        self, module: nn.Module, outputs: Mapping[Edge, Tensor], args: tuple[Any, ...]
    ) -> None:
        """A module without an entry has returned.

        Args:
            module: that has returned.
            outputs: tensors with a graph that it returned, by their edges.
            args: that it was called with.
        """
        self._reach(module, outputs, args)
        self._add(Slot(id(module), module.training, n_outputs=len(outputs)))

    def add_attention(self, module: nn.Module, fqn: str, node: Node | None) -> None:
        """A fused attention was called inside a module.

        Args:
            module: that is running.
            fqn: of the module.
            node: that keeps what it was given; ``None`` where there is none.
        """
        if node is not None:
            self._pending.append(Pending(len(self._passes[-1]), node, "query"))
        self._add(Slot(id(module), module.training, attention=fqn))

    def add_activation(
        self,
        module: nn.Module,
        call: Call | None,
        tensors: tuple[Tensor, Tensor],
        inputs: frozenset[Edge],
        args: tuple[Any, ...],
        **facts: Any,
    ) -> None:
        """An activation was called inside a module.

        Args:
            module: that is running.
            call: its entry, as in ``add_call``.
            tensors: its input and its output.
            inputs: edges of the input.
            args: that the module was called with.
            facts: further fields of ``Slot``.
        """
        x, y = tensors
        node, position = y.grad_fn, len(self._passes[-1])
        takes_argument = False
        if facts["activation"].needs_input:
            kept = read_saved(node, "self")
            takes_argument = kept is None or kept.shape != x.shape
        is_reachable = not takes_argument or (bool(args) and args[0] is x is not y)
        if is_reachable and facts["settings"] is not None:
            saved = "result" if not facts["activation"].needs_input else ""
            self._pending.append(Pending(position, node, saved, weakref.ref(y), y._version))
        self._add_call(module, call, {(node, y.output_nr): y}, inputs, takes_argument, facts)

    def add_call(
        self,
        module: nn.Module,
        call: Call | None,
        outputs: Mapping[Edge, Tensor],
        inputs: frozenset[Edge],
        args: tuple[Any, ...],
        role: str,
    ) -> None:
        """A module's call with an entry has returned.

        Args:
            module: that was called.
            call: its entry; ``None`` beyond ``calls.MAX_CALLS``: the step cannot be planned.
            outputs: tensors by their edges.
            inputs: edges of what it was given, where the gradients of its inputs are read.
            args: that it was called with.
            role: of the module.
        """
        self._reach(module, outputs, args)
        self._add_call(module, call, outputs, inputs, False, {"role": role})

    def _reach(
        self, module: nn.Module, outputs: Mapping[Edge, Tensor], args: tuple[Any, ...]
    ) -> None:
        """Functions that were called before, and are reached from what a module has returned."""
        if self.obstacle:
            return
        slots, waiting = self._passes[-1], []
        for pending in self._pending if outputs else ():
            source = pending.find(len(slots), outputs, args)
            if source is not None:
                slots[pending.position] = replace(slots[pending.position], source=source)
            elif pending.tries < MAX_TRIES:
                waiting.append(pending)
        if id(module) in self._roots:
            self._pending = []  # they keep the graph alive
        elif outputs:
            self._pending = waiting

    def _add_call(
        self,
        module: nn.Module,
        call: Call | None,
        outputs: Mapping[Edge, Tensor],
        inputs: frozenset[Edge],
        takes_argument: bool,
        facts: dict[str, Any],
    ) -> None:
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
        self._add(Slot(*known, *where, takes_argument=takes_argument, **facts))

    def _add(self, slot: Slot) -> None:
        if self._root is not None:
            slot = replace(slot, root=self._root)
            self._root = None
        self._passes[-1].append(slot)

    def finish(self) -> Plan | None:
        """The plan, or ``None`` where there is none."""
        self._pending.clear()
        passes = [tuple(_check_argument(slot, slots) for slot in slots) for slots in self._passes]
        returned = [slot.module for slots in passes for slot in slots if not slot.is_function]
        if sum(module in self._roots for module in returned) != len(self._roots):
            self.reject("an outermost module inside itself")
        if self.obstacle or not all(passes):
            return None
        same = all(slots == passes[0] for slots in passes)
        return Plan(tuple(passes[:1]) if same else tuple(passes))


def _check_argument(slot: Slot, slots: Sequence[Slot]) -> Slot:
    """A module's argument is a function's input where the function's output is its result."""
    source = slot.source
    if source is None or not slot.takes_argument:
        return slot
    is_own = source.where == "result" and slots[source.event].module == slot.module
    return slot if is_own else replace(slot, source=None)


def _describe_output(
    number: int, edge: Edge, tensor: Tensor, inputs: frozenset[Edge]
) -> Tap | None:
    node, output_number = skip_views(edge, inputs) if tensor._is_view() else edge
    path = find_path(edge[0], node)
    return (
        None
        if path is None
        else Tap(number, path, find_kind_of(node), output_number, list_below(node))
    )


def _describe_slot(nodes: Sequence[Node], node: Node, position: int) -> Tap | None:
    for number, start in enumerate(nodes):
        path = find_path(start, node)
        if path is not None:
            return Tap(number, path, find_kind_of(node), position, list_below(node))
    return None
