"""Backward passes: which ones are training, and when each one has ended."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.autograd import Variable
from torch.nn.parameter import UninitializedParameter

from gradwatch.capture.shards import find_flat_parameters
from gradwatch.capture.weak_calls import call_weakly
from gradwatch.interruption import is_foreign


class PassTracker:
    """Tells the backward passes of one sampled step apart.

    Args:
        model: whose parameters' gradients make a pass a training pass.
        on_begin: method, called when a training pass reaches the first watched call.
        on_end: method, called when it is over and every gradient is in place.
        counts_grad: ``autograd.grad`` with respect to parameters counts too: this training puts its
            results into ``param.grad`` by itself.

    Their owner is held weakly: it holds the tracker, and what a step has measured is to be free
    with the step. Small tensors that wait for the cycle collector keep the allocator from giving
    the large ones of training around them back.
    """

    def __init__(
        self,
        model: nn.Module,
        on_begin: Callable[[], None],
        on_end: Callable[[], None],
        counts_grad: bool = False,
    ) -> None:
        self._model = weakref.ref(model)
        self._counts_grad = counts_grad
        self._on_begin = call_weakly(on_begin)
        self._on_end = call_weakly(on_end)
        self._counts: dict[int, bool] = {}  # by graph task
        self._is_open = False
        self._is_reentrant = False

    def begin_forward(self) -> None:
        """Forward runs outside of any backward: none is open any more."""
        self._is_open = self._is_reentrant = False

    def begin_recomputation(self) -> None:
        """A checkpoint runs forward inside a backward, which therefore is a training pass.

        The reentrant kind then starts a backward of its own inside the outer one.
        """
        task = torch._C._current_graph_task_id()
        self._is_reentrant = True
        if not self._is_open:
            self._counts[task] = True
            self._open()

    def notice(self) -> bool:
        """A watched call was reached; answers whether the running backward counts."""
        task = torch._C._current_graph_task_id()
        counts = self._counts.get(task)
        if counts is None:
            nested = self._is_open and self._is_reentrant
            counts = self._counts[task] = nested or self._is_training_pass()
            if counts and not self._is_open:
                self._open()
        return counts

    def _is_training_pass(self) -> bool:
        model = self._model()
        return model is not None and is_training_pass(model, self._counts_grad)

    def _open(self) -> None:
        self._is_open = True
        self._on_begin()
        _queue(self._defer_end)

    def _defer_end(self) -> None:
        # Callbacks queued now run after those of DistributedDataParallel's all-reduce.
        _queue(self._end)

    def _end(self) -> None:
        self._is_open = False
        self._on_end()


def _queue(callback: Callable[[], None]) -> None:
    Variable._execution_engine.queue_callback(callback)


def is_in_backward() -> bool:
    """Whether this thread is inside a backward pass."""
    return bool(torch._C._current_graph_task_id() != -1)


def run_after_backward(callback: Callable[[], None]) -> None:
    """Call at the end of the running backward pass.

    Args:
        callback: what it raises is raised by ``backward``.
    """
    _queue(callback)


def is_training_pass(model: nn.Module, counts_grad: bool = False) -> bool:
    """Tell ``backward`` from ``autograd.grad``, whose results are no gradients of a loss.

    Only ``backward`` runs the graph's leaves, which add to ``param.grad``.

    Args:
        model: whose parameters are the leaves.
        counts_grad: ``autograd.grad`` that was asked for one of them counts as well.

    Returns:
        ``False`` outside of any backward.
    """
    return _runs_any(model.parameters(), counts_grad) or _runs_any(
        find_flat_parameters(model), counts_grad
    )


def _runs_any(params: Iterable[nn.Parameter], counts_grad: bool) -> bool:
    leaves = (_find_leaf(param) for param in params if param.requires_grad)
    return any(leaf is not None and _is_run(leaf, counts_grad) for leaf in leaves)


def _find_leaf(param: nn.Parameter) -> Any | None:
    if isinstance(param, UninitializedParameter):
        return None
    with torch.enable_grad():
        node = param.view_as(param).grad_fn
    return node.next_functions[0][0] if node is not None and node.next_functions else None


def _is_run(leaf: Any, counts_grad: bool) -> bool:
    try:
        return bool(torch._C._will_engine_execute_node(leaf))
    except RuntimeError as error:  # raised for leaves that autograd.grad was asked for
        if is_foreign(error):
            raise
        return counts_grad
