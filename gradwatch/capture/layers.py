"""Records the modules and activations of one sampled step, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from gradwatch.capture.attention import Scores
from gradwatch.capture.backward_passes import PassTracker, is_in_backward
from gradwatch.capture.call_measures import CallMeasures
from gradwatch.capture.call_rows import CallRows, RowMemory
from gradwatch.capture.calls import CallKey, CallTable
from gradwatch.capture.compiled_step import CompiledStep
from gradwatch.capture.cuts import CutFinder
from gradwatch.capture.draft import Draft
from gradwatch.capture.execution import Execution
from gradwatch.capture.firing_history import FiringHistory
from gradwatch.capture.followed_calls import FollowedCalls
from gradwatch.capture.forward import ForwardTracker
from gradwatch.capture.found_cuts import FoundCut
from gradwatch.capture.frames import BETWEEN, Frame, Protect
from gradwatch.capture.functions import FunctionMode
from gradwatch.capture.fused_ops import InsideRecorder
from gradwatch.capture.gradients import GradientReader
from gradwatch.capture.graph import Edge, Node
from gradwatch.capture.own_statistics import OwnMeasures
from gradwatch.capture.plan import Plan
from gradwatch.capture.planned_forward import PlannedForward
from gradwatch.capture.weak_calls import call_weakly
from gradwatch.records import Layer
from gradwatch.schema.activations import Activation
from gradwatch.schema.layer_set import HIDDEN_WAYS


class LayerRecorder:
    """Records one sampled step; built when it is armed, dropped when it is done.

    Args:
        names: fqn by ``id`` of each watched module.
        guard: calls a function of ours so that its exceptions never reach the training.
        passes: tells training passes from others.
        firing: which units fired lately, kept from step to step.
        linked: calls that an earlier step has described, whose sources are known.
        notice: is shown the modules outside the watched ones, each with whether a watched module
            calls it, and says what is to be noted of it.
        draws_units: count pre-activations by bin, for the picture of where the units sit.
        finds_cuts: look for calls that let no gradient through.
        own: measures the statistics that are not gradwatch's.
        plan: what the step is expected to do; ``None``: each call is followed.
        memory: of what is reduced together; ``None`` where no step is going to be planned.
    """

    def __init__(
        self,
        names: dict[int, str],
        guard: Protect,
        passes: PassTracker,
        firing: FiringHistory,
        linked: Mapping[CallKey, Layer],
        notice: Callable[[nn.Module, bool], str] = lambda module, is_inside: "",
        draws_units: bool = False,
        finds_cuts: bool = False,
        own: OwnMeasures | None = None,
        plan: Plan | None = None,
        memory: RowMemory | None = None,
    ) -> None:
        self.operands: set[int] | None = set()
        self.table = CallTable(linked)
        self.cut_finder = CutFinder(self.table.known) if finds_cuts else None
        rows = None if memory is None else CallRows(self.table.ledger, memory, plan is None)
        small = rows if plan is not None else None
        self.gradients = GradientReader(self.table.ledger, guard, passes.notice, small)
        make_mode = partial(FunctionMode, self, guard)
        follow = ForwardTracker if plan is None else PlannedForward
        self.forward = follow(names, guard, self, make_mode, call_weakly(self._meet))
        self._notice = notice
        self._passes = passes
        self._insides = InsideRecorder(self.table, self.gradients, firing)
        native = self.gradients.native
        shown = own or OwnMeasures(), draws_units, rows, native
        self._measures = CallMeasures(self.table, firing, *shown)
        self._pass_is_over = False
        reads = self.table, self.gradients, self._measures, self._insides
        self._followed = FollowedCalls(*reads, self.cut_finder)
        self.draft = self._followed.draft
        self.execution: Execution | CompiledStep | None = None
        if plan is not None:
            self.execution = Execution(plan, *reads)

    def arm(self, params: Iterable[nn.Parameter]) -> None:
        """Begin to follow forward.

        Args:
            params: of all watched modules.
        """
        planned = self.execution
        if isinstance(self.forward, PlannedForward) and isinstance(planned, Execution):
            self.forward.execution = planned
            self.forward.sees_functions = self.operands is not None or planned.plan.needs_mode
        self.forward.arm(params)

    def _meet(self, module: nn.Module) -> None:
        said = self._notice(module, self.forward.is_running)
        if said:
            self.table.notes[said] = None

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

    def list_cuts(self) -> list[FoundCut]:
        """Calls that let no gradient through although what they were given learns."""
        finder = self.cut_finder
        found = () if finder is None else finder.found.values()
        return [cut for cut in found if cut.goes_on or cut.is_read]

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
        """The outermost watched module is about to run.

        Args:
            module: that is watched.
        """
        self._passes.begin_forward()
        if self._pass_is_over:
            self._pass_is_over = False
            self.table.begin_pass()
            self.forward.begin_pass()
            self._events.begin_pass()
        self.table.begin_root(module.training)
        self._events.begin_root(module)

    @property
    def _events(self) -> Draft | Execution | CompiledStep:
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
        self.table.notes[HIDDEN_WAYS] = None
        self._passes.begin_recomputation()

    def miss_thread(self) -> None:
        """Forward has a layer run in another thread, where it is not followed."""
        self._events.reject("threads")
        self.table.notes["layers that forward runs in other threads are not seen"] = None

    def begin_without_grad(self, fqn: str) -> None:
        """A call, and all inside it, runs where gradients are switched off.

        Args:
            fqn: of the module that is called.
        """
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
        self.gradients.flush()

    # Modules --------------------------------------------------------------------------------

    def record_module(self, frame: Frame, kwargs: dict[str, Any], result: Any) -> None:
        """A watched module's call has returned.

        Args:
            frame: of the call.
            kwargs: that it was called with, besides ``frame.args``.
            result: what it returned.
        """
        if isinstance(self.execution, Execution):
            self.execution.take_module(frame.fqn, frame.module, frame.args, kwargs, result)
            return
        parent = self.forward.stack[-1] if self.forward.stack else None
        outputs = self._followed.take_module(frame, parent, kwargs, result)
        if parent is None and self.cut_finder is not None:
            self.cut_finder.look_around((frame.args, kwargs), outputs)

    # Activations and attention --------------------------------------------------------------

    @property
    def _frame(self) -> Frame | None:
        """The module that is running, if it counts; between forward and loss, a stand-in."""
        frame = self.forward.stack[-1] if self.forward.stack else BETWEEN
        return frame if frame.records else None

    def record_activation(
        self,
        activation: Activation,
        x: Tensor,
        inputs: frozenset[Edge],
        y: Tensor,
        options: dict[str, Any],
    ) -> int | None:
        """One call of an activation, as a module or as a function.

        Args:
            activation: that was called.
            x, inputs, y, options: as in ``FunctionObserver``.
        """
        if self.execution is None:
            frame = self._frame
            if frame is None:
                return None
            return self._followed.take_activation(frame, activation, x, inputs, y, options)
        planned = self.execution
        if isinstance(planned, Execution) and not self.is_outside and planned.plan.needs_mode:
            planned.take_activation(activation, x, y, options)
        return None

    def mark_gate(self, index: int) -> None:
        """An activation's output multiplies something: it is a gate.

        Args:
            index: of the call's entry.
        """
        self.table.gates.add(index)

    def record_attention(self, scores: Scores | str, node: Node | None) -> None:
        """An attention has run as one kernel; its softmax is computed again.

        Args:
            scores: sample of what it was given, or why there is none.
            node: of the graph that keeps it all; ``None`` where there is none.
        """
        if self.is_outside:
            return
        if self.execution is None:
            if self._frame is not None:
                self._followed.take_attention(self._frame, scores, node)
        elif isinstance(self.execution, Execution) and self.execution.plan.needs_mode:
            self.execution.take_attention(scores)
