"""A sampled step that is followed call by call: what each call was given, and what came of it.

The counterpart of ``execution``, without a plan: the graph is walked, and the next plan drafted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from gradwatch.capture.attention import Scores
from gradwatch.capture.call_measures import CallMeasures, list_settings
from gradwatch.capture.calls import Call, CallTable
from gradwatch.capture.cuts import CutFinder
from gradwatch.capture.draft import Draft
from gradwatch.capture.frames import BETWEEN, Frame
from gradwatch.capture.fused_ops import InsideRecorder
from gradwatch.capture.gradients import GradientReader
from gradwatch.capture.graph import (
    Edge,
    Node,
    find_edge,
    find_input_edges,
    find_outputs,
    find_sources,
    identify,
    is_readable,
    skip_views,
)
from gradwatch.capture.opposition import is_asked, watch_opposition
from gradwatch.capture.roles import find_module_axis, find_role, name_activation
from gradwatch.capture.step_reads import find_step_reads
from gradwatch.capture.unit_axes import find_output_axis
from gradwatch.schema.activations import Activation


class FollowedCalls:
    """Enters each call that returns, links it to those that feed it, and has its gradients read.

    Args:
        table: takes the calls.
        gradients: reads the gradients.
        measures: reads the outputs.
        insides: reads what happens inside fused kernels, and in loops over time.
        cut_finder: looks for calls that let no gradient through, or ``None``.

    Attributes:
        draft: what a later step is expected to do.
    """

    def __init__(
        self,
        table: CallTable,
        gradients: GradientReader,
        measures: CallMeasures,
        insides: InsideRecorder,
        cut_finder: CutFinder | None = None,
    ) -> None:
        self.draft = Draft()
        self._table = table
        self._gradients = gradients
        self._measures = measures
        self._insides = insides
        self._cut_finder = cut_finder
        self._n_searched = 0

    def take_module(
        self, frame: Frame, parent: Frame | None, kwargs: dict[str, Any], result: Any
    ) -> dict[Edge, Tensor]:
        """A watched module's call has returned.

        Args:
            frame: of the call.
            parent: of the module around it; ``None`` for the outermost one.
            kwargs: that it was called with, besides ``frame.args``.
            result: what it returned.

        Returns:
            Tensors with a graph among the result, by edge.
        """
        self._insides.end_module(frame, parent)
        outputs = find_outputs(result)
        if outputs:
            self._enter_module(frame, parent, kwargs, outputs, result)
        else:
            self.draft.skip(frame.module, {}, frame.args)
        if parent is None:
            self._find_step_reads(outputs)
        return outputs

    def take_activation(
        self,
        frame: Frame,
        activation: Activation,
        x: Tensor,
        inputs: frozenset[Edge],
        y: Tensor,
        options: dict[str, Any],
    ) -> int | None:
        """An activation has returned, as a module or as a function.

        Args:
            frame: of the module inside which it was called, or ``BETWEEN``.
            activation: that was called.
            x: its input, which may be its output too if it works in place.
            inputs: edges of the input.
            y: its output.
            options: the call's arguments by name.

        Returns:
            Index of its entry; ``None`` where it gets none.
        """
        edge = find_edge(y)
        if edge is None or not is_readable(y):
            return None
        if frame is BETWEEN:
            if activation.has_set_ends or not find_sources(inputs, self._table.known)[0]:
                return None  # a part of the loss, or of another model, that is not watched
            self.draft.reject("an activation outside of forward")
        name = name_activation(frame.module, frame.fqn, activation)
        call = self._table.add(frame, name, [y], inputs)
        axis = find_output_axis(y, inputs, self._table.axes) if activation.can_die else None
        facts: dict[str, Any] = {"activation": activation, "axis": axis, "n_dims": y.dim()}
        facts["settings"] = list_settings(options)
        self.draft.add_activation(frame.module, call, (x, y), inputs, frame.args, **facts)
        if call is None:
            return None
        frame.has_attention |= activation.name == "softmax"
        self._measures.measure_activation(call, activation, x, y, options)
        if axis is not None and y.numel():
            self._table.note_axis(edge, axis)
            self._measures.observe_fired(call, y, axis)
        self._watch(call, {edge: y}, inputs, is_activation=True)
        if is_asked(call.layer, activation):
            given = activation, y, options
            watch_opposition(self._gradients, self._table, call, edge, given)
        return call.index

    def take_attention(self, frame: Frame, scores: Scores | str, node: Node | None) -> None:
        """A fused attention was called inside a module.

        Args:
            frame: of the module.
            scores: sample of what the attention was given, or why there is none.
            node: of the graph that keeps it all; ``None`` where there is none.
        """
        is_shown = node is not None and not isinstance(scores, str)
        self.draft.add_attention(frame.module, frame.fqn, node if is_shown else None)
        self._insides.record_attention(frame, scores)

    def _enter_module(
        self,
        frame: Frame,
        parent: Frame | None,
        kwargs: dict[str, Any],
        outputs: dict[Edge, Tensor],
        result: Any,
    ) -> None:
        role = find_role(frame.module)
        for edge, tensor in outputs.items():
            self._table.note_axis(edge, find_module_axis(frame.module, tensor))
        is_whole = role in ("container", "other")
        if is_whole and all(identify(edge) in self._table.known for edge in outputs):
            self.draft.skip(frame.module, outputs, frame.args)
            return  # its output is that of a call inside it, which has an entry
        looks_inside = is_whole or frame.children > 0
        inputs = frozenset() if looks_inside else frame.inputs | find_input_edges(kwargs)
        call = self._add_module(frame, parent or frame, role, outputs, inputs)
        self.draft.add_call(frame.module, call, outputs, inputs, frame.args, role)
        if call is not None and role == "recurrent":
            self._insides.record_recurrent(frame, kwargs, result)

    def _add_module(
        self,
        frame: Frame,
        parent: Frame,
        role: str,
        outputs: dict[Edge, Tensor],
        inputs: frozenset[Edge],
    ) -> Call | None:
        below = (edge for node, _ in outputs for edge in node.next_functions)
        name, tensors = type(frame.module).__name__, list(outputs.values())
        call = self._table.add(parent, (frame.fqn, role, name), tensors, inputs or below)
        if call is not None:
            for tensor in tensors:
                self._measures.measure_output(call, tensor)
            self._watch(call, outputs, inputs)
        return call

    def _find_step_reads(self, outputs: Iterable[Edge]) -> None:
        """Loops over time, in the graph of what an outermost call has returned."""
        finder, calls = self._cut_finder, list(self._table.calls.values())
        if self._table.is_described or len(calls) == self._n_searched:
            return  # as in the second pass of an accumulation
        self._n_searched = len(calls)
        cut_off = set() if finder is None else finder.list_calls()
        cut_off |= {source for call in calls if call.index in cut_off for source in call.sources}
        for read in find_step_reads(outputs, self._table.known, cut_off):
            call = self._table.note_step_axis(read.call, read.axis)
            if call is not None:
                self._insides.record_steps(call, read.edge)

    def _watch(
        self,
        call: Call,
        outputs: dict[Edge, Tensor],
        inputs: frozenset[Edge],
        is_activation: bool = False,
    ) -> None:
        for edge, tensor in outputs.items():
            self._table.link(edge, call)
            below = edge
            if tensor._is_view():
                below = skip_views(edge, inputs)
                self._table.link(below, call)
            self._gradients.watch_output(below, call.index, self._table.root)
        for edge in tuple(outputs)[:1] if call.layer.step_axis >= 0 else ():
            self._insides.record_steps(call, edge)
        if inputs:
            self._gradients.watch_inputs(
                tuple(outputs), inputs, call.index, self._table.root, is_activation
            )
