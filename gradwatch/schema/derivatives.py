"""Derivatives of smooth activations: ``|phi'|`` elementwise, from input, output and options.

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


def derive_sigmoid(_x: Any, y: Any, _: Options) -> Any:
    """``y (1 - y)``.

    Args:
        y: output, any shape.

    Example:
        >>> import torch
        >>> derive_sigmoid(None, torch.tensor([0.5, 1.0]), {}).tolist()
        [0.25, 0.0]
    """
    return y * (1 - y)


def derive_tanh(_x: Any, y: Any, _: Options) -> Any:
    """``1 - y^2``.

    Args:
        y: output, any shape.

    Example:
        >>> import torch
        >>> derive_tanh(None, torch.tensor([0.0, 0.5, -1.0]), {}).tolist()
        [1.0, 0.75, 0.0]
    """
    return 1 - y * y


def derive_softsign(_x: Any, y: Any, _: Options) -> Any:
    """``1 / (1 + |x|)^2 = (1 - |y|)^2``.

    Args:
        y: output, any shape.

    Example:
        >>> import torch
        >>> derive_softsign(None, torch.tensor([0.0, -0.5]), {}).tolist()
        [1.0, 0.25]
    """
    return (1 - y.abs()).square()


def derive_logsigmoid(_x: Any, y: Any, _: Options) -> Any:
    """``sigmoid(-x) = 1 - exp(y)``.

    Args:
        y: output, any shape.

    Example:
        >>> import math, torch
        >>> round(derive_logsigmoid(None, torch.tensor(-math.log(2.0)), {}).item(), 4)  # at x = 0
        0.5
    """
    return -y.expm1()


def derive_tanhshrink(x: Any, y: Any, _: Options) -> Any:
    """``tanh(x)^2 = (x - y)^2``, of ``x - tanh(x)``.

    Args:
        x: input, any shape.
        y: output.

    Example:
        >>> import torch
        >>> derive_tanhshrink(torch.tensor(0.0), torch.tensor(0.0), {}).item()
        0.0
    """
    return (x - y).square()
