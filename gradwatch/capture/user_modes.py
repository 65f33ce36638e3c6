"""A user's modes, such as a counter of operations or a log of them, do not see what is ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes


def call_unseen(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a function of ours outside of all modes that are in force, if there are any.

    Args:
        function: of ours.
        args: for it.
    """
    if torch._C._len_torch_dispatch_stack():
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            return function(*args)
    if torch._C._len_torch_function_stack():  # a default device is one: this must cost nothing
        with torch._C.DisableTorchFunction():
            return function(*args)
    return function(*args)
