"""Tensors without numbers that can be read: on ``meta``, nested, or wrappers around others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

PLAIN_TYPES = frozenset((Tensor, nn.Parameter))
"""torch's own classes of tensors, which are wrappers of nothing."""

_READABLE = ("AsyncCollectiveTensor",)
"""Wrappers that answer with plain numbers; so do those that have ``to_local``."""


def is_opaque(tensor: Any) -> bool:
    """Whether a statistic of it would be no number, but again one of its kind, or an error.

    Args:
        tensor: an activation, a parameter or its gradient.
    """
    if type(tensor) in PLAIN_TYPES:
        return bool(tensor.is_meta or tensor.is_nested)
    return bool(tensor.is_meta or tensor.is_nested) or _is_wrapper(tensor)


def _is_wrapper(tensor: Any) -> bool:
    if type(tensor) in PLAIN_TYPES or not hasattr(tensor, "__tensor_flatten__"):
        return False
    if hasattr(tensor, "to_local"):
        return False
    return type(tensor).__name__ not in _READABLE


def describe_opaque(params: Iterable[nn.Parameter]) -> tuple[str, ...]:
    """What to say of parameters that cannot be read, a remark for each of their classes.

    Args:
        params: of the model.
    """
    kinds = Counter(type(param).__name__ for param in params if _is_wrapper(param))
    return tuple(
        f"{count} parameters are of the class {kind}, whose numbers are not read: of their "
        "gradients, weights and updates nothing is known"
        for kind, count in sorted(kinds.items())
    )
