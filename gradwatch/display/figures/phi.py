"""The curves phi and phi' of common activations, to draw units on; numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Curve = Callable[[Values], Values]

_erf = np.vectorize(math.erf, otypes=[np.float64])
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017


def _sigmoid(z: Values) -> Values:
    values: Values = 1 / (1 + np.exp(-z))
    return values


def _elu(z: Values, alpha: float = 1.0) -> Values:
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def _selu(z: Values) -> Values:
    return _SELU_SCALE * _elu(z, _SELU_ALPHA)


def _gelu(z: Values) -> Values:
    values: Values = z * 0.5 * (1 + _erf(z / math.sqrt(2)))
    return values


def _softplus(z: Values) -> Values:
    return np.logaddexp(0, z)


CURVES: dict[str, Curve] = {
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "relu6": lambda z: np.clip(z, 0, 6),
    "leakyrelu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": _elu,
    "celu": _elu,
    "selu": _selu,
    "gelu": _gelu,
    "silu": lambda z: z * _sigmoid(z),
    "mish": lambda z: z * np.tanh(_softplus(z)),
    "softplus": _softplus,
    "softsign": lambda z: z / (1 + np.abs(z)),
    "hardtanh": lambda z: np.clip(z, -1, 1),
    "hardsigmoid": lambda z: np.clip(z / 6 + 0.5, 0, 1),
    "logsigmoid": lambda z: -_softplus(-z),
}
"""By the type's name in lower case without underscores; defaults of ``torch.nn``."""


RECTIFIERS = ("relu", "relu6", "leakyrelu")
"""Off for about half of their inputs by design."""


def curve_of(layer_type: str) -> Curve | None:
    """phi for a class or function name such as ``LeakyReLU`` or ``leaky_relu_``."""
    return CURVES.get(plain_type(layer_type))


def plain_type(layer_type: str) -> str:
    """A type's name as ``CURVES`` has it."""
    return layer_type.lower().replace("_", "")


def slope(curve: Curve, z: Values, width: float = 1e-4) -> Values:
    """phi' by central differences, exact enough to draw."""
    slopes: Values = (curve(z + width) - curve(z - width)) / (2 * width)
    return slopes
