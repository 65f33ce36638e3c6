"""The forward side of a step that is executed from a plan."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from gradwatch.capture.backward_passes import is_in_backward
from gradwatch.capture.execution import Execution
from gradwatch.capture.forward import ForwardTracker
from gradwatch.capture.frames import Frame, has_modes, raise_again


class PlannedForward(ForwardTracker):
    """Follows the outermost module like any; the modules inside are met with a plan.

    Attributes:
        execution: of the plan.
        sees_functions: the function mode is entered around the outermost module.
    """

    execution: Execution
    sees_functions = True

    def arm(self, params: Iterable[nn.Parameter]) -> None:
        """As that of the others; of the parameters nothing has to be known.

        Args:
            params: of all watched modules.
        """
        super().arm(())

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
            return
        self._root = frame
        self._observer.begin_root(frame.module)
        self._stop_entering()

    def _leave_root(self, has_failed: bool) -> None:
        self._enter_again()
        super()._leave_root(has_failed)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        root = self._root
        if root is None or root.module is module or threading.get_ident() != self._thread:
            self._leave_outside(module, args, *rest)
            return
        fqn = self._names.get(id(module))
        if fqn is None or self._retired:
            return
        if len(rest) < 2:  # after an exception
            self._guard(self.execution.reject, "an exception")
        elif torch.is_grad_enabled():
            if has_modes():
                self._guard(self.execution.take_module, fqn, module, args, *rest)
                return
            try:
                self.execution.take_module(fqn, module, args, *rest)
            except BaseException as error:
                self._guard(raise_again, error)
        elif module.training:
            self._guard(self.execution.reject, "no gradients")

    def _leave_outside(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if threading.get_ident() == self._thread:
            super()._leave(module, args, *rest)
        elif id(module) in self._names and self._belongs_to_root():
            self._guard(self._observer.miss_thread)
