"""Derivatives of activations that are made of pieces; as in ``schema.derivatives``."""

from __future__ import annotations

from typing import Any

from gradwatch.schema.derivatives import Derivative, Options

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""Klambauer et al. (2017), section 2."""


def derive_relu(_x: Any, y: Any, _: Options) -> Any:
    """1 above 0, else 0.

    Args:
        y: output, any shape.

    Example:
        >>> import torch
        >>> derive_relu(None, torch.tensor([0.0, 2.0]), {}).tolist()
        [0.0, 1.0]
    """
    return (y > 0).to(y.dtype)


def bounded(low: float, high: float) -> Derivative:
    """The derivative of a clamp: 1 strictly between two bounds, else 0.

    Args:
        low: bound where the call sets no ``min_val``.
        high: bound where the call sets no ``max_val``.

    Example:
        >>> import torch
        >>> bounded(0.0, 6.0)(None, torch.tensor([0.0, 2.0, 6.0]), {}).tolist()
        [0.0, 1.0, 0.0]
    """

    def derive(_x: Any, y: Any, options: Options) -> Any:
        """1 strictly between the bounds, else 0."""
        inside = (y > options.get("min_val", low)) & (y < options.get("max_val", high))
        return inside.to(y.dtype)

    return derive


def derive_clip(x: Any, _y: Any, options: Options) -> Any:
    """1 from one end to the other, both included, else 0: as autograd has it.

    Args:
        x: input, any shape; values rounded to an end lie on it, and are no further.
        options: ``min`` and ``max``, -1 and 1 by default.

    Example:
        >>> import torch
        >>> derive_clip(torch.tensor([-2.0, 0.0, 1.0]), None, {"min": -1, "max": 1}).tolist()
        [0.0, 1.0, 1.0]
    """
    inside = (x >= options.get("min", -1.0)) & (x <= options.get("max", 1.0))
    return inside.to(x.dtype)


def derive_hardsigmoid(_x: Any, y: Any, _: Options) -> Any:
    """1/6 strictly between 0 and 1, else 0.

    Args:
        y: output, any shape.

    Example:
        >>> import torch
        >>> (6 * derive_hardsigmoid(None, torch.tensor([0.0, 0.5, 1.0]), {})).tolist()
        [0.0, 1.0, 0.0]
    """
    return ((y > 0) & (y < 1)).to(y.dtype) / 6


def derive_leaky_relu(_x: Any, y: Any, options: Options) -> Any:
    """1 above 0, else the slope.

    Args:
        y: output, any shape.
        options: ``negative_slope``, 0.01 by default.

    Example:
        >>> import torch
        >>> derive_leaky_relu(None, torch.tensor([-1.0, 2.0]), {"negative_slope": 0.5}).tolist()
        [0.5, 1.0]
    """
    slope = float(options.get("negative_slope", 0.01))
    return y.new_full(y.shape, slope).masked_fill(y > 0, 1.0)


def derive_elu(_x: Any, y: Any, options: Options) -> Any:
    """1 above 0, else ``alpha exp(x) = y + alpha``.

    Args:
        y: output, any shape.
        options: ``alpha``, 1 by default.

    Example:
        >>> import torch
        >>> derive_elu(None, torch.tensor([-0.5, 2.0]), {}).tolist()
        [0.5, 1.0]
    """
    return (y + float(options.get("alpha", 1.0))).masked_fill(y > 0, 1.0)


def derive_celu(_x: Any, y: Any, options: Options) -> Any:
    """1 above 0, else ``exp(x / alpha) = y / alpha + 1``.

    Args:
        y: output, any shape.
        options: ``alpha``, 1 by default.

    Example:
        >>> import torch
        >>> derive_celu(None, torch.tensor([-1.0, 2.0]), {"alpha": 2.0}).tolist()
        [0.5, 1.0]
    """
    return (y / float(options.get("alpha", 1.0)) + 1).masked_fill(y > 0, 1.0)


def derive_selu(_x: Any, y: Any, _: Options) -> Any:
    """``scale`` above 0, else ``scale alpha exp(x) = y + scale alpha``.

    Args:
        y: output, any shape.

    Example:
        >>> import torch
        >>> round(derive_selu(None, torch.tensor(2.0), {}).item(), 4)
        1.0507
    """
    return (y + SELU_SCALE * SELU_ALPHA).masked_fill(y > 0, SELU_SCALE)


def derive_hardswish(x: Any, _y: Any, _: Options) -> Any:
    """``(2 x + 3) / 6`` between -3 and 3, 0 below and 1 above.

    Args:
        x: input, any shape.

    Example:
        >>> import torch
        >>> derive_hardswish(torch.tensor([-4.0, 0.0, 4.0]), None, {}).tolist()
        [0.0, 0.5, 1.0]
    """
    return ((2 * x + 3) / 6).masked_fill(x >= 3, 1.0).masked_fill(x <= -3, 0.0).abs()


def derive_piecewise(x: Any, y: Any, _: Options) -> Any:
    """``y / x`` of a function that is a line on either side of 0.

    Args:
        x: input, any shape.
        y: output.

    Example:
        >>> import torch
        >>> derive_piecewise(torch.tensor([-2.0, 3.0]), torch.tensor([-0.5, 3.0]), {}).tolist()
        [0.25, 1.0]
    """
    return (y / x).masked_fill(x == 0, 1.0).abs()


def derive_shrinkage(_x: Any, y: Any, _: Options) -> Any:
    """1 where something is left, else 0.

    Args:
        y: output, any shape.

    Example:
        >>> import torch
        >>> derive_shrinkage(None, torch.tensor([0.0, -0.3]), {}).tolist()
        [0.0, 1.0]
    """
    return (y != 0).to(y.dtype)
