"""Which of an optimizer's step hooks marks the end of its step.

torch wraps ``step`` once for each class of which an optimizer was ever made. A subclass whose
``step`` calls ``super().step()`` therefore fires its hooks once, or once more for every wrapped
base, depending on what else was made in the process.
"""

from __future__ import annotations

import sys
from typing import Any

from torch.optim import Optimizer

_wrap: Any = Optimizer.profile_hook_step
_WRAPPER_CODE = _wrap(lambda: None).__code__
"""Shared by all wrappers: what their frames on the stack are known by."""


def is_inner_step(optimizer: Optimizer) -> bool:
    """Whether the step whose hook is running was called by another step of this optimizer.

    The stack is asked, and only where two classes have a wrapped ``step``: a count that a hook
    before the step raises would stay raised after a step that fails.

    Args:
        optimizer: whose hook is running, on this thread.
    """
    owners = [base.__dict__.get("step") for base in type(optimizer).__mro__]
    if len([step for step in owners if hasattr(step, "hooked")]) < 2:
        return False
    found, frame = 0, sys._getframe()
    while frame is not None and found < 2:
        found += frame.f_code is _WRAPPER_CODE and frame.f_locals.get("self") is optimizer
        frame = frame.f_back  # type: ignore[assignment]
    return found == 2


def remove_hook(table: dict[int, Any], hook: Any) -> None:
    """Remove a hook by itself, and not by a handle that a signal may have cut off.

    Args:
        table: of an optimizer's or torch's hooks, by number; changed in place.
        hook: harmless where it is not there.
    """
    for number in [number for number, kept in table.items() if kept == hook]:
        del table[number]
