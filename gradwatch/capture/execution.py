"""A sampled step that does what its plan expects."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradwatch.capture.attention import Scores
from gradwatch.capture.backward_passes import is_in_backward
from gradwatch.capture.call_measures import CallMeasures
from gradwatch.capture.calls import Call, CallKey, CallTable
from gradwatch.capture.forward import ForwardTracker
from gradwatch.capture.frames import Frame
from gradwatch.capture.fused_ops import InsideRecorder
from gradwatch.capture.gradients import GradientReader
from gradwatch.capture.graph import find_outputs, is_readable
from gradwatch.capture.plan import Plan, Slot
from gradwatch.records import Layer
from gradwatch.schema.activations import Activation


class Execution:
    """Meets the events of forward with the plan's, and reads what the plan says.

    Args:
        plan: of the step.
        linked: calls as earlier steps have described them.
        table: takes the values.
        gradients: reads the gradients.
        measures: reads the outputs.
        insides: reads what happens inside recurrent modules.

    Attributes:
        mismatch: what was otherwise than planned; ``""``: nothing so far.
    """

    def __init__(
        self,
        plan: Plan,
        linked: Mapping[CallKey, Layer],
        table: CallTable,
        gradients: GradientReader,
        measures: CallMeasures,
        insides: InsideRecorder,
    ) -> None:
        self.mismatch = ""
        self.plan = plan
        self._linked = linked
        self._table = table
        self._gradients = gradients
        self._measures = measures
        self._insides = insides
        self._slots: tuple[Slot, ...] = ()
        self._at = 0
        self._passes = 0

    @property
    def is_complete(self) -> bool:
        """Whether all was as planned, and nothing was missing."""
        at_end = self._passes > 0 and self._at == len(self._slots)
        several = len(self.plan.passes)
        return not self.mismatch and at_end and several in (1, self._passes)

    def reject(self, mismatch: str) -> None:
        """Reality is not as planned: nothing more is read.

        Args:
            mismatch: why, in a word or two; the first one stays.
        """
        self.mismatch = self.mismatch or mismatch

    def begin_pass(self) -> None:
        """A forward begins after a backward, or as the first one."""
        passes = self.plan.passes
        if self._at < len(self._slots) or self._passes >= len(passes) > 1:
            self.reject("passes")
            return
        self._slots, self._at = passes[min(self._passes, len(passes) - 1)], 0
        self._passes += 1

    def begin_root(self, module: nn.Module) -> None:
        """The outermost watched module is about to run.

        Args:
            module: that is watched.
        """
        if not self._passes:
            self.begin_pass()
        if self._at >= len(self._slots) or self._slots[self._at].root != id(module):
            self.reject("the outermost module")

    def _next(self) -> Slot | None:
        if self.mismatch:
            return None
        if self._at >= len(self._slots):
            self.reject("more calls")
            return None
        self._at += 1
        return self._slots[self._at - 1]

    # Events ---------------------------------------------------------------------------------

    def take_module(
        self, fqn: str, module: nn.Module, args: tuple[Any, ...], kwargs: Any, result: Any
    ) -> None:
        """A watched module's call has returned.

        Args:
            fqn: of the module.
            module: that was called.
            args, kwargs: that it was called with.
            result: what it returned.
        """
        slot = self._next()
        if slot is None:
            return
        is_same = slot.module == id(module) and slot.is_training == module.training
        if not is_same or slot.attention is not None or slot.activation is not None:
            self.reject("another module")
            return
        outputs = _list_outputs(result)
        if slot.key is None:
            if bool(outputs) != bool(slot.n_outputs):
                self.reject("outputs")
            return
        call = self._read(slot, outputs)
        if call is not None:
            for output in outputs:
                self._measures.measure_output(call, output)
            if slot.role == "recurrent":
                frame = Frame(weakref.ref(module), fqn, args, frozenset(), True)
                self._insides.record_recurrent(frame, kwargs, result)

    def take_activation(
        self, activation: Activation, x: Tensor, y: Tensor, options: dict[str, Any]
    ) -> None:
        """An activation has returned.

        Args:
            activation: that was called.
            x: its input.
            y: its output; one without a graph is passed over.
            options: the call's arguments by name.
        """
        if y.grad_fn is None or not is_readable(y):
            return
        slot = self._next()
        if slot is None:
            return
        if slot.activation is not activation or slot.n_dims != y.dim():
            self.reject("another activation")
            return
        call = self._read(slot, [y])
        if call is not None:
            self._measures.measure_activation(call, activation, x, y, options)
            if slot.axis is not None and y.numel():
                self._measures.observe_fired(call, y, slot.axis)

    def take_attention(self, scores: Scores | str) -> None:
        """A fused attention is called.

        Args:
            scores: sample of what it was given, or why there is none.
        """
        slot = self._next()
        if slot is None:
            return
        if slot.attention is None:
            self.reject("an attention")
        elif not isinstance(scores, str):
            self._measures.measure_attention(slot.attention, scores)

    def _read(self, slot: Slot, outputs: list[Tensor]) -> Call | None:
        """The call's entry, once its gradients are going to be read."""
        nodes = [output.grad_fn for output in outputs]
        if slot.key is None or len(nodes) != slot.n_outputs:
            self.reject("outputs")
            return None
        above = [(tap.find(nodes), tap.number) for tap in slot.outputs]
        below = [(tap.find(nodes), tap.number) for tap in slot.inputs]
        if any(node is None for node, _ in (*above, *below)):
            self.reject("another graph")
            return None
        call = self._find_call(slot.key)
        for edge in above:
            self._gradients.watch_output(edge, call.index, self._table.root)
        is_activation = slot.activation is not None
        self._gradients.watch_slots(below, call.index, self._table.root, is_activation)
        return call

    def _find_call(self, key: CallKey) -> Call:
        calls = self._table.calls
        call = calls.get(key)
        if call is None:
            call = calls[key] = Call(len(calls), self._linked[key])
        call.roots.add(self._table.root)
        return call


def _list_outputs(result: Any) -> list[Tensor]:
    """Of what a call has returned, the tensors with a graph that can be read."""
    if isinstance(result, Tensor) and result.grad_fn is None:
        return []
    return list(find_outputs(result).values())


class PlannedForward(ForwardTracker):
    """Follows the outermost module like any; the modules inside are met with a plan.

    Attributes:
        execution: of the plan.
        sees_functions: the function mode is entered around the outermost module.
    """

    execution: Execution
    sees_functions = True

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._is_inside(module):
            return
        super()._enter(module, args)

    def _is_inside(self, module: nn.Module) -> bool:
        root = self._root
        if root is None or root.module is module:
            return False
        return threading.get_ident() == self._thread

    def _may_stay(self) -> bool:
        """What follows forward is looked at when each call is followed."""
        return False

    def _begin_root(self, frame: Frame) -> None:
        if self.sees_functions or is_in_backward():
            super()._begin_root(frame)
        else:
            self._root = frame
            self._observer.begin_root(frame.module)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if not self._is_inside(module):
            super()._leave(module, args, *rest)
            return
        fqn = self._names.get(id(module))
        if fqn is None:
            return
        if len(rest) < 2:  # after an exception
            self._guard(self.execution.reject, "an exception")
        elif torch.is_grad_enabled():
            with torch._C.DisableTorchFunction():
                self._guard(self.execution.take_module, fqn, module, args, *rest)
        elif module.training:
            self._guard(self.execution.reject, "no gradients")
