"""Activation functions: how each one's derivative follows from its output or its input.

The derivative is taken from the output wherever the output determines it, so that an activation
that worked in place is measured right. Sources: the definitions in the PyTorch documentation of
``torch.nn.functional``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Options = dict[str, Any]


@dataclass(frozen=True)
class Activation:
    """One elementwise activation function phi.

    Attributes:
        name: as in ``torch.nn.functional``.
        derivative: ``|phi'|`` elementwise, from ``(x, y, options)``: input, output and the call's
            keyword arguments. ``x`` is the output too unless ``needs_input``.
        maximum: largest value of ``|phi'|``.
        needs_input: the output alone does not determine the derivative.
        rectifies: ReLU family: a unit that never fires passes no gradient at all.
    """

    name: str
    derivative: Callable[[Tensor, Tensor, Options], Tensor]
    maximum: float = 1.0
    needs_input: bool = False
    rectifies: bool = False


def _sigmoid(_x: Tensor, y: Tensor, _: Options) -> Tensor:
    return y * (1 - y)


def _tanh(_x: Tensor, y: Tensor, _: Options) -> Tensor:
    return 1 - y * y


def _softsign(_x: Tensor, y: Tensor, _: Options) -> Tensor:
    return (1 - y.abs()).square()


def _logsigmoid(_x: Tensor, y: Tensor, _: Options) -> Tensor:
    return -torch.expm1(y)


def _softplus(_x: Tensor, y: Tensor, options: Options) -> Tensor:
    return -torch.expm1(-float(options.get("beta", 1.0)) * y)


def _hardsigmoid(_x: Tensor, y: Tensor, _: Options) -> Tensor:
    return ((y > 0) & (y < 1)).to(y.dtype) / 6


def _hardtanh(_x: Tensor, y: Tensor, options: Options) -> Tensor:
    low, high = options.get("min_val", -1.0), options.get("max_val", 1.0)
    inside: Tensor = (y > low) & (y < high)
    return inside.to(y.dtype)


def _relu(_x: Tensor, y: Tensor, _: Options) -> Tensor:
    return (y > 0).to(y.dtype)


def _relu6(_x: Tensor, y: Tensor, options: Options) -> Tensor:
    return _hardtanh(_x, y, {"min_val": 0.0, "max_val": 6.0, **options})


def _leaky_relu(_x: Tensor, y: Tensor, options: Options) -> Tensor:
    slope = float(options.get("negative_slope", 0.01))
    return torch.where(y > 0, 1.0, slope).to(y.dtype)


def _elu(_x: Tensor, y: Tensor, options: Options) -> Tensor:
    alpha = float(options.get("alpha", 1.0))
    return torch.where(y > 0, torch.ones_like(y), y + alpha)


def _celu(_x: Tensor, y: Tensor, options: Options) -> Tensor:
    return torch.where(y > 0, torch.ones_like(y), y / float(options.get("alpha", 1.0)) + 1)


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _selu(_x: Tensor, y: Tensor, _: Options) -> Tensor:
    positive = torch.full_like(y, _SELU_SCALE)
    return torch.where(y > 0, positive, y + _SELU_SCALE * _SELU_ALPHA)


def _gelu(x: Tensor, _y: Tensor, _: Options) -> Tensor:
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return (0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density).abs()


def _silu(x: Tensor, _y: Tensor, _: Options) -> Tensor:
    gate = torch.sigmoid(x)
    return (gate * (1 + x * (1 - gate))).abs()


def _mish(x: Tensor, _y: Tensor, _: Options) -> Tensor:
    inner = torch.tanh(torch.nn.functional.softplus(x))
    return (inner + x * torch.sigmoid(x) * (1 - inner * inner)).abs()


def _hardswish(x: Tensor, _y: Tensor, _: Options) -> Tensor:
    middle = (2 * x + 3) / 6
    ones, zeros = torch.ones_like(x), torch.zeros_like(x)
    return torch.where(x >= 3, ones, torch.where(x <= -3, zeros, middle)).abs()


def _prelu(x: Tensor, y: Tensor, _: Options) -> Tensor:
    return torch.where(x == 0, torch.ones_like(x), y / x).abs()


def _softmax(_x: Tensor, y: Tensor, _: Options) -> Tensor:
    return y * (1 - y)


_ALL = (
    Activation("sigmoid", _sigmoid, 0.25),
    Activation("tanh", _tanh),
    Activation("softsign", _softsign),
    Activation("logsigmoid", _logsigmoid),
    Activation("softplus", _softplus),
    Activation("hardsigmoid", _hardsigmoid, 1 / 6),
    Activation("hardtanh", _hardtanh),
    Activation("relu", _relu, rectifies=True),
    Activation("relu6", _relu6, rectifies=True),
    Activation("leaky_relu", _leaky_relu),
    Activation("elu", _elu),
    Activation("celu", _celu),
    Activation("selu", _selu, _SELU_SCALE * _SELU_ALPHA),
    Activation("gelu", _gelu, 1.13, needs_input=True),
    Activation("silu", _silu, 1.1, needs_input=True),
    Activation("mish", _mish, 1.09, needs_input=True),
    Activation("hardswish", _hardswish, 1.5, needs_input=True),
    Activation("prelu", _prelu, needs_input=True),
    Activation("softmax", _softmax, 0.25),
)

ACTIVATIONS: dict[str, Activation] = {one.name: one for one in _ALL}
"""By name; ``functions.py`` maps what a model calls to these names."""
