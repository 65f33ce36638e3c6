"""Functions of torch by their names, in all the places where they can be called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def list_callables(homes: Iterable[Any], *names: str) -> frozenset[Any]:
    """Every spelling there is in this version of torch.

    Args:
        homes: modules and classes of torch.
        names: of functions and methods.

    Example:
        >>> import torch
        >>> list_callables((torch, torch.Tensor), "tanh") == {torch.tanh, torch.Tensor.tanh}
        True
    """
    found = (getattr(home, name, None) for home in homes for name in names)
    return frozenset(function for function in found if function is not None)
