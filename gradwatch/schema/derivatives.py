"""Derivatives of the activations: ``|phi'|`` elementwise, from input, output and a call's options.

Each function takes ``(x, y, options)``: the call's input and output, tensors of one shape and
floating dtype, and its arguments by name (those that are missing are torch's defaults). It answers
a tensor of that shape and dtype. Only methods and operators of the tensors are used, so that
nothing here imports torch. Sources: the definitions in the PyTorch documentation of
``torch.nn.functional``; a test holds each of them against autograd in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Options = dict[str, Any]
"""Arguments of a call besides its input, by name."""

Derivative = Callable[[Any, Any, Options], Any]
"""``(x, y, options)`` -> ``|phi'|``."""

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
        inside = (y > options.get("min_val", low)) & (y < options.get("max_val", high))
        return inside.to(y.dtype)

    return derive


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


def derive_softplus(_x: Any, y: Any, options: Options) -> Any:
    """``sigmoid(beta x) = 1 - exp(-beta y)``.

    Args:
        y: output, any shape.
        options: ``beta``, 1 by default.

    Example:
        >>> import math, torch
        >>> round(derive_softplus(None, torch.tensor(math.log(2.0)), {}).item(), 4)  # at x = 0
        0.5
    """
    return -(-float(options.get("beta", 1.0)) * y).expm1()


def derive_gelu(x: Any, _y: Any, _: Options) -> Any:
    """``Phi(x) + x N(x)``, with the normal distribution and its density.

    Args:
        x: input, any shape.

    Example:
        >>> import torch
        >>> derive_gelu(torch.tensor(0.0), None, {}).item()
        0.5
    """
    density = (-0.5 * x * x).exp() / math.sqrt(2 * math.pi)
    return (0.5 * (1 + (x / math.sqrt(2)).erf()) + x * density).abs()


def derive_silu(x: Any, _y: Any, _: Options) -> Any:
    """``s (1 + x (1 - s))`` with ``s = sigmoid(x)``.

    Args:
        x: input, any shape.

    Example:
        >>> import torch
        >>> derive_silu(torch.tensor(0.0), None, {}).item()
        0.5
    """
    gate = x.sigmoid()
    return (gate * (1 + x * (1 - gate))).abs()


def derive_mish(x: Any, _y: Any, _: Options) -> Any:
    """``t + x s (1 - t^2)`` with ``t = tanh(softplus(x))`` and ``s = sigmoid(x)``.

    Args:
        x: input, any shape.

    Example:
        >>> import torch
        >>> round(derive_mish(torch.tensor(0.0), None, {}).item(), 4)
        0.6
    """
    softplus = x.clamp(min=0) + (-x.abs()).exp().log1p()
    inner = softplus.tanh()
    return (inner + x * x.sigmoid() * (1 - inner * inner)).abs()


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


def derive_softmax(_x: Any, y: Any, _: Options) -> Any:
    """``y (1 - y)``: of each share by its own score.

    Args:
        y: output, any shape.

    Example:
        >>> import torch
        >>> derive_softmax(None, torch.tensor([0.5, 0.5]), {}).tolist()
        [0.25, 0.25]
    """
    return y * (1 - y)


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
