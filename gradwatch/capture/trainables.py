"""What is handed over to be watched: a model with something to train, and its optimizers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from gradwatch.errors import InvalidInput


def check_model(model: Any, optimizers: tuple[Optimizer, ...] = ()) -> None:
    """Refuse what cannot be watched.

    Args:
        model: to be a module with trainable parameters.
        optimizers: of which some hold parameters of it; none is right as well.

    Raises:
        InvalidInput: no module, nothing to train, or optimizers of something else.
    """
    if not isinstance(model, nn.Module):
        raise InvalidInput(
            f"Expected a torch.nn.Module, got {type(model).__name__}. "
            "Pass the model itself, not its output or its parameters."
        )
    params = {id(param) for param in model.parameters() if param.requires_grad}
    if not params:
        raise InvalidInput(
            f"Expected a model with trainable parameters, got {type(model).__name__} with none. "
            "Unfreeze what is to learn (requires_grad_(True)) before watching."
        )
    held = {
        id(p)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    if optimizers and not held & params:
        raise InvalidInput(
            f"Expected an optimizer that holds parameters of this {type(model).__name__}, got one "
            "that holds none of them. Was the optimizer made for another copy of the model?"
        )


def unwrap_optimizers(optimizer: Any) -> tuple[Optimizer, ...]:
    """The optimizers behind what somebody's loop calls ``step`` of.

    Args:
        optimizer: one, several, ``None``, or a wrapper around some, such as Accelerate's.

    Returns:
        Each once, in order; none for ``None``.

    Raises:
        InvalidInput: something among them is no optimizer and holds none.
    """
    if optimizer is None:
        return ()
    is_single = isinstance(optimizer, Optimizer) or _wraps(optimizer) or _holds(optimizer)
    several = [optimizer] if is_single else optimizer
    if not isinstance(several, Iterable):
        raise InvalidInput(
            "Expected an optimizer, several of them or None, got "
            f"{type(optimizer).__name__}. Pass what calls .step() in your loop."
        )
    found = [inner for each in several for inner in _unwrap(each)]
    wrong = [each for each in found if not isinstance(each, Optimizer)]
    if wrong or not found:
        came = type(wrong[0]).__name__ if wrong else "an empty collection"
        raise InvalidInput(
            f"Expected torch.optim.Optimizer, got {came}. Pass what calls .step() in your loop, "
            "or leave it out and mark each step with watch.step()."
        )
    return tuple(dict.fromkeys(found))


def _wraps(optimizer: Any) -> bool:
    return isinstance(getattr(optimizer, "optimizer", None), Optimizer)


def _holds(wrapper: Any) -> list[Optimizer]:
    """Optimizers among the attributes of what is none itself but steps them, such as LARC."""
    if isinstance(wrapper, (Optimizer, str, list, tuple, dict)) or not hasattr(wrapper, "step"):
        return []
    found: list[Optimizer] = []
    for value in getattr(wrapper, "__dict__", {}).values():
        values = value.values() if isinstance(value, dict) else value
        several = values if isinstance(value, (list, tuple, dict)) else [value]
        found += [each for each in several if isinstance(each, Optimizer)]
    return found


def _unwrap(optimizer: Any) -> list[Any]:
    """The optimizers inside a wrapper such as Accelerate's, Lightning's or a container."""
    while _wraps(optimizer):
        optimizer = optimizer.optimizer
    return list(_holds(optimizer)) or [optimizer]
