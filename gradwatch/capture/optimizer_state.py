"""What stands between the optimizer's step and the gradients: loss scales, skips, weight decay."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
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
