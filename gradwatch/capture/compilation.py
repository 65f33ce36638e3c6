"""Compiled models: a sampled step runs the same code eagerly, so that its layers can be seen."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_hooks

from gradwatch.capture.step_hooks import remove_hook
from gradwatch.capture.weak_calls import call_weakly

_HOOKS_FIRE_TWICE = r"Using `torch\.compile\(module\)` when there are global hooks"
"""Torch's warning about global hooks on a compiled module; ours are counted once."""


HAS_STANCE = hasattr(torch.compiler, "set_stance")
"""Since torch 2.6, compiled code can be run eagerly for a while."""

UNSEEN = "layers in compiled code are not seen: that needs torch 2.6 or newer"


def is_compiled(model: nn.Module) -> bool:
    """Whether any part of the model runs through ``torch.compile``.

    Args:
        model: or a part of one.
    """
    return any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


_WRAPPERS = ("ModuleToTrace", "OptimizedModule")
"""Modules into which dynamo puts the one that it is about to export."""

MAX_CALLERS = 24
"""An export is looked for among this many callers."""


class EagerStance:
    """``torch.compiler.set_stance("force_eager")`` while a step of a compiled model is sampled.

    The compiled code stays as it is and runs again on the next step.

    Args:
        model: that may be compiled.
        make_way: method, called when dynamo is about to export a module as a whole. It then looks
            for global hooks, and fails over any; ours must be gone by then.
    """

    def __init__(self, model: nn.Module, make_way: Callable[[], None]) -> None:
        self._model = weakref.ref(model)
        self._make_way = call_weakly(make_way)
        self._hook = self._make_hook()
        self._is_registered = False
        self._before: Any = None
        self._filter: Any = None

    def enter(self) -> bool:
        """Run eagerly from now on, if anything was compiled in this process at all.

        Returns:
            Whether the layers may be hooked: an older torch would compile our hooks too.
        """
        if not self._is_registered:
            self._is_registered = True
            module_hooks.register_module_module_registration_hook(self._hook)
        if not HAS_STANCE:
            model = self._model()
            return model is not None and not is_compiled(model)
        if self._before is None and "torch._dynamo.eval_frame" in sys.modules:
            self._before = torch._dynamo.eval_frame._stance  # first: a signal may cut this off
            torch.compiler.set_stance("force_eager")
            warnings.filterwarnings("ignore", message=_HOOKS_FIRE_TWICE)
            self._filter = warnings.filters[0]
        return True

    def leave(self) -> None:
        """Back to the stance that was in force."""
        if self._is_registered:
            remove_hook(module_hooks._global_module_registration_hooks, self._hook)
            self._is_registered = False
        if self._before is not None:
            torch._dynamo.eval_frame._set_stance(self._before)
            self._before = None
        if self._filter in warnings.filters:
            warnings.filters.remove(self._filter)  # type: ignore[attr-defined]

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
