"""Compiled models: a sampled step runs the same code eagerly, so that its layers can be seen; or,
where that was asked for, a second compilation of it with statistics inside."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_hooks

from gradwatch.capture import compilation
from gradwatch.capture.backward_passes import is_in_backward
from gradwatch.capture.compiled_calls import find_compiled, leads_to
from gradwatch.capture.compiled_conditions import load_dynamo, read_call
from gradwatch.capture.compiled_turn import find_root, turn_compiled
from gradwatch.capture.compiled_variant import CompiledVariant
from gradwatch.capture.sampled_step import SampledStep
from gradwatch.capture.step_hooks import remove_hook
from gradwatch.capture.weak_calls import call_weakly

_HOOKS_FIRE_TWICE = r"Using `torch\.compile\(module\)` when there are global hooks"
"""Torch's warning about global hooks on a compiled module; ours are counted once."""

_WRAPPERS = ("ModuleToTrace", "OptimizedModule")
"""Modules into which dynamo puts the one that it is about to export."""

NOT_INSIDE = "layers are read by running compiled code eagerly: "
"""A note where they were to be read inside of it; what follows is why they are not."""

MAX_CALLERS = 24
"""An export is looked for among this many callers."""


class Choice:
    """Stands in the place of dynamo's stance, and answers each call of compiled code by itself.

    Args:
        before: the stance that was in force, and is for whatever is not ours.
        find_way: method, asked with the frame that wants to know; its owner is held weakly. It
            answers ``True`` for a call that has to run eagerly, a backend for one that has to run
            with that, and ``False`` for one that is not ours.

    Attributes:
        is_over: from now on ``before`` is answered to all. Somebody who has set a stance in the
            meantime puts this one back later.
    """

    def __init__(self, before: Any, find_way: Callable[[FrameType], Any]) -> None:
        self.before = before
        self.is_over = False
        self._find_way = call_weakly(find_way)
        self._backend: Any = None

    @property
    def stance(self) -> str:
        """The name of a stance, as ``torch.compiler.set_stance`` takes it."""
        way = not self.is_over and self._find_way(_find_asking(sys._getframe(1)))
        self._backend = way if callable(way) else None
        return "force_eager" if way is True else str(self.before.stance)

    @property
    def backend(self) -> Any:
        """With which the call runs whose stance was asked for last; ``None``: its own."""
        return self.before.backend if self._backend is None else self._backend

    def __getattr__(self, name: str) -> Any:
        """Everything else is as before.

        Args:
            name: of a field of dynamo's.
        """
        return getattr(self.before, name)


def _find_asking(frame: FrameType) -> FrameType:
    """Who wants to know: dynamo, perhaps through the choice of another watch."""
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame = frame.f_back
    return frame


_PACKAGE = __name__.partition(".")[0] + "."


def _skip_ended(stance: Any) -> Any:
    while isinstance(stance, Choice) and stance.is_over:
        stance = stance.before
    return stance


class EagerStance:
    """The watched model's compiled code runs eagerly while a step is sampled; all other code stays
    compiled, and is compiled as if nothing was watched.

    The compiled code of ours stays as it is too, and runs again on the next step.

    Args:
        model: that may be compiled.
        make_way: method, called when dynamo is about to export a module as a whole. It then looks
            for global hooks, and fails over any; ours must be gone by then.
        variant: a second compilation, that planned steps may run; ``None``: all run eagerly.
    """

    def __init__(
        self,
        model: nn.Module,
        make_way: Callable[[], None],
        variant: CompiledVariant | None = None,
    ) -> None:
        self._variant = variant
        self._model = weakref.ref(model)
        self._make_way = call_weakly(make_way)
        self._hook = self._make_hook()
        self._is_registered = False
        self._step: SampledStep | None = None
        self._goals: frozenset[int] = frozenset()
        self._choice: Choice | None = None
        self._filter: Any = None
        self._callbacks: list[tuple[list[Any], Callable[..., None]]] = []
        self._has_let_by = False
        self._is_wide = False

    def enter(self, step: SampledStep) -> bool:
        """Run what is ours eagerly from now on, if anything was compiled in this process at all.

        Args:
            step: that is about to be sampled.

        Returns:
            Whether the layers may be hooked: an older torch would compile our hooks too.
        """
        if not self._is_registered:
            self._is_registered = True
            module_hooks.register_module_module_registration_hook(self._hook)
        if not compilation.HAS_STANCE:
            model = self._model()
            return model is not None and not compilation.is_compiled(model)
        self._step, self._has_let_by = step, False
        self._explain(step)
        self._goals = frozenset((*step.modules, *map(id, step.optimizers)))
        if self._choice is None and "torch._dynamo.eval_frame" in sys.modules:
            compilation.stay_out_of_traces()
            dynamo: Any = torch._dynamo.eval_frame
            self._choice = Choice(_skip_ended(dynamo._stance), self._find_way)
            dynamo._stance = self._choice  # last: a signal may cut this off
            self._hear_of_compilations()
            warnings.filterwarnings("ignore", message=_HOOKS_FIRE_TWICE)
            self._filter = warnings.filters[0]
        return True

    def _explain(self, step: SampledStep) -> None:
        """Why layers are not read inside compiled code, where that was asked for."""
        model = self._model()
        if self._variant is None or model is None:
            return
        reason = self._variant.refusal
        if load_dynamo() is None and compilation.is_compiled(model):
            reason = "this torch has one cache for everybody's"
        if reason:
            step.recorder.table.notes[NOT_INSIDE + reason] = None

    def leave(self) -> None:
        """Back to the stance that was in force."""
        self._unregister()
        self._put_back()
        for callbacks, callback in self._callbacks:  # torch._dynamo.reset() removes them, too
            callbacks[:] = [kept for kept in callbacks if kept is not callback]
        self._callbacks.clear()
        if self._filter in warnings.filters:
            warnings.filters.remove(self._filter)  # type: ignore[attr-defined]
        if self._variant is not None:
            self._variant.end_step()
        if self._step is not None:
            self._is_wide |= self._has_let_by and not self._step.recorder.has_begun
            self._step = None

    def _unregister(self) -> None:
        if self._is_registered:
            remove_hook(module_hooks._global_module_registration_hooks, self._hook)
            self._is_registered = False

    def _put_back(self) -> None:
        if self._choice is not None:
            self._choice.is_over = True
            dynamo: Any = torch._dynamo.eval_frame
            if dynamo._stance is self._choice:
                dynamo._stance = _skip_ended(self._choice)
            self._choice = None

    # Calls ----------------------------------------------------------------------------------

    def _find_way(self, frame: FrameType) -> Any:
        """How a call of compiled code has to run: as of ``Choice``.

        Args:
            frame: that asks for the stance, inside the call.
        """
        step = self._step
        return step is not None and (step.guard(self._decide, step, frame) or False)

    def _decide(self, step: SampledStep, frame: FrameType) -> Any:
        """Whatever is not known is taken for ours, and so is all that our forward calls."""
        function, is_compiled_here = find_compiled(frame)
        if not is_compiled_here:
            return False
        forward = step.recorder.forward
        if self._is_wide or function is None:
            return True
        way: Any = False
        if forward.is_running or leads_to(function, self._goals):
            way = self._choose_variant(step, frame, function) or True
        else:
            self._has_let_by = True
            forward.leave_after_forward()  # dynamo would look for our mode, and compile it too
        if way is not True:
            self._unregister()  # code that takes a part of a ModuleList asks for such hooks
        return way

    def _choose_variant(self, step: SampledStep, frame: FrameType, function: Any) -> Any:
        """The backend that makes the second compilation; ``None``: the call runs eagerly."""
        variant, model, choice = self._variant, self._model(), self._choice
        if variant is None or model is None or choice is None or is_in_backward():
            return None
        is_default = choice.before.stance == "default" and choice.before.backend is None
        if not (is_default and torch.is_grad_enabled() and model.training):
            return None
        root = find_root(step, model)
        if root is None or not leads_to(function, frozenset((id(root),))):
            return None
        call = read_call(frame, function)
        taker = None if call is None else turn_compiled(step, variant, call, root)
        return None if call is None or taker is None else variant.enter(call, taker, root)

    def _hear_of_compilations(self) -> None:
        """Whatever is compiled meanwhile is not ours, and its code must not count on our hooks."""
        handler: Any = getattr(torch._dynamo, "callback_handler", None)
        if handler is not None and self._step is not None:
            forward = self._step.recorder.forward
            for callbacks, method in (
                (handler.start_callbacks, forward.suspend),
                (handler.end_callbacks, forward.resume),
            ):
                callback = call_weakly(method)
                self._callbacks.append((callbacks, callback))
                callbacks.append(callback)

    def _make_hook(self) -> Callable[..., None]:
        """Sees a module become part of another one: dynamo's exports begin with that."""
        make_way = self._make_way  # and nothing of ours: torch keeps the hook

        def see(parent: nn.Module, *_: object) -> None:
            if type(parent).__name__ in _WRAPPERS and _is_exporting():
                make_way()

        return see


def _is_exporting() -> bool:
    """Whether one of the callers is an export of dynamo's, and not ``torch.compile``."""
    frame = sys._getframe(1)
    for _ in range(MAX_CALLERS):
        if frame is None:
            return False
        home = frame.f_globals.get("__name__", "")
        if home == "torch._dynamo.functional_export" or home == "torch.export._trace":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
