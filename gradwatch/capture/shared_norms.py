"""Norms of large gradients that are handed on: read once, at the speed of memory, and used again.

What leaves one call's input arrives at the output of the call before it, perhaps in another shape.
"""

from __future__ import annotations

import weakref
from collections import deque

from torch import Tensor

from gradwatch.capture import statistics
from gradwatch.capture.device_values import RawValue

MAX_RECENT = 8
"""Readings that may be used again."""


class SharedNorms:
    """Measures norms, and knows the latest ones; tensors are held weakly."""

    def __init__(self) -> None:
        self._recent: deque[tuple[weakref.ref[Tensor], int, RawValue]] = deque(maxlen=MAX_RECENT)

    def measure(self, tensor: Tensor, flat: Tensor | None = None) -> RawValue:
        """As ``statistics.measure_l2_norm``.

        Args:
            tensor: of any shape and dtype.
            flat: its elements, where they are known to lie without gaps.
        """
        for reference, version, norm in self._recent:
            known = reference()
            if known is not None and version == tensor._version and _is_same(known, tensor):
                return norm
        norm = statistics.measure_l2_norm(tensor if flat is None else flat)
        self._recent.append((weakref.ref(tensor), tensor._version, norm))
        return norm

    def clear(self) -> None:
        """Forget all readings."""
        self._recent.clear()


def _is_same(known: Tensor, tensor: Tensor) -> bool:
    """Whether it is the same tensor, or one of another shape of the same memory.

    A view counts changes together with what it is a view of.
    """
    if known is tensor:
        return True
    if known._version != tensor._version or known.numel() != tensor.numel():
        return False
    return (
        known.dtype == tensor.dtype
        and known.data_ptr() == tensor.data_ptr()
        and known.is_contiguous()
        and tensor.is_contiguous()
    )
