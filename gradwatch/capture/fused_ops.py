"""What no call shows: time steps and gates of recurrent modules and loops, fused attention."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from gradwatch.capture.attention import Scores, measure_scores
from gradwatch.capture.calls import MAX_CALLS, Call, CallTable, Measured
from gradwatch.capture.cell_calls import CellCalls
from gradwatch.capture.firing_history import FiringHistory
from gradwatch.capture.frames import Frame
from gradwatch.capture.gradients import GradientReader
from gradwatch.capture.graph import Edge, find_edge
from gradwatch.capture.recurrent_gates import FIRED
from gradwatch.capture.step_reads import list_step_parts, measure_steps
from gradwatch.capture.unrolling import Unrolling


class InsideRecorder:
    """Computes again, for a few sequences, what a fused kernel does not show.

    Args:
        table: takes the values.
        gradients: reads the gradients at recurrent modules.
        firing: which units fired lately, kept from step to step.
    """

    def __init__(self, table: CallTable, gradients: GradientReader, firing: FiringHistory) -> None:
        self._table = table
        self._firing = firing
        self._gradients = gradients
        self._unrollings: dict[str, tuple[Unrolling, int]] = {}
        self._cells: dict[tuple[str, int], CellCalls] = {}

    def end_pass(self) -> None:
        """A backward pass has run: the gradients of the recurrent modules are known."""
        unrollings, self._unrollings = self._unrollings, {}
        reached = self._gradients.reached_roots
        for fqn, (unrolling, root) in unrollings.items():
            if root in reached:
                self._take(fqn, root, unrolling.measure())
        for fqn, root in [key for key in self._cells if key[1] in reached]:
            self._take(fqn, root, self._cells.pop((fqn, root)).measure())

    def _take(self, fqn: str, root: int, measured: Measured) -> None:
        self._table.add_parts(fqn, self._take_fired(fqn, measured), root)

    def record_recurrent(self, frame: Frame, kwargs: dict[str, Any], result: Any) -> None:
        """A recurrent module's or cell's call has returned.

        Args:
            frame: of the call.
            kwargs: that it was called with, besides ``frame.args``.
            result: what it returned.
        """
        args = (*frame.args, *kwargs.values())[:2]
        if isinstance(frame.module, nn.RNNBase):
            self._begin_unrolling(frame, frame.module, args, result)
        elif self._table.count_calls(frame.fqn) <= MAX_CALLS:
            self._keep_cell(frame.fqn, frame.module, args, result)

    def _keep_cell(self, fqn: str, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        root = self._table.root
        calls = self._cells.get((fqn, root))
        if calls is None:
            calls = self._cells[fqn, root] = CellCalls(module)
            self._find_parts(fqn, calls)
        calls.keep(args, result)

    def _find_parts(self, fqn: str, recurrent: Unrolling | CellCalls) -> None:
        """Their entries follow that of the module's first call."""
        for part in recurrent.list_parts():
            self._table.find_part(fqn, part, self._table.root)

    def _take_fired(self, fqn: str, measured: Measured) -> Measured:
        """Units that fired go to their history, all else on to the record."""
        for part, statistic, reading in measured:
            if statistic == FIRED:
                key = f"{fqn}:{part.name}".lstrip(":"), part.call
                self._firing.observe(key, reading.value, int(reading.divisor))
            else:
                yield part, statistic, reading

    def _begin_unrolling(
        self, frame: Frame, module: nn.RNNBase, args: tuple[Any, ...], result: Any
    ) -> None:
        if frame.fqn in self._unrollings:
            self._say(frame, "gates and time steps are seen for its first call only")
            return
        unrolling = Unrolling.begin(module, args)
        if isinstance(unrolling, str):
            self._say(frame, f"gates and time steps are not seen, {unrolling}")
            return
        if module.dropout and module.num_layers > 1:
            self._say(frame, "gates and time steps are computed without its dropout")
        self._follow(unrolling, result)
        self._unrollings[frame.fqn] = unrolling, self._table.root
        self._find_parts(frame.fqn, unrolling)

    def _follow(self, unrolling: Unrolling, result: Any) -> None:
        output, final = result
        states = final if isinstance(final, tuple) else (final,)
        for number, layer in enumerate(unrolling.keep_output(output)):
            self._gradients.tell((layer.node, 0), partial(unrolling.keep_lower, number))
        output = output.data if unrolling.packed is not None else output
        for slot, tensor in zip(("output", "h_n", "c_n"), (output, *states), strict=False):
            edge = find_edge(tensor)
            if edge is not None:
                self._gradients.tell(edge, partial(unrolling.keep, slot))

    def record_steps(self, call: Call, edge: Edge) -> None:
        """A loop reads the call's output step by step, or has done so before.

        Args:
            call: of a module or an activation.
            edge: of its output.
        """
        node, number = edge
        steps = node._input_metadata[number].shape[call.layer.step_axis]
        for part in list_step_parts(steps):
            self._table.find_part(call.layer.fqn, part, self._table.root)
        self._gradients.tell(edge, partial(self._take_steps, call, self._table.root))

    def _take_steps(self, call: Call, root: int, grad: Tensor) -> None:
        measured = measure_steps(grad, call.layer.step_axis)
        self._table.add_parts(call.layer.fqn, measured, root)

    def record_attention(self, frame: Frame, scores: Scores | str) -> None:
        """An attention runs inside the running module; its softmax is computed again.

        Args:
            frame: of the running module.
            scores: sample of what the attention was given, or why there is none.
        """
        frame.has_attention = True
        if isinstance(scores, str):
            self._say(frame, scores)
        else:
            self._table.add_parts(frame.fqn, measure_scores(scores), self._table.root)

    def end_module(self, frame: Frame, parent: Frame | None) -> None:
        """State it when an attention module has shown no attention.

        Args:
            frame: of the module that has returned.
            parent: of the module around it; ``None`` for the outermost one.
        """
        if frame.has_attention:
            if parent is not None:
                parent.has_attention = True
        elif "attention" in type(frame.module).__name__.lower():
            self._say(frame, "its attention is not seen")

    def _say(self, frame: Frame, text: str) -> None:
        self._table.notes[f"{frame.fqn or type(frame.module).__name__}: {text}"] = None
