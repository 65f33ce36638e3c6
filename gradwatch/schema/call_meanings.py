"""What a call amounts to, given its arguments: a clamp at 0 is a rectifier, another one is none.

Each function answers the name of a row in ``schema.activations``; ``""``: no activation.
"""

from __future__ import annotations

from typing import Any

from gradwatch.schema.derivatives import Options


def resolve_hardtanh(options: Options) -> str:
    """From 0 on it is a bounded ReLU, as ``nn.ReLU6`` has it.

    Args:
        options: ``min_val``, -1 by default.

    Example:
        >>> resolve_hardtanh({"min_val": 0.0, "max_val": 2.0})
        'relu6'
    """
    return "relu6" if options.get("min_val", -1.0) == 0 else "hardtanh"


def resolve_leaky_relu(options: Options) -> str:
    """With a slope of 0 it is a ReLU.

    Args:
        options: ``negative_slope``, 0.01 by default.

    Example:
        >>> resolve_leaky_relu({"negative_slope": 0.0})
        'relu'
    """
    return "relu" if options.get("negative_slope", 0.01) == 0 else "leaky_relu"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def resolve_clamp(options: Options) -> str:
    """A rectifier where it cuts at zero and nowhere else; flat on both sides with two other ends.

    Args:
        options: ``min`` and ``max``: numbers, tensors or ``None``.

    Example:
        >>> resolve_clamp({"min": 0.0}), resolve_clamp({"min": -1, "max": 1})
        ('clamp', 'clip')
        >>> resolve_clamp({"min": 0.0, "max": 1.0}), resolve_clamp({"max": 1.0})
        ('', '')
    """
    low, high = options.get("min"), options.get("max")
    if high is None:
        return "clamp" if _is_number(low) and low == 0 else ""
    is_known = _is_number(low) and _is_number(high)
    return "clip" if is_known and low != 0 and low < high else ""


def resolve_clamp_min(options: Options) -> str:
    """A rectifier where it cuts at zero.

    Args:
        options: ``min``.

    Example:
        >>> resolve_clamp_min({"min": 1e-6})
        ''
    """
    return "clamp_min" if resolve_clamp({"min": options.get("min")}) else ""


def resolve_threshold(options: Options) -> str:
    """A rectifier where what does not pass becomes 0, and all that does is above.

    Args:
        options: ``threshold`` and ``value``.

    Example:
        >>> resolve_threshold({"threshold": 0.1, "value": 0.0})
        'threshold'
    """
    low, value = options.get("threshold"), options.get("value")
    is_known = _is_number(low) and _is_number(value)
    return "threshold" if is_known and value == 0 and low >= 0 else ""  # type: ignore[operator]
