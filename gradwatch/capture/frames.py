"""Modules whose forward is running, and what an observer of them is called with."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from gradwatch.capture.graph import Edge
from gradwatch.schema.layer_set import OUTSIDE

Protect = Callable[..., Any]
"""Calls a function of ours with its arguments; its exceptions never reach the training."""


def has_modes() -> bool:
    """Whether a user's modes are in force, such as a counter of operations, and must not see us."""
    return bool(torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack())


def raise_again(error: BaseException) -> None:
    """For a guard: what it calls raises what was raised under no guard, at less cost.

    Args:
        error: that was caught.
    """
    raise error


@dataclass(eq=False)
class Frame:
    """A module whose forward is running.

    Attributes:
        fqn: its name.
        args: what it was called with; dropped when it returns.
        inputs: graph edges of the tensors among them.
        records: the call belongs to training; not to evaluation, nor to a recomputation.
        children: calls recorded inside it.
        has_attention: an attention was seen inside it.
    """

    _module: weakref.ref[nn.Module]
    fqn: str
    args: tuple[Any, ...]
    inputs: frozenset[Edge]
    records: bool
    children: int = 0
    has_attention: bool = False

    @property
    def module(self) -> nn.Module:
        """That was called; held weakly, since a call that Ctrl-C cut short leaves its frame."""
        module = self._module()
        return _NO_MODULE if module is None else module


_NO_MODULE = nn.Module()
"""Stands for a module that is no more, or for none."""

BETWEEN = Frame(weakref.ref(_NO_MODULE), OUTSIDE, (), frozenset(), records=True)
"""Stands for a module around what is called between forward and backward."""


class ForwardObserver(Protocol):
    """Whoever wants to know of the modules' calls."""

    def begin_root(self, module: nn.Module) -> None:
        """The outermost call that counts is about to run, outside of any backward.

        Args:
            module: that is watched.
        """

    def abandon_root(self) -> None:
        """It ended with an exception."""

    def begin_recomputation(self) -> None:
        """A reentrant checkpoint runs for the first time with a graph, inside a backward."""

    def miss_thread(self) -> None:
        """Forward has a layer run in another thread, where it is not followed."""

    def begin_without_grad(self, fqn: str) -> None:
        """A call in training mode, and all inside it, runs where gradients are switched off.

        Args:
            fqn: of the module that is called.
        """

    def record_module(self, frame: Frame, kwargs: dict[str, Any], result: Any) -> None:
        """A call that counts has returned.

        Args:
            frame: of the call.
            kwargs: that it was called with, besides ``frame.args``.
            result: what it returned.
        """


class _Nobody:
    """Observes nothing."""

    def begin_root(self, module: nn.Module) -> None: ...

    def abandon_root(self) -> None: ...

    def begin_recomputation(self) -> None: ...

    def miss_thread(self) -> None: ...

    def begin_without_grad(self, fqn: str) -> None: ...

    def record_module(self, frame: Frame, kwargs: dict[str, Any], result: Any) -> None: ...


NO_OBSERVER: ForwardObserver = _Nobody()
"""Takes an observer's place where nobody is to hear of calls any more."""
