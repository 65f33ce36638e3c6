"""Methods that torch keeps for us and that must not keep their owner."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


def call_weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method while its owner lives, then nothing, which answers ``None``.

    ``weakref.WeakMethod`` runs Python code when the owner goes, where what a signal raises is lost.

    Args:
        method: bound; its owner has to be weakly referable.
    """
    bound: Any = method
    find_owner, function = weakref.ref(bound.__self__), bound.__func__

    def call(*args: Any) -> Any:
        owner = find_owner()
        return None if owner is None else function(owner, *args)

    return call
