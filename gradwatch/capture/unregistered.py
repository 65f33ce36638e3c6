"""Modules that forward calls and the model does not have, so that nothing trains them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from gradwatch.capture.optimizer_groups import find_held_ids
from gradwatch.capture.wrappers import unwrap


def describe_unregistered(
    module: nn.Module, model: nn.Module | None, optimizers: Iterable[Any]
) -> str:
    """What to say of a module that is called in forward and is no part of the model.

    Args:
        module: that is called.
        model: that is watched; ``None`` where it is gone.
        optimizers: that are watched.

    Returns:
        ``""`` where it has no weights of its own that want a gradient, or a watched optimizer holds
        them, or they are another name for the model's; also without an optimizer, and for a
        parallel wrapper.
    """
    params = [param for param in module._parameters.values() if param is not None]
    own = {id(param) for param in params if param.requires_grad}
    if not own or not torch.is_grad_enabled() or unwrap(module)[1] or model is None:
        return ""
    held = find_held_ids(optimizers)
    if not held or own & held or own & {id(param) for param in model.parameters()}:
        return ""
    return (
        f"{type(module).__name__} is called in forward and is no part of the model: no watched "
        "optimizer holds its weights, and they are not judged (a Python list or dict hides layers, "
        "nn.ModuleList and nn.ModuleDict register them; a layer that forward makes is new at each "
        "step)"
    )
