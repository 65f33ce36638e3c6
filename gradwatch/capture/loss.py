"""The loss of a training that we only watch: the root of the backward pass that is running."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor

_ROOTS = {
    torch.autograd.backward.__code__: ("tensors", "grad_tensors"),
    torch.autograd.grad.__code__: ("outputs", "grad_outputs"),
}
"""The calls that start a pass, with the names of what they start from and of its gradients."""


def find_pass_root(thread: int) -> Tensor | None:
    """Value that a thread has called ``backward`` or ``autograd.grad`` on; nothing is computed.

    The engine may run hooks in a thread of the device's; the caller waits in its own, and its stack
    says what it waits for. The outermost pass counts: a reentrant checkpoint starts one inside it.

    Args:
        thread: identifier of the thread that runs the training.

    Returns:
        The scalar itself, of any shape; ``None`` where the pass began at several values, at none
        that is a scalar, or with gradients of the caller's.

    Example:
        >>> import threading
        >>> find_pass_root(threading.get_ident()) is None  # no pass is running
        True
    """
    found = None
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code in _ROOTS:
            found = frame
        frame = frame.f_back
    return None if found is None else _read_root(found)


def _read_root(frame: FrameType) -> Tensor | None:
    roots, weights = (frame.f_locals.get(name) for name in _ROOTS[frame.f_code])
    scalars = [roots] if isinstance(roots, Tensor) else list(roots or ())
    if len(scalars) != 1 or scalars[0].numel() != 1 or not _is_plain(weights):
        return None
    return scalars[0]


def _is_plain(weights: Any) -> bool:
    """Whether a scalar's own gradient is left at 1."""
    given = [weights] if isinstance(weights, Tensor) else list(weights or ())
    return all(weight is None for weight in given)
