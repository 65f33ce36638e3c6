"""Operations that are infinite, or have an infinite slope, somewhere at the edge of their domain.

Where a NaN or an Inf comes up between two layers, one of them made it. Those whose slope torch
itself sets to 0 at the edge, such as a norm or a standard deviation, are not among them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

_ALWAYS = frozenset(
    (
        *("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "logit", "erfinv"),
        *("exp", "exp2", "expm1", "sinh", "cosh", "tan", "lgamma", "digamma", "rdiv", "rpow"),
        *("acos", "arccos", "asin", "arcsin", "acosh", "arccosh", "atanh", "arctanh", "atan2"),
    )
)
_DIVISIONS = frozenset(("div", "divide", "true_divide"))
_POWERS = frozenset(("pow", "float_power"))


_ZERO_INFINITY = 6
"""Place of ``zero_infinity`` among the arguments of ``ctc_loss``."""


def is_singular(name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> bool:
    """Whether a call can make what is finite infinite, forward or backward.

    Args:
        name: of the function, with or without underscores around it.
        args, kwargs: that it was called with.

    Example:
        >>> import torch
        >>> x = torch.ones(2)
        >>> [is_singular("div", (x, x)), is_singular("div", (x, 8)), is_singular("sqrt_", (x,))]
        [True, False, True]
        >>> [is_singular("pow", (x, 0.5)), is_singular("pow", (x, 2))]
        [True, False]
        >>> [is_singular("ctc_loss", (x,), {"zero_infinity": zero}) for zero in (False, True)]
        [True, False]
    """
    plain = name.strip("_")
    if plain in _ALWAYS:
        return True
    if plain == "ctc_loss":  # infinite where no alignment is long enough for a target
        spares = args[_ZERO_INFINITY:] or ((kwargs or {}).get("zero_infinity", False),)
        return not spares[0]
    second = args[1] if len(args) > 1 else None
    if plain in _DIVISIONS:
        return isinstance(second, Tensor)
    if plain in _POWERS:
        return not isinstance(second, (int, float)) or second < 1
    return False
