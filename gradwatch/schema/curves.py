"""Curves of the activations, for pictures: phi with torch's default arguments, on numpy arrays.

Each takes the input ``z``, float64 of any shape, and answers the output in the same shape. Sources:
the definitions in the PyTorch documentation of ``torch.nn.functional``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gradwatch.schema.piecewise_derivatives import SELU_ALPHA, SELU_SCALE

Values = npt.NDArray[np.float64]
Curve = Callable[[Values], Values]

_erf = np.vectorize(math.erf, otypes=[np.float64])
_SHRINKAGE = 0.5  # torch's default lambda


def draw_sigmoid(z: Values) -> Values:
    """``1 / (1 + exp(-z))``.

    Args:
        z: input, any shape.

    Example:
        >>> draw_sigmoid(np.array([0.0, 40.0])).tolist()
        [0.5, 1.0]
    """
    values: Values = 1 / (1 + np.exp(-z))
    return values


def draw_softplus(z: Values) -> Values:
    """``log(1 + exp(z))``.

    Args:
        z: input, any shape.

    Example:
        >>> draw_softplus(np.array([0.0, 100.0])).round(3).tolist()
        [0.693, 100.0]
    """
    return np.logaddexp(0, z)


def draw_elu(z: Values, alpha: float = 1.0) -> Values:
    """``z`` above 0, else ``alpha (exp(z) - 1)``.

    Args:
        z: input, any shape.
        alpha: the distance of the level on the left from 0.

    Example:
        >>> draw_elu(np.array([-100.0, 2.0])).tolist()
        [-1.0, 2.0]
    """
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def draw_selu(z: Values) -> Values:
    """``scale`` times an ELU, with the two factors that keep mean 0 and variance 1.

    Args:
        z: input, any shape.

    Example:
        >>> draw_selu(np.array([0.0, 1.0])).round(4).tolist()
        [0.0, 1.0507]
    """
    return SELU_SCALE * draw_elu(z, SELU_ALPHA)


def draw_gelu(z: Values) -> Values:
    """``z Phi(z)``, with the normal distribution.

    Args:
        z: input, any shape.

    Example:
        >>> draw_gelu(np.array([0.0, 1.0])).round(4).tolist()
        [0.0, 0.8413]
    """
    values: Values = z * 0.5 * (1 + _erf(z / math.sqrt(2)))
    return values


def draw_relu(z: Values) -> Values:
    """``max(z, 0)``.

    Args:
        z: input, any shape.

    Example:
        >>> draw_relu(np.array([-2.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    return np.maximum(z, 0)


def draw_line(slope: float) -> Curve:
    """The curve that is ``z`` above 0, else ``slope z``.

    Args:
        slope: on the left.

    Example:
        >>> draw_line(0.25)(np.array([-2.0, 2.0])).tolist()
        [-0.5, 2.0]
    """
    return lambda z: np.where(z > 0, z, slope * z)


def draw_softshrink(z: Values) -> Values:
    """``z`` less 0.5 towards 0.

    Args:
        z: input, any shape.

    Example:
        >>> draw_softshrink(np.array([-2.0, 0.25])).tolist()
        [-1.5, 0.0]
    """
    values: Values = np.sign(z) * np.maximum(np.abs(z) - _SHRINKAGE, 0)
    return values


def draw_hardshrink(z: Values) -> Values:
    """``z`` beyond 0.5, else 0.

    Args:
        z: input, any shape.

    Example:
        >>> draw_hardshrink(np.array([-2.0, 0.25])).tolist()
        [-2.0, 0.0]
    """
    return np.where(np.abs(z) > _SHRINKAGE, z, 0)
