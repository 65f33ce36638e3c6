"""Records the modules and activations of one sampled step, forward and backward."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from gradwatch.capture.attention import Scores
from gradwatch.capture.backward_passes import PassTracker, is_in_backward
from gradwatch.capture.batches import Batches
from gradwatch.capture.call_measures import CallMeasures
from gradwatch.capture.calls import Call, CallKey, CallTable
from gradwatch.capture.cuts import CutFinder
from gradwatch.capture.execution import Execution, PlannedForward
from gradwatch.capture.firing_history import FiringHistory
from gradwatch.capture.forward import ForwardTracker
from gradwatch.capture.frames import Frame, Guard
from gradwatch.capture.functions import FunctionMode
from gradwatch.capture.fused_ops import InsideRecorder
from gradwatch.capture.gradients import GradientReader
from gradwatch.capture.graph import (
    Edge,
    find_edge,
    find_input_edges,
    find_outputs,
    find_sources,
    identify,
    is_readable,
    skip_views,
)
from gradwatch.capture.own_statistics import OwnMeasures
from gradwatch.capture.plan import Draft, Plan
from gradwatch.capture.roles import (
    find_module_axis,
    find_role,
    name_activation,
)
from gradwatch.capture.unit_axes import find_output_axis
from gradwatch.records import Layer
from gradwatch.schema.activations import Activation
from gradwatch.schema.layer_set import OUTSIDE


class LayerRecorder:
    """Records one sampled step; built when it is armed, dropped when it is done.

    Args:
        names: fqn by ``id`` of each watched module.
        guard: calls a function of ours so that its exceptions never reach the training.
        passes: tells training passes from others.
        firing: which units fired lately, kept from step to step.
        linked: calls that an earlier step has described, whose sources are known.
        notice: is shown the modules outside the watched ones.
        draws_units: count pre-activations by bin, for the picture of where the units sit.
        finds_cuts: look for calls that let no gradient through.
        own: measures the statistics that are not gradwatch's.
        plan: what the step is expected to do; ``None``: each call is followed.
    """

    def __init__(
        self,
        names: dict[int, str],
        guard: Guard,
        passes: PassTracker,
        firing: FiringHistory,
        linked: Mapping[CallKey, Layer],
        notice: Callable[[nn.Module], None] = lambda module: None,
        draws_units: bool = False,
        finds_cuts: bool = False,
        own: OwnMeasures | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.operands: set[int] | None = set()
        self.table = CallTable(linked)
        self.cut_finder = CutFinder(self.table.known) if finds_cuts else None
        self.gradients = GradientReader(self.table.ledger, guard, passes.notice)
        make_mode = partial(FunctionMode, self, guard)
        follow = ForwardTracker if plan is None else PlannedForward
        self.forward = follow(names, guard, self, make_mode, notice)
        self._passes = passes
        self._insides = InsideRecorder(self.table, self.gradients, firing)
        batches = None if plan is None else Batches(self.table)
        self._measures = CallMeasures(
            self.table, firing, own or OwnMeasures(), draws_units, batches
        )
        self._pass_is_over = False
        self.draft = Draft()
        self.execution: Execution | None = None
        if plan is not None:
            reads = self.table, self.gradients, self._measures, self._insides
            self.execution = Execution(plan, linked, *reads)

    def arm(self) -> None:
        """Begin to follow forward."""
        planned = self.execution
        if isinstance(self.forward, PlannedForward) and planned is not None:
            self.forward.execution = planned
            self.forward.sees_functions = self.operands is not None or planned.plan.needs_mode
        self.forward.arm()

    def close(self) -> None:
        """Stop reading; hooks that are still on a graph do nothing and die with it."""
        self.gradients.close()
        self.forward.retire()
        if self.cut_finder is not None:
            self.cut_finder.forget_outputs()

    @property
    def cuts(self) -> CutFinder | None:
        """Looks for calls that let no gradient through; not in a module that runs without any."""
        stack = self.forward.stack
        return self.cut_finder if not stack or stack[-1].records else None

    @property
    def is_seeing(self) -> bool:
        """Whether forward runs, or what stands between it and its backward."""
        return bool(self.forward.stack) or not (self._pass_is_over or is_in_backward())

    @property
    def is_outside(self) -> bool:
        """Whether no watched module runs."""
        return not self.forward.stack

    @property
    def has_begun(self) -> bool:
        """Whether a forward that counts has begun."""
        return bool(self.table.root_passes)

    # Passes ---------------------------------------------------------------------------------

    def begin_root(self, module: nn.Module) -> None:
        """The outermost watched module is about to run."""
        self._passes.begin_forward()
        if self._pass_is_over:
            self._pass_is_over = False
            self.table.begin_pass()
            self.forward.begin_pass()
            self._events.begin_pass()
        self.table.begin_root(module.training)
        self._events.begin_root(module)

    @property
    def _events(self) -> Draft | Execution:
        """Who takes the events of forward."""
        return self.draft if self.execution is None else self.execution

    def abandon_root(self) -> None:
        """Forward ended with an exception: the next one starts over."""
        self._pass_is_over = True
        self._events.reject("an exception")

    def begin_recomputation(self) -> None:
        """A reentrant checkpoint runs for the first time with a graph, inside a backward."""
        if not self.has_begun:
            self.table.begin_root()
        self._events.reject("a reentrant checkpoint")
        self.table.notes["a reentrant checkpoint hides which layer feeds which"] = None
        self._passes.begin_recomputation()

    def miss_thread(self) -> None:
        """Forward has a layer run in another thread, where it is not followed."""
        self._events.reject("threads")
        self.table.notes["layers that forward runs in other threads are not seen"] = None

    def begin_without_grad(self, fqn: str) -> None:
        """A call, and all inside it, runs where gradients are switched off."""
        self._events.reject("no gradients")
        if self.cut_finder is not None:
            self.cut_finder.note_without_grad(fqn)

    def end_pass(self) -> None:
        """A backward pass has run: the next forward begins a new one."""
        self._pass_is_over = True
        self._insides.end_pass()
        self.flush()

    def flush(self) -> None:
        """Reduce what waits for others."""
        self._measures.flush()

    # Modules --------------------------------------------------------------------------------

    def record_module(self, frame: Frame, kwargs: dict[str, Any], result: Any) -> None:
        """A watched module's call has returned."""
        if self.execution is not None:
            self.execution.take_module(frame.fqn, frame.module, frame.args, kwargs, result)
            return
        parent = self.forward.stack[-1] if self.forward.stack else None
        self._insides.end_module(frame, parent)
        outputs = find_outputs(result)
        if not outputs:
            self.draft.skip(frame.module, 0)
        else:
            self._enter_module(frame, parent, kwargs, outputs, result)
        if parent is None and self.cut_finder is not None:
            self.cut_finder.look_around((frame.args, kwargs), outputs)

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
            self.table.note_axis(edge, find_module_axis(frame.module, tensor))
        is_whole = role in ("container", "other")
        if is_whole and all(identify(edge) in self.table.known for edge in outputs):
            self.draft.skip(frame.module, len(outputs))
            return  # its output is that of a call inside it, which has an entry
        looks_inside = is_whole or frame.children > 0
        inputs = frozenset() if looks_inside else frame.inputs | find_input_edges(kwargs)
        call = self._add_module(frame, parent or frame, role, outputs, inputs)
        self.draft.add_call(frame.module, call, outputs, inputs, role=role)
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
        call = self.table.add(parent, (frame.fqn, role, name), tensors, inputs or below)
        if call is not None:
            for tensor in tensors:
                self._measures.measure_output(call, tensor)
            self._watch(call, outputs, inputs)
        return call

    def _watch(
        self,
        call: Call,
        outputs: dict[Edge, Tensor],
        inputs: frozenset[Edge],
        is_activation: bool = False,
    ) -> None:
        for edge, tensor in outputs.items():
            self.table.link(edge, call)
            below = edge
            if tensor._is_view():
                below = skip_views(edge, inputs)
                self.table.link(below, call)
            self.gradients.watch_output(below, call.index, self.table.root)
        if inputs:
            self.gradients.watch_inputs(
                tuple(outputs), inputs, call.index, self.table.root, is_activation
            )

    # Activations and attention --------------------------------------------------------------

    @property
    def _frame(self) -> Frame | None:
        """The module that is running, if it counts; between forward and loss, a stand-in."""
        frame = self.forward.stack[-1] if self.forward.stack else _OUTSIDE
        return frame if frame.records else None

    def record_activation(
        self,
        activation: Activation,
        x: Tensor,
        inputs: frozenset[Edge],
        y: Tensor,
        options: dict[str, Any],
    ) -> int | None:
        """One call of an activation, as a module or as a function (see ``FunctionObserver``)."""
        if self.execution is not None:
            if not self.is_outside:
                self.execution.take_activation(activation, x, y, options)
            return None
        edge, frame = find_edge(y), self._frame
        if frame is None or edge is None or not is_readable(y):
            return None
        if frame is _OUTSIDE:
            if not find_sources(inputs, self.table.known)[0]:
                return None  # of another model, that is not watched
            self.draft.reject("an activation outside of forward")
        name = name_activation(frame.module, frame.fqn, activation)
        call = self.table.add(frame, name, [y], inputs)
        axis = find_output_axis(y, inputs, self.table.axes) if activation.can_die else None
        facts = {"activation": activation, "axis": axis, "n_dims": y.dim()}
        self.draft.add_call(frame.module, call, {edge: y}, inputs, **facts)
        if call is None:
            return None
        frame.has_attention |= activation.name == "softmax"
        self._measures.measure_activation(call, activation, x, y, options)
        if axis is not None and y.numel():
            self.table.note_axis(edge, axis)
            self._measures.observe_fired(call, y, axis)
        self._watch(call, {edge: y}, inputs, is_activation=True)
        return call.index

    def mark_gate(self, index: int) -> None:
        """An activation's output multiplies something: it is a gate."""
        self.table.gates.add(index)

    def record_attention(self, scores: Scores | str) -> None:
        """An attention runs as one kernel; its softmax is computed again."""
        if self.is_outside:
            return
        if self.execution is not None:
            self.execution.take_attention(scores)
        elif self._frame is not None:
            self.draft.add_attention(self._frame.module, self._frame.fqn)
            self._insides.record_attention(self._frame, scores)


_NOBODY = nn.Module()
_OUTSIDE = Frame(weakref.ref(_NOBODY), OUTSIDE, (), frozenset(), records=True)
"""Stands for a module around what is called between forward and backward."""
