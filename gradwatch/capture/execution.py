"""A sampled step that does what its plan expects."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradwatch.capture.attention import Scores
from gradwatch.capture.attention_rows import read_kept, sample_kept
from gradwatch.capture.call_measures import CallMeasures, list_settings
from gradwatch.capture.calls import Call, CallTable
from gradwatch.capture.frames import Frame
from gradwatch.capture.fused_ops import InsideRecorder
from gradwatch.capture.gradients import GradientReader
from gradwatch.capture.graph import Node, find_outputs, is_functorch_wrapped, is_readable
from gradwatch.capture.opposition import is_asked, watch_opposition
from gradwatch.capture.plan import CallSettings, Plan, Slot, Stop, find_function
from gradwatch.capture.planned_step import PlannedStep
from gradwatch.capture.reach import follow
from gradwatch.schema.activations import Activation
from gradwatch.schema.derivatives import Options


class Execution(PlannedStep):
    """Meets the events of forward with the plan's, and reads what the plan says.

    Args:
        plan: of the step.
        table: takes the values.
        gradients: reads the gradients.
        measures: reads the outputs.
        insides: reads what happens inside recurrent modules.
    """

    def __init__(
        self,
        plan: Plan,
        table: CallTable,
        gradients: GradientReader,
        measures: CallMeasures,
        insides: InsideRecorder,
    ) -> None:
        super().__init__()
        self.plan = plan
        self._table = table
        self._gradients = gradients
        self._measures = measures
        self._insides = insides
        self._stops: tuple[Stop, ...] = ()
        self._at = 0
        self._passes = 0

    @property
    def is_complete(self) -> bool:
        """Whether all was as planned, and nothing was missing."""
        at_end = self._passes > 0 and self._at == len(self._stops)
        several = len(self.plan.passes)
        if self._measures.has_lost:
            self.reject("changed in place")
        return not self.mismatch and at_end and several in (1, self._passes)

    def begin_pass(self) -> None:
        """A forward begins after a backward, or as the first one."""
        passes = self.plan.stops
        if self._at < len(self._stops) or self._passes >= len(passes) > 1:
            self.reject("passes")
            return
        self._stops, self._at = passes[min(self._passes, len(passes) - 1)], 0
        self._passes += 1

    def begin_root(self, module: nn.Module) -> None:
        """The outermost watched module is about to run.

        Args:
            module: that is watched.
        """
        if not self._passes:
            self.begin_pass()
        if self._at >= len(self._stops) or self._find_root() != id(module):
            self.reject("the outermost module")

    def _find_root(self) -> int | None:
        slot, functions, _ = self._stops[self._at]
        return next((each.root for each in functions if each.root is not None), slot.root)

    def _next(self) -> Stop | None:
        if self.mismatch:
            return None
        if self._at >= len(self._stops):
            self.reject("more calls")
            return None
        self._at += 1
        return self._stops[self._at - 1]

    # Events ---------------------------------------------------------------------------------

    def take_module(
        self, fqn: str, module: nn.Module, args: tuple[Any, ...], kwargs: Any, result: Any
    ) -> None:
        """A watched module's call has returned; to be called where gradients are switched on.

        Args:
            fqn: of the module.
            module: that was called.
            args, kwargs: that it was called with.
            result: what it returned.
        """
        stop = self._next()
        if stop is None:
            return
        slot, functions, is_function = stop
        if slot.module != id(module) or slot.is_training != module.training or is_function:
            self.reject("another module")
            return
        outputs = _list_outputs(result)
        torch._C._set_grad_enabled(False)
        try:
            for function in functions:
                self._read_function(function, outputs, args)
            if slot.key is not None:
                self._read_module(slot, outputs)
            elif bool(outputs) != bool(slot.n_outputs):
                self.reject("outputs")
        finally:
            torch._C._set_grad_enabled(True)
        if slot.role == "recurrent" and not self.mismatch:
            frame = Frame(weakref.ref(module), fqn, args, frozenset(), True)
            self._insides.record_recurrent(frame, kwargs, result)

    def take_activation(
        self, activation: Activation, x: Tensor, y: Tensor, options: dict[str, Any]
    ) -> None:
        """An activation has returned, in a step whose functions are seen.

        Args:
            activation: that was called.
            x: its input.
            y: its output; one without a graph is passed over.
            options: the call's arguments by name.
        """
        if y.grad_fn is None or not is_readable(y):
            return
        stop = self._next()
        if stop is None:
            return
        if stop.slot.activation is not activation:
            self.reject("another activation")
            return
        self._read_activation(stop.slot, x, y, list_settings(options), options)

    def take_attention(self, scores: Scores | str) -> None:
        """A fused attention was called, in a step whose functions are seen.

        Args:
            scores: sample of what it was given, or why there is none.
        """
        stop = self._next()
        if stop is None:
            return
        if stop.slot.attention is None:
            self.reject("an attention")
        elif not isinstance(scores, str):
            self._measures.put_scores(stop.slot.attention, scores)

    # Reading --------------------------------------------------------------------------------

    def _read_module(self, slot: Slot, outputs: Sequence[Tensor]) -> None:
        call = self._read(slot, outputs)
        if call is not None:
            for output in outputs:
                self._measures.measure_output(call, output)

    def _read_function(self, slot: Slot, outputs: Sequence[Tensor], args: tuple[Any, ...]) -> None:
        """What was called without being seen, from the graph that a module has returned."""
        found = find_function(slot, outputs, args)
        if found is None:
            self.reject("a function that is not reached")
        elif slot.activation is not None:
            x, y = found
            self._read_activation(slot, x, y, slot.settings, {})
        elif slot.attention is not None:
            self._read_attention(slot.attention, found)

    def _read_activation(
        self, slot: Slot, x: Tensor, y: Tensor, settings: CallSettings | None, options: Options
    ) -> None:
        activation = slot.activation
        if activation is None or slot.n_dims != y.dim() or settings != slot.settings:
            self.reject("another activation")
            return
        call = self._read(slot, [y])
        if call is None:
            return
        if is_asked(call.layer, activation):
            facts = activation, y, dict(settings or options)
            edge = y.grad_fn, y.output_nr
            watch_opposition(self._gradients, self._table, call, edge, facts)
        if settings is None:
            self._measures.measure_activation(call, activation, x, y, options)
        else:
            given = x if activation.needs_input else None
            self._measures.put_activation(call, activation, given, y, settings)
        if slot.axis is not None and y.numel():
            self._measures.observe_fired(call, y, slot.axis)

    def _read_attention(self, fqn: str, node: Node) -> None:
        kept = read_kept(node)
        if kept is None:
            self.reject("another attention")
            return
        q, k, is_causal, scale = kept
        q, k, causal = sample_kept(q, k, is_causal)
        self._measures.put_attention(fqn, q, k, causal, scale)

    def _read(self, slot: Slot, outputs: Sequence[Tensor]) -> Call | None:
        """The call's entry, once its gradients are going to be read."""
        nodes = [output.grad_fn for output in outputs]
        if slot.key is None or len(nodes) != slot.n_outputs:
            self.reject("outputs")
            return None
        call = self._table.find_described(slot.key)
        if not self._watch(slot, nodes, call):
            self.reject("another graph")
            return None
        if call.layer.step_axis >= 0:
            self._insides.record_steps(call, (nodes[0], outputs[0].output_nr))
        return call

    def _watch(self, slot: Slot, nodes: list[Node], call: Call) -> bool:
        """Have its gradients read; answers whether the graph is as planned."""
        if slot.activation is None or len(slot.inputs) < 2:
            return self._gradients.watch_slot(slot, nodes, call.index, self._table.root)
        if any(probe.find(nodes) is None for probe in slot.probes):
            return False
        self._watch_parts(slot, nodes, call)
        return True

    def _watch_parts(self, slot: Slot, nodes: Sequence[Node], call: Call) -> None:
        """What leaves an activation's input at several places is added up first."""
        root = self._table.root
        for tap in slot.outputs:
            node = follow(nodes, tap.output, tap.path)
            self._gradients.watch_output((node, tap.number), call.index, root)
        below = [(follow(nodes, tap.output, tap.path), tap.number) for tap in slot.inputs]
        self._gradients.watch_slots(below, call.index, root, True)


def _list_outputs(result: Any) -> list[Tensor]:
    """Of what a call has returned, the tensors with a graph that can be read."""
    if (
        type(result) is Tensor
        and result.layout is torch.strided
        and not is_functorch_wrapped(result)
    ):
        return [] if result.grad_fn is None else [result]
    return list(find_outputs(result).values())
