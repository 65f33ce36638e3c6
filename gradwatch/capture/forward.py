"""The forward side of a sampled step: which watched module is running, and does the call count.

Modules are seen through torch's global module hooks, which live outside the model: nothing is
stored on a module, so pickling, copying and scripting it are untouched.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.overrides import TorchFunctionMode

from gradwatch.capture.backward_passes import is_in_backward
from gradwatch.capture.frames import NO_OBSERVER, ForwardObserver, Frame, Protect
from gradwatch.capture.graph import find_input_edges
from gradwatch.capture.torch_tables import (
    HAS_KWARGS,
    count_running,
    is_entered,
    is_lowest,
    is_traced,
    make_hook,
    remove_global_hook,
    take_off,
)


class ForwardTracker:
    """Follows the watched modules' calls while armed; enters the function mode around them.

    Args:
        names: fqn by ``id`` of each watched module.
        guard: calls a function of ours so that its exceptions never reach the training.
        observer: is called with each of them.
        make_mode: makes the mode that is active while the outermost watched module runs.
        notice: is shown the modules outside the watched ones, such as a parallel wrapper.
    """

    def __init__(
        self,
        names: dict[int, str],
        guard: Protect,
        observer: ForwardObserver,
        make_mode: Callable[[], TorchFunctionMode],
        notice: Callable[[nn.Module], None],
    ) -> None:
        self.stack: list[Frame] = []
        self.used_modules: set[str] = set()
        self._names = names
        self._guard = guard
        self._observer = observer
        self._make_mode = make_mode
        self._notice = notice
        self._thread = threading.get_ident()
        self._hooks: list[Callable[..., None]] = []
        self._root: Frame | None = None
        self._modes: list[TorchFunctionMode] = []
        self._retired = False
        self._is_suspended = False
        self._deferred: Counter[str] = Counter()
        self._graphed: set[str] = set()
        self._params: list[weakref.ref[nn.Parameter]] = []
        self._has_hooks: bool | None = None

    # Arming ---------------------------------------------------------------------------------

    @property
    def is_armed(self) -> bool:
        """Whether calls are being followed."""
        return bool(self._hooks)

    @property
    def is_running(self) -> bool:
        """Whether a watched module runs on this thread."""
        is_here = threading.get_ident() == self._thread
        return is_here and bool(self.stack) and bool(count_running(self.stack[0].module))

    @property
    def has_left(self) -> bool:
        """Whether nothing of this is left in torch."""
        return not self._hooks and not self._modes

    def arm(self, params: Iterable[nn.Parameter]) -> None:
        """Start to follow.

        Args:
            params: of all watched modules; held weakly, as the modules are.
        """
        self._params = [weakref.ref(param) for param in params]
        pre = make_hook(self._enter)
        post = make_hook(self._leave if HAS_KWARGS else self._leave_without_kwargs)
        self._hooks = [pre, post]
        self._register()

    def _register(self) -> None:
        pre, post = self._hooks
        options = {"with_kwargs": True} if HAS_KWARGS else {}
        module_hooks.register_module_forward_pre_hook(pre)
        module_hooks.register_module_forward_hook(post, always_call=True, **options)

    def _stop_entering(self) -> None:
        """Of the modules inside the outermost one, nobody asks when they begin."""
        remove_global_hook(self._hooks[0])

    def _enter_again(self) -> None:
        """The outermost module has returned."""
        if self._hooks and not self._is_suspended:
            remove_global_hook(self._hooks[0])  # it may be there
            module_hooks.register_module_forward_pre_hook(self._hooks[0])

    def suspend(self, *_: object) -> None:
        """Something is being compiled on this thread, and must not find our hooks.

        Args:
            *_: what dynamo says of it.
        """
        if threading.get_ident() == self._thread:
            self._is_suspended = True
            for hook in self._hooks:
                remove_global_hook(hook)

    def resume(self, *_: object) -> None:
        """It is compiled.

        Args:
            *_: what dynamo says of it.
        """
        if self._is_suspended and threading.get_ident() == self._thread:
            self._is_suspended = False
            if self._hooks:
                self._register()

    def disarm(self) -> None:
        """Stop at once, from outside any forward or after one was cut short.

        May itself be cut short by a signal, and is then called again.
        """
        for hook in self._hooks:
            remove_global_hook(hook)
        self.stack.clear()
        self._root = None
        self.leave_modes()
        self._hooks.clear()
        self._observer, self._make_mode = NO_OBSERVER, TorchFunctionMode  # they hold us

    def retire(self) -> None:
        """Stop as soon as that is safe: a mode cannot be left in the middle of a forward."""
        if self.stack and count_running(self.stack[0].module):
            self._retired = True
        else:
            self.disarm()

    def begin_pass(self) -> None:
        """A new forward-backward pass begins."""
        self._deferred.clear()
        self._graphed.clear()

    # Calls ----------------------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        fqn = self._names.get(id(module))
        if threading.get_ident() != self._thread:
            if fqn is not None and self._belongs_to_root():
                self._guard(self._observer.miss_thread)
            return
        if fqn is None:
            self._drop_stale_frames()
            self._guard(self._notice, module)
        elif not self._retired:
            with torch._C.DisableTorchFunction():  # what we ask of tensors is not forward's doing
                self._guard(self._push, module, fqn, args)

    def _belongs_to_root(self) -> bool:
        """Whether another thread runs a part of forward, rather than the model for itself."""
        root = self._root
        if root is None or not torch.is_grad_enabled():
            return False
        return not count_running(root.module)

    def _push(self, module: nn.Module, fqn: str, args: tuple[Any, ...]) -> None:
        if self.stack and self.stack[0].module is module:
            self._drop_stale_frames(own_calls=1)
        if not self.stack and is_traced():
            return
        frame = Frame(
            weakref.ref(module), fqn, args, find_input_edges(args), self._counts(module, fqn)
        )
        self.stack.append(frame)
        if frame.records and self._root is None:
            self._begin_root(frame)

    def _begin_root(self, frame: Frame) -> None:
        self._root = frame
        if is_in_backward():
            self._observer.begin_recomputation()
        else:
            self._observer.begin_root(frame.module)
        if not any(is_entered(mode) for mode in self._modes):  # one that was cut short stays
            mode = self._make_mode()
            self._modes.append(mode)
            mode.__enter__()

    def _drop_stale_frames(self, own_calls: int = 0) -> None:
        """After Ctrl-C no hook is called on the way out; the next forward finds what was left."""
        if self.stack and count_running(self.stack[0].module) <= own_calls:
            self.stack.clear()
            self._leave_root(has_failed=True)

    def _counts(self, module: nn.Module, fqn: str) -> bool:
        if not torch.is_grad_enabled():
            if module.training and not is_in_backward():  # perhaps a reentrant checkpoint
                self._deferred[fqn] += 1
                self.used_modules.add(fqn)
                if not self.stack or self.stack[-1].records:
                    self._observer.begin_without_grad(fqn)
            return False
        if (
            is_in_backward()
        ):  # recomputed by a checkpoint: new only where the first run had no graph
            self._deferred[fqn] -= 1
            return self._deferred[fqn] >= 0 and fqn not in self._graphed
        self._graphed.add(fqn)
        return True

    def _leave(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if not self.stack or threading.get_ident() != self._thread:
            return
        frame = self._pop(module)
        has_failed = len(rest) == 1  # after an exception, torch passes no keyword arguments
        if frame is not None and frame.records and not has_failed:
            with torch._C.DisableTorchFunction():
                self._guard(self._observer.record_module, frame, *rest)
        if self._root is not None and self._root not in self.stack:
            self._leave_root(has_failed)
        if self._retired and not self.stack:
            self.disarm()

    def _leave_without_kwargs(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        """For an older torch: what it does not say stands in the frame that calls its hooks."""
        has_failed = result is None and sys.exc_info()[0] is not None
        kwargs = sys._getframe(3).f_locals.get("kwargs", {})
        self._leave(module, args, *((result,) if has_failed else (kwargs, result)))

    def _pop(self, module: nn.Module) -> Frame | None:
        if self.stack[-1].module is not module and all(
            running.module is not module for running in self.stack
        ):
            return None
        frame = self.stack.pop()
        while frame.module is not module:  # an exception passed through a module in between
            frame = self.stack.pop()
        if frame.records:
            self.used_modules.add(frame.fqn)
        return frame

    def _leave_root(self, has_failed: bool) -> None:
        if has_failed or not self._may_stay():
            self.leave_modes()
        self._root = None
        if has_failed:
            self._guard(self._observer.abandon_root)

    def _may_stay(self) -> bool:
        """Whether the mode may see what stands between forward and backward.

        With nothing below it, whoever enters a mode later leaves that one, and not ours. Where
        optimizers step inside backward, no step would come to take it off.
        """
        root = self._root
        if root is None or is_in_backward() or self._retired or not is_lowest(self._modes):
            return False
        if self._has_hooks is None:  # asked once, and not before: they may come with forward
            self._has_hooks = any(_runs_hook_in_backward(param()) for param in self._params)
        return not (self._has_hooks and any(map(_runs_hook_in_backward, root.module.parameters())))

    def leave_after_forward(self) -> None:
        """Forward, and what follows it up to its backward, has ended."""
        if not self.stack:
            self.leave_modes()

    def leave_modes(self) -> None:
        """Take off what is there; one that torch has put aside, as in a backward, comes later."""
        self._modes = [mode for mode in self._modes if not take_off(mode)]


def _runs_hook_in_backward(param: nn.Parameter | None) -> bool:
    return bool(getattr(param, "_post_accumulate_grad_hooks", None))
