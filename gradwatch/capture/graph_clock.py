"""Whether a training goes on without its optimizer's steps, known without a hook of its own.

A guard that skips ``optimizer.step()`` for good, or a loss scaler that always does, calls nothing
of ours. What still tells it is autograd's count of the nodes that this thread has made, which each
forward raises, and the gradient that lies in a parameter, which each backward changes.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_LEAST_STEPS = 3
"""Steps from which it is known how much graph one makes."""

_count_nodes: Callable[[], int] = getattr(torch.autograd, "_get_sequence_nr", int)
"""Of this thread; always 0 where torch does not say it."""


class GraphClock:
    """Counts the steps' worth of graph that was made since the last step.

    The gradient of one small parameter is kept from step to step, so that no other can have its
    identity.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._first = self._last = _count_nodes()
        self._steps = self._passes = 0
        self._param: weakref.ref[Tensor] | None = None
        self._grad: Tensor | None = None
        self._version = 0

    def follow(self, params: Iterable[Tensor]) -> None:
        """Choose the parameter whose gradient is looked at: the smallest that has one.

        Args:
            params: of the model, at a sampled step.
        """
        if self._param is None or self._param() is None:
            found = [param for param in params if _is_dense(param.grad) and not _is_view(param)]
            chosen = min(found, key=Tensor.numel, default=None)
            self._param = None if chosen is None else weakref.ref(chosen)

    def tick(self) -> None:
        """The optimizer has stepped."""
        self._last = _count_nodes()
        self._steps += 1
        param = None if self._param is None else self._param()
        self._grad = grad = None if param is None else param.grad
        if grad is not None and not grad.is_inference():
            self._version = grad._version

    def stop(self) -> None:
        """Keep nothing alive."""
        self._grad = None

    def note_passes(self, passes: int) -> None:
        """A sampled step was given up without a step of the optimizer.

        Args:
            passes: backward passes that it has seen.
        """
        self._passes = passes

    def count_steps(self, passes: int = 0) -> int:
        """Steps' worth of graph since the last step; 0 where no backward has come out of it.

        Args:
            passes: of the step that is being sampled; they count where nothing else is known.
        """
        if self._steps < _LEAST_STEPS:
            return max(passes, self._passes)
        made = self._last - self._first
        if made <= 0 or threading.get_ident() != self._thread:
            return 0
        count = int((_count_nodes() - self._last) * self._steps / made)
        return count if count > 0 and self._has_new_gradient() else 0

    def _has_new_gradient(self) -> bool:
        """Another one than at the last step; one that was only cleared is none."""
        param = None if self._param is None else self._param()
        grad = None if param is None else param.grad
        if grad is None or self._grad is None or grad.is_inference():
            return False
        is_same = grad is self._grad and grad._version == self._version
        return not is_same and bool(grad.ne(0).any())  # NaN is not 0


def _is_view(param: Tensor) -> bool:
    """Of a larger tensor, as in a bucket of gradients, which is not to be kept alive."""
    grad: Any = param.grad
    return bool(grad._is_view() or grad.untyped_storage().nbytes() > grad.nbytes)


def _is_dense(grad: Tensor | None) -> bool:
    return type(grad) is Tensor and grad.layout is torch.strided
