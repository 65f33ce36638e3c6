"""What is handed over to be watched: a model with something to train, and its optimizers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from gradwatch.capture.stepped_objects import SteppedObject
from gradwatch.errors import InvalidInput


def check_model(model: Any) -> nn.Module:
    """Refuse what cannot be watched.

    Args:
        model: to be a module with trainable parameters.

    Returns:
        The model.

    Raises:
        InvalidInput: no module, or nothing to train.
    """
    if not isinstance(model, nn.Module):
        raise InvalidInput(
            f"Expected a torch.nn.Module, got {type(model).__name__}. "
            "Pass the model itself, not its output or its parameters."
        )
    if not any(param.requires_grad for param in model.parameters()):
        raise InvalidInput(
            f"Expected a model with trainable parameters, got {type(model).__name__} with none. "
            "Unfreeze what is to learn (requires_grad_(True)) before watching."
        )
    return model


def check_optimizers(model: nn.Module, optimizers: tuple[Optimizer, ...]) -> None:
    """Refuse optimizers of something else.

    Args:
        model: whose trainable parameters some of them are to hold.
        optimizers: none is right as well.

    Raises:
        InvalidInput: none of them holds any.
    """
    params = {id(param): param for param in model.parameters() if param.requires_grad}
    if optimizers and not any(_share(optimizer, params) for optimizer in optimizers):
        raise InvalidInput(
            f"Expected an optimizer that holds parameters of this {type(model).__name__}, got one "
            "that holds none of them. Was the optimizer made for another copy of the model?"
        )


def unwrap_optimizers(model: nn.Module, optimizer: Any) -> tuple[Optimizer, ...]:
    """The optimizers behind what somebody's loop calls ``step`` of.

    Args:
        model: that they train.
        optimizer: one, several, ``None``, a wrapper around some, such as Accelerate's, or anything
            that steps parameters and has ``param_groups``.

    Returns:
        Each once, in order; none for ``None``. What is none of torch's optimizers comes as a
        ``SteppedObject``, which has the same hooks.

    Raises:
        InvalidInput: something among them is no optimizer and holds none.
    """
    if optimizer is None:
        return ()
    several = [optimizer] if _is_single(optimizer) else optimizer
    if not isinstance(several, Iterable):
        raise InvalidInput(
            "Expected an optimizer, several of them or None, got "
            f"{type(optimizer).__name__}. Pass what calls .step() in your loop."
        )
    params = {id(param): param for param in model.parameters()}
    found = {id(inner): inner for each in several for inner in _unwrap(each, params)}
    wrong = [each for each in found.values() if not _steps(each)]
    if wrong or not found:
        came = type(wrong[0]).__name__ if wrong else "an empty collection"
        raise InvalidInput(
            f"Expected torch.optim.Optimizer or what has param_groups and step(), got {came}. "
            "Pass what calls .step() in your loop, or leave it out and mark each step with "
            "watch.step()."
        )
    return tuple(_give_hooks(each, model, params) for each in found.values())


def _give_hooks(optimizer: Any, model: nn.Module, params: dict[int, Any]) -> Any:
    if isinstance(optimizer, Optimizer):
        return optimizer
    stands_apart = not _share(optimizer, params) and not _is_copy(optimizer, params)
    return SteppedObject(optimizer, model, stands_apart)


def _is_single(optimizer: Any) -> bool:
    inner = getattr(optimizer, "optimizer", None)
    return _steps(optimizer) or _steps(inner) or bool(_holds(optimizer))


def _steps(optimizer: Any) -> bool:
    """Whether it does what an optimizer does, of whatever class it is."""
    if isinstance(optimizer, Optimizer):
        return True
    groups = getattr(optimizer, "param_groups", None)
    has_groups = isinstance(groups, list) and all(
        isinstance(group, dict) and "params" in group for group in groups
    )
    is_object = hasattr(optimizer, "__dict__") and not isinstance(optimizer, type)
    return has_groups and is_object and callable(getattr(optimizer, "step", None))


def _share(optimizer: Any, params: dict[int, Any]) -> bool:
    """Whether any of these parameters is in its groups."""
    return any(id(param) in params for group in optimizer.param_groups for param in group["params"])


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


def _unwrap(optimizer: Any, params: dict[int, Any]) -> list[Any]:
    """What to listen to: the optimizer inside a wrapper such as Accelerate's or Lightning's, all
    of a container's; but a single one that is wrapped in what changes its steps is left inside.
    """
    chain = [optimizer]
    while _steps(getattr(chain[-1], "optimizer", None)):
        chain.append(chain[-1].optimizer)
    last = chain[-1]
    if len(chain) > 1 and not _share(last, params) and not _is_copy(last, params):
        return [next((each for each in reversed(chain) if not isinstance(each, Optimizer)), last)]
    held = _holds(last)
    return list(held) if len(held) > 1 or (held and not _steps(last)) else [last]


def _is_copy(optimizer: Any, params: dict[int, Any]) -> bool:
    """Whether it holds what another copy of the model would, and no shards or master copies."""
    held = [param for group in optimizer.param_groups for param in group["params"]]
    kinds = {(param.shape, param.dtype) for param in params.values() if param.numel()}
    return bool(held) and all((param.shape, param.dtype) in kinds for param in held)
