"""What stands between the optimizer's step and the gradients: loss scales, skips, weight decay."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.capture.device_values import WHOLE_STEP, Ledger, RawValue
from gradwatch.capture.stepped_objects import find_class

HOST = "cpu"
"""Type of the device whose tensors are read without a wait."""

MAX_FRAMES = 24
"""A GradScaler is looked for among this many callers of ``optimizer.step``."""


_SCALER_FILE = torch.amp.GradScaler.step.__code__.co_filename


def find_scaler(optimizer: Optimizer) -> Any | None:
    """The GradScaler that is calling ``optimizer.step`` right now, if there is one.

    ``GradScaler.step`` calls the optimizer, so it stands in the call stack of the step hook;
    nobody has to hand it to gradwatch, and nothing of it is called.

    Args:
        optimizer: whose step hook is running.

    Returns:
        ``None`` where nobody scales the loss, or the step was called past the scaler.
    """
    scaler = getattr(optimizer, "grad_scale", None)
    if hasattr(scaler, "_scale"):
        return scaler
    frame = sys._getframe(1)
    for _ in range(MAX_FRAMES):
        if frame is None:
            return None
        if frame.f_code.co_filename == _SCALER_FILE:  # reading locals keeps alive what they hold
            owner = frame.f_locals.get("self")
            if isinstance(owner, torch.amp.GradScaler):
                return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None


def read_scale(scaler: Any | None) -> Tensor | None:
    """The scale as a tensor on its device; ``None`` without a scaler that is switched on.

    Args:
        scaler: as ``find_scaler`` has answered it.

    Returns:
        Of one element, float32; nothing waits for it.
    """
    if scaler is None or not getattr(scaler, "_enabled", True):
        return None
    scale = getattr(scaler, "_scale", None)
    return scale if isinstance(scale, Tensor) else None


def read_found_inf(optimizer: Optimizer) -> Tensor | None:
    """Flag of a fused optimizer that skips inside ``step``; ``None`` for others.

    Args:
        optimizer: that has just stepped.

    Returns:
        Zero-dimensional, on its device; above 0 where the step was skipped.
    """
    found = getattr(optimizer, "found_inf", None)
    return found.reshape(-1)[0] if isinstance(found, Tensor) else None


def note_scaling(optimizer: Optimizer | None, ledger: Ledger) -> None:
    """What stands between a step's gradients and its numbers: the loss scale, and a skip.

    Args:
        optimizer: that is stepping; ``None``: the step was marked by hand.
        ledger: takes ``step.loss_scale`` and ``step.found_inf``, where there is such a thing.
    """
    if optimizer is None:
        return
    scale, found = read_scale(find_scaler(optimizer)), read_found_inf(optimizer)
    if scale is not None:
        ledger.add("step.loss_scale", 0, WHOLE_STEP, RawValue(scale.reshape(())))
    if found is not None:
        ledger.add("step.found_inf", 0, WHOLE_STEP, RawValue(found))


def find_decoupled_decay(optimizer: Optimizer) -> dict[int, float]:
    """By ``id`` of a parameter: learning rate times weight decay where decay acts on the weight.

    AdamW (Loshchilov & Hutter 2019) shrinks the weight by ``lr * weight_decay`` before its step.

    Args:
        optimizer: with the rates of this step.

    Returns:
        Without the parameters that do not decay.

    Source: Loshchilov & Hutter (2019), "Decoupled Weight Decay Regularization", algorithm 2.
    """
    decay: dict[int, float] = {}
    for group in optimizer.param_groups:
        if is_decoupled(optimizer, group):
            rate = read_rate(group) * float(group.get("weight_decay") or 0.0)
            decay.update({id(param): rate for param in group["params"] if rate > 0})
    return decay


def find_coupled_decay(optimizer: Optimizer) -> dict[int, float]:
    """By ``id`` of a parameter: weight decay that is added to the gradient.

    Args:
        optimizer: with the settings of this step.

    Returns:
        Without the parameters that do not decay.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> kinds = torch.optim.SGD, torch.optim.AdamW
        >>> [len(find_coupled_decay(kind([weight], lr=0.1, weight_decay=0.5))) for kind in kinds]
        [1, 0]
    """
    decay: dict[int, float] = {}
    for group in optimizer.param_groups:
        rate = float(group.get("weight_decay") or 0.0)
        if rate and not is_decoupled(optimizer, group):
            decay.update({id(param): rate for param in group["params"]})
    return decay


def is_decoupled(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    """Whether decay acts on the weight itself and not through the gradient.

    Args:
        optimizer: known by the name of its class, where the group does not say.
        group: of its ``param_groups``.
    """
    name = find_class(optimizer).__name__.lower()
    is_named = name in ("adamw", "lion", "adafactor", "lamb", "muon")
    return bool(group.get("decoupled_weight_decay", False)) or is_named


def read_rate(group: dict[str, Any]) -> float:
    """Learning rate of a parameter group; NaN while nobody knows it, or it lives on a device.

    Args:
        group: of an optimizer's ``param_groups``.
    """
    rate = group.get("lr")
    return math.nan if rate is None or find_device_rate(group) is not None else float(rate)


def find_device_rate(group: dict[str, Any]) -> Tensor | None:
    """A learning rate that lives on a device, as optimizers in a CUDA graph have it.

    Args:
        group: of an optimizer's ``param_groups``.

    Returns:
        ``None`` where the rate can be read without a wait.
    """
    rate = group.get("lr")
    return rate if isinstance(rate, Tensor) and rate.device.type != HOST else None


def list_rates(optimizers: Iterable[Optimizer], params: Sequence[Tensor]) -> list[float]:
    """For each parameter the learning rate of its group; NaN without one, or on a device.

    Args:
        optimizers: whose rates are in force.
        params: whose rates are wanted.

    Example:
        >>> import torch
        >>> params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
        >>> list_rates([torch.optim.SGD(params[:1], lr=0.5)], params)
        [0.5, nan]
    """
    rates: dict[int, float] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            rates.update(dict.fromkeys(map(id, group["params"]), read_rate(group)))
    return [rates.get(id(param), math.nan) for param in params]


def list_decays(optimizers: Iterable[Optimizer], params: Sequence[Tensor]) -> list[float]:
    """For each parameter the weight decay of its group; NaN where none is known.

    Args:
        optimizers: that are watched.
        params: in whose order the answer is.
    """
    decays: dict[int, float] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if "weight_decay" in group:
                share = float(group["weight_decay"] or 0.0)
                decays.update(dict.fromkeys(map(id, group["params"]), share))
    return [decays.get(id(param), math.nan) for param in params]


def read_rates(optimizers: Iterable[Optimizer], ledger: Ledger) -> float:
    """The largest learning rate on the host; those on a device travel with the other numbers.

    Args:
        optimizers: whose rates are in force.
        ledger: takes ``step.learning_rate`` of the groups whose rate lives on a device.

    Returns:
        NaN where there is none on the host.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for number, rate in enumerate(map(find_device_rate, groups)):
        if rate is not None:
            reading = RawValue(rate.detach().reshape(()))
            ledger.add("step.learning_rate", number, WHOLE_STEP, reading)
    return max(
        (value for value in map(read_rate, groups) if not math.isnan(value)), default=math.nan
    )


def map_optimizers(optimizers: Sequence[Optimizer]) -> dict[int, int] | None:
    """By ``id`` of a parameter, the number of its optimizer; ``None`` without any.

    Args:
        optimizers: in the order in which they were handed over.
    """
    if not optimizers:
        return None
    return {
        id(param): number
        for number, optimizer in enumerate(optimizers)
        for param in _list_held(optimizer)
    }


def find_strangers(
    optimizers: Iterable[Optimizer], params: Iterable[Tensor]
) -> frozenset[tuple[int, ...]]:
    """Shapes of what an optimizer holds, the model has not, and no backward pass has reached.

    Args:
        optimizers: that may have been made before a part of the model was exchanged.
        params: of the model.
    """
    known = {id(param) for param in params}
    held = (param for optimizer in optimizers for param in _list_held(optimizer))
    strangers = (param for param in held if id(param) not in known)
    return frozenset(tuple(param.shape) for param in strangers if param.grad is None)


def _list_held(optimizer: Optimizer) -> list[Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]
