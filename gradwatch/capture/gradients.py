"""Gradients of calls: hooks on the autograd nodes of what a call takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradwatch.capture import statistics
from gradwatch.capture.call_rows import (
    INPUT_GRADIENTS,
    OUTPUT_GRADIENTS,
    ZEROS_OF_GRADIENTS,
    CallRows,
)
from gradwatch.capture.device_values import Ledger
from gradwatch.capture.frames import has_modes, raise_again
from gradwatch.capture.graph import Edge, Node, find_input_slots
from gradwatch.capture.native import GRAD_INPUT, GRAD_OUTPUT, make_table
from gradwatch.capture.plan import Probe, Slot
from gradwatch.capture.shared_norms import SharedNorms
from gradwatch.capture.statistics import SAMPLE_SIZE
from gradwatch.capture.weak_calls import call_weakly


class _Parts:
    """What leaves a call at several places of one input, until all of it is there."""

    def __init__(self, count: int) -> None:
        self._count = self._missing = count
        self._sum: Tensor | None = None

    def add(self, grad: Tensor) -> Tensor | None:
        """The whole, with the last part."""
        whole = grad.detach() if self._sum is None else self._sum + grad.detach()
        self._missing -= 1
        if self._missing:
            self._sum = whole
            return None
        self._missing, self._sum = self._count, None
        return whole


class GradientReader:
    """Reads the gradient at each call's output and input while it lives.

    Args:
        ledger: where the values go.
        guard: calls a function of ours so that its exceptions never reach the training.
        counts: whether the running backward is a training pass.
        rows: takes small gradients, to be reduced together; ``None``: each is reduced at once.

    Attributes:
        reached_roots: numbers of the outermost calls that a training pass went back through.
        native: reads what it can in compiled code; ``None`` without that.
    """

    def __init__(
        self,
        ledger: Ledger,
        guard: Callable[..., Any],
        counts: Callable[[], bool],
        rows: CallRows | None = None,
    ) -> None:
        self.reached_roots: set[int] = set()
        self._ledger = ledger
        self._guard = guard
        self._ask = counts
        self._task = -1
        self._is_training = False
        self._rows = rows
        self._norms = SharedNorms()
        self._is_open = True
        self.native = make_table(
            call_weakly(self._counts), partial(guard, raise_again), self.reached_roots
        )

    def close(self) -> None:
        """Read no more; hooks that are still on a graph die with it."""
        self._is_open = False
        self._norms.clear()
        if self.native is not None:
            self.native.close()

    def flush(self) -> None:
        """Hand over what compiled code has read."""
        if self.native is not None:
            self.native.flush(self._ledger)

    def watch_output(self, edge: Edge, index: int, root: int) -> None:
        """Read the gradient that arrives at this edge: the total over all that use it.

        Args:
            edge: of one output of the call.
            index: of the call.
            root: number of the outermost call around it.
        """
        node, number = edge
        node.register_prehook(partial(self._see, self._read_output, number, index, root))

    def watch_inputs(
        self,
        outputs: tuple[Edge, ...],
        inputs: frozenset[Edge],
        index: int,
        root: int,
        is_activation: bool = False,
    ) -> None:
        """Read the gradient that leaves the call through each of its inputs.

        Args:
            outputs, inputs: edges of the call.
            index, root: of the call, and of the outermost one around it.
            is_activation: it has one input: where it uses that several times, as
                ``x - tanh(x)`` does, what leaves there is added up first.
        """
        self.watch_slots(find_input_slots(outputs, inputs), index, root, is_activation)

    def watch_slots(
        self, slots: Sequence[tuple[Node, int]], index: int, root: int, is_activation: bool
    ) -> None:
        """As ``watch_inputs``, at places that are known: nodes and positions.

        Args:
            slots: nodes inside the call, and the position of the input at each.
            index, root, is_activation: as there.
        """
        read: Any = self._read_input
        if is_activation and len(slots) > 1:
            read = partial(self._read_part, _Parts(len(slots)))
        for node, position in slots:
            node.register_hook(partial(self._see_after, read, position, index, root))

    def watch_slot(self, slot: Slot, nodes: list[Node], index: int, root: int) -> bool:
        """As ``watch_output`` and ``watch_slots``, of a call with one place for its input.

        Args:
            slot: says where its gradients are read.
            nodes: of the call's outputs.
            index, root: of the call, and of the outermost one around it.

        Returns:
            ``False`` where the graph is another one; then nothing is read.
        """
        probes, native = slot.probes, self.native if slot.is_builtin else None
        if native is not None and native.watch(probes, nodes, index, root, self._see_node):
            return True
        found = [probe.find(nodes) for probe in probes]
        if None in found:
            return False
        for node, probe in zip(found, probes, strict=True):
            self._watch_probe(node, probe, index, root)
        return True

    def _watch_probe(self, node: Node, probe: Probe, index: int, root: int) -> None:
        if probe.is_builtin and probe.numbers and probe.positions:  # one hook sees both
            node.register_hook(partial(self._see_node, probe, index, root))
            return
        for number in probe.numbers:
            node.register_prehook(partial(self._see, self._read_output, number, index, root))
        for position in probe.positions:
            node.register_hook(partial(self._see_after, self._read_input, position, index, root))

    def reach(self, root: int) -> bool:
        """The running backward has come to an outermost call; answers whether it counts.

        Args:
            root: number of the call.
        """
        if not self._is_open or not self._counts():
            return False
        self.reached_roots.add(root)
        return True

    def tell(self, edge: Edge, keep: Callable[[Tensor], None]) -> None:
        """Hand the gradient that arrives at this edge to a function.

        Args:
            edge: of a tensor.
            keep: called with the gradient at each training pass; it must copy what it keeps.
        """
        node, number = edge
        node.register_prehook(partial(self._see, partial(self._hand_on, keep), number, 0, 0))

    def _see(self, read: Any, number: int, index: int, root: int, grads: Any) -> None:
        grad = grads[number] if self._is_open else None
        if grad is None:
            return
        if has_modes():
            self._guard(read, index, root, grad)
            return
        try:
            read(index, root, grad)
        except BaseException as error:
            self._guard(raise_again, error)

    def _see_node(self, probe: Probe, index: int, root: int, leaving: Any, arriving: Any) -> None:
        """After the node: what has arrived at it is still as it was."""
        for number in probe.numbers:
            self._see(self._read_output, number, index, root, arriving)
        for position in probe.positions:
            self._see(self._read_input, position, index, root, leaving)

    def _see_after(self, read: Any, number: int, index: int, root: int, grads: Any, _: Any) -> None:
        self._see(read, number, index, root, grads)

    def _counts(self) -> bool:
        """Whether the running backward is a training pass; asked once for each of them."""
        if torch._C._current_graph_task_id() != self._task:
            self._task, self._is_training = torch._C._current_graph_task_id(), self._ask()
        return self._is_training

    def _hand_on(self, keep: Callable[[Tensor], None], index: int, root: int, grad: Tensor) -> None:
        if self._counts():
            keep(grad)

    def _read_output(self, index: int, root: int, grad: Tensor) -> None:
        if not self._counts():
            return
        self.reached_roots.add(root)
        if self.native is not None and self.native.read(GRAD_OUTPUT, index, root, grad, True):
            return
        if self._rows is not None and 0 < grad.numel() <= SAMPLE_SIZE and not grad.is_complex():
            self._rows.put(OUTPUT_GRADIENTS, index, root, None, grad)
        else:
            self._read_large(index, root, grad)

    def _read_large(self, index: int, root: int, grad: Tensor) -> None:
        flat = statistics.flatten_dense(grad)
        self._ledger.add("grad_output_l2_norm", index, root, self._norms.measure(grad, flat))
        if self._rows is not None and not (flat.is_cpu or flat.is_complex()) and flat.numel():
            sample = statistics.take_sample(flat).clone()
            self._rows.put(ZEROS_OF_GRADIENTS, index, root, None, sample)
        else:
            zeros = statistics.measure_zero_fraction(flat)
            self._ledger.add("grad_zero_fraction", index, root, zeros)

    def _read_input(self, index: int, root: int, grad: Tensor) -> None:
        if not self._counts():
            return
        self.reached_roots.add(root)
        if self.native is not None and self.native.read(GRAD_INPUT, index, root, grad, False):
            return
        if self._rows is not None and 0 < grad.numel() <= SAMPLE_SIZE and not grad.is_complex():
            self._rows.put(INPUT_GRADIENTS, index, root, None, grad)
        else:
            self._ledger.add("grad_input_l2_norm", index, root, self._norms.measure(grad))

    def _read_part(self, parts: _Parts, index: int, root: int, grad: Tensor) -> None:
        if self._counts():
            whole = parts.add(grad)
            if whole is not None:
                self._read_input(index, root, whole)
