"""The functions behind the rows of ``schema.activations``: derivatives, curves, and what a call
with given arguments amounts to.

Derivatives use only methods and operators of the tensors they are handed, so that nothing here
needs torch. Sources: the definitions in the PyTorch documentation of ``torch.nn.functional``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Curve = Callable[[Values], Values]
Options = dict[str, Any]
Derivative = Callable[[Any, Any, Options], Any]

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""Klambauer et al. (2017), section 2."""


# Derivatives: |phi'| from input x, output y and the call's options -------------------------------


def derive_relu(_x: Any, y: Any, _: Options) -> Any:
    """1 above 0, else 0."""
    return (y > 0).to(y.dtype)


def bounded(low: float, high: float) -> Derivative:
    """1 between two bounds, which the call may set; else 0."""

    def derive(_x: Any, y: Any, options: Options) -> Any:
        inside = (y > options.get("min_val", low)) & (y < options.get("max_val", high))
        return inside.to(y.dtype)

    return derive


def derive_leaky_relu(_x: Any, y: Any, options: Options) -> Any:
    """1 above 0, else the slope."""
    slope = float(options.get("negative_slope", 0.01))
    return y.new_full(y.shape, slope).masked_fill(y > 0, 1.0)


def derive_elu(_x: Any, y: Any, options: Options) -> Any:
    """1 above 0, else ``alpha exp(x) = y + alpha``."""
    return (y + float(options.get("alpha", 1.0))).masked_fill(y > 0, 1.0)


def derive_celu(_x: Any, y: Any, options: Options) -> Any:
    """1 above 0, else ``exp(x / alpha) = y / alpha + 1``."""
    return (y / float(options.get("alpha", 1.0)) + 1).masked_fill(y > 0, 1.0)


def derive_selu(_x: Any, y: Any, _: Options) -> Any:
    """``scale`` above 0, else ``scale alpha exp(x) = y + scale alpha``."""
    return (y + SELU_SCALE * SELU_ALPHA).masked_fill(y > 0, SELU_SCALE)


def derive_softplus(_x: Any, y: Any, options: Options) -> Any:
    """``sigmoid(beta x) = 1 - exp(-beta y)``."""
    return -(-float(options.get("beta", 1.0)) * y).expm1()


def derive_gelu(x: Any, _y: Any, _: Options) -> Any:
    """``Phi(x) + x N(x)``, with the normal distribution and its density."""
    density = (-0.5 * x * x).exp() / math.sqrt(2 * math.pi)
    return (0.5 * (1 + (x / math.sqrt(2)).erf()) + x * density).abs()


def derive_silu(x: Any, _y: Any, _: Options) -> Any:
    """``s (1 + x (1 - s))`` with ``s = sigmoid(x)``."""
    gate = x.sigmoid()
    return (gate * (1 + x * (1 - gate))).abs()


def derive_mish(x: Any, _y: Any, _: Options) -> Any:
    """``t + x s (1 - t^2)`` with ``t = tanh(softplus(x))`` and ``s = sigmoid(x)``."""
    softplus = x.clamp(min=0) + (-x.abs()).exp().log1p()
    inner = softplus.tanh()
    return (inner + x * x.sigmoid() * (1 - inner * inner)).abs()


def derive_hardswish(x: Any, _y: Any, _: Options) -> Any:
    """``(2 x + 3) / 6`` between -3 and 3, 0 below and 1 above."""
    return ((2 * x + 3) / 6).masked_fill(x >= 3, 1.0).masked_fill(x <= -3, 0.0).abs()


def derive_piecewise(x: Any, y: Any, _: Options) -> Any:
    """``y / x`` of a function that is a line on either side of 0."""
    return (y / x).masked_fill(x == 0, 1.0).abs()


def derive_softmax(_x: Any, y: Any, _: Options) -> Any:
    """Of each share by its own score."""
    return y * (1 - y)


def derive_shrinkage(_x: Any, y: Any, _: Options) -> Any:
    """1 where something is left, else 0."""
    return (y != 0).to(y.dtype)


# Curves: phi with torch's default arguments -------------------------------------------------------

_erf = np.vectorize(math.erf, otypes=[np.float64])
_SHRINKAGE = 0.5  # torch's default lambda


def draw_sigmoid(z: Values) -> Values:
    """``1 / (1 + exp(-z))``."""
    values: Values = 1 / (1 + np.exp(-z))
    return values


def draw_softplus(z: Values) -> Values:
    """``log(1 + exp(z))``."""
    return np.logaddexp(0, z)


def draw_elu(z: Values, alpha: float = 1.0) -> Values:
    """``z`` above 0, else ``alpha (exp(z) - 1)``."""
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def draw_selu(z: Values) -> Values:
    """An ELU with the factors that keep mean 0 and variance 1."""
    return SELU_SCALE * draw_elu(z, SELU_ALPHA)


def draw_gelu(z: Values) -> Values:
    """``z Phi(z)``."""
    values: Values = z * 0.5 * (1 + _erf(z / math.sqrt(2)))
    return values


def draw_relu(z: Values) -> Values:
    """``max(z, 0)``."""
    return np.maximum(z, 0)


def draw_line(slope: float) -> Curve:
    """``z`` above 0, else ``slope z``."""
    return lambda z: np.where(z > 0, z, slope * z)


def draw_softshrink(z: Values) -> Values:
    """``z`` less lambda towards 0."""
    values: Values = np.sign(z) * np.maximum(np.abs(z) - _SHRINKAGE, 0)
    return values


def draw_hardshrink(z: Values) -> Values:
    """``z`` beyond lambda, else 0."""
    return np.where(np.abs(z) > _SHRINKAGE, z, 0)


# What a call amounts to ---------------------------------------------------------------------------


def resolve_hardtanh(options: Options) -> str:
    """From 0 on it is a bounded ReLU, as ``nn.ReLU6`` has it."""
    return "relu6" if options.get("min_val", -1.0) == 0 else "hardtanh"


def resolve_leaky_relu(options: Options) -> str:
    """With a slope of 0 it is a ReLU."""
    return "relu" if options.get("negative_slope", 0.01) == 0 else "leaky_relu"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def resolve_clamp(options: Options) -> str:
    """A rectifier where it cuts at zero and nowhere else."""
    low, high = options.get("min"), options.get("max")
    return "clamp" if high is None and _is_number(low) and low == 0 else ""


def resolve_clamp_min(options: Options) -> str:
    """As for a clamp."""
    return "clamp_min" if resolve_clamp(options) else ""


def resolve_threshold(options: Options) -> str:
    """What does not pass it is 0, and all that does is above."""
    low, value = options.get("threshold"), options.get("value")
    is_known = _is_number(low) and _is_number(value)
    return "threshold" if is_known and value == 0 and low >= 0 else ""  # type: ignore[operator]
