"""The caller's optimizer, made again for a changed copy of the model."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from torch.optim import Optimizer


def rebuild_optimizer(optimizer: Optimizer, model: nn.Module, before: set[int]) -> Optimizer:
    """The same class, groups and hyper-parameters over a changed model's parameters; no state.

    Args:
        optimizer: the copy that was made together with the model; not to be used any more.
        model: after the change.
        before: identities of the model's parameters before it. What is new joins the group of the
            parameter before it in the model; what the optimizer never held stays out.
    """
    groups = _sort_groups(optimizer, model, before)
    optimizer.state.clear()
    try:
        return type(optimizer)(groups, **_choose_defaults(optimizer))
    except (TypeError, ValueError):  # a class that is made in some way of its own
        for group, new in zip(optimizer.param_groups, groups, strict=True):
            group["params"] = new["params"]
        return optimizer


def _sort_groups(optimizer: Optimizer, model: nn.Module, before: set[int]) -> list[dict[str, Any]]:
    home = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    present = {id(param) for param in model.parameters()}
    outside = {key for key in home if key not in before}  # of another part, such as the loss
    params: list[list[nn.Parameter]] = [
        [p for p in group["params"] if id(p) in present | outside]
        for group in optimizer.param_groups
    ]
    latest = 0
    for param in model.parameters():
        latest = home.get(id(param), latest)
        if id(param) not in before and id(param) not in home:
            params[latest].append(param)
    return [
        {**group, "params": chosen}
        for group, chosen in zip(optimizer.param_groups, params, strict=True)
    ]


def _choose_defaults(optimizer: Optimizer) -> dict[str, Any]:
    """Defaults that the class takes as arguments; each group brings its own values besides."""
    taken = inspect.signature(type(optimizer)).parameters
    return {key: value for key, value in optimizer.defaults.items() if key in taken}


def scale_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Multiply the learning rate of every group.

    Args:
        optimizer: a copy's, changed in place.
        factor: 1 changes nothing.
    """
    for group in optimizer.param_groups:
        if "lr" in group:
            group["lr"] = group["lr"] * factor


def list_trainable(model: nn.Module) -> list[nn.Parameter]:
    """What an optimizer factory is called with: the trainable parameters.

    Args:
        model: a copy.
    """
    return [param for param in model.parameters() if param.requires_grad]
