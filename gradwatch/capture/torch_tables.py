"""What a sampled step leaves in torch's own tables, and how it is taken out again whatever happens.

Global module hooks and the function mode: both live as long as the process, so they hold nobody.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)

HAS_KWARGS = hasattr(module_hooks, "_global_forward_hooks_with_kwargs")
"""Whether global hooks are shown keyword arguments, as in newer releases of torch."""


def is_entered(mode: TorchFunctionMode) -> bool:
    """Whether a mode is active on this thread.

    Args:
        mode: of ours.
    """
    return any(entered is mode for entered in _get_current_function_mode_stack())


def is_lowest(modes: Iterable[TorchFunctionMode]) -> bool:
    """Whether the function mode that was entered first is one of these.

    Args:
        modes: of ours.
    """
    entered = _get_current_function_mode_stack()
    return bool(entered) and any(entered[0] is mode for mode in modes)


def take_off(mode: TorchFunctionMode) -> bool:
    """Leave a mode, also from under others that were entered after it.

    Answers whether it was there: torch puts a mode aside while it runs, and then back.

    Args:
        mode: harmless where it is not entered.
    """
    if not is_entered(mode):
        return False
    above = []
    while torch._C._len_torch_function_stack():
        top = _pop_mode()
        if top is mode:
            break
        above.append(top)
    for other in reversed(above):
        _push_mode(other)
    return True


def remove_global_hook(hook: Callable[..., None]) -> None:
    """By itself and not by a handle, which a signal may have cut off.

    Args:
        hook: harmless where it is not there.
    """
    for table in (module_hooks._global_forward_pre_hooks, module_hooks._global_forward_hooks):
        for number in [number for number, kept in table.items() if kept is hook]:
            module_hooks._global_forward_hooks_always_called.pop(number, None)
            if HAS_KWARGS:  # which torch's own handles leave
                module_hooks._global_forward_hooks_with_kwargs.pop(number, None)
            del table[number]


def make_hook(method: Callable[..., None]) -> Callable[..., None]:
    """For torch's tables, which live as long as the process: holds nobody, compiles to nothing.

    Args:
        method: bound; its owner is held weakly.
    """
    bound: Any = method
    find_owner, function = weakref.ref(bound.__self__), bound.__func__

    def hook(*args: Any) -> None:
        if not torch.compiler.is_compiling():
            owner = find_owner()
            if owner is not None:
                function(owner, *args)

    return hook


def is_traced() -> bool:
    """Whether forward is being recorded by something else: a trace, a CUDA graph, ``vmap``."""
    if torch._C._get_tracing_state() is not None:
        return True
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    keys = torch._C._TorchDispatchModeKey
    if any(torch._C._get_dispatch_mode(key) is not None for key in (keys.FAKE, keys.PROXY)):
        return True
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def count_running(module: nn.Module) -> int:
    """How many calls of this module are on the Python stack.

    Args:
        module: is looked for on the running thread's stack.
    """
    frame, count = sys._getframe(1), 0
    while frame is not None:
        if frame.f_code.co_name == "_call_impl" and frame.f_locals.get("self") is module:
            count += 1
        frame = frame.f_back  # type: ignore[assignment]
    return count
