"""Which activations are gates: their output multiplies something else that learns."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradwatch.capture.graph import collect_tensors
from gradwatch.capture.torch_callables import list_callables

PRODUCTS = list_callables(
    (torch, Tensor),
    *("mul", "mul_", "multiply", "einsum", "lerp", "addcmul", "__mul__", "__rmul__", "__imul__"),
)
"""What multiplies."""

CARRIERS = list_callables(
    (torch, Tensor),
    *("view", "view_as", "reshape", "unsqueeze", "squeeze", "expand", "expand_as", "permute"),
    *("transpose", "flatten", "chunk", "split", "unbind", "contiguous", "repeat"),
    *("repeat_interleave", "clone", "to", "float", "type_as", "__getitem__"),
    *("add", "sub", "rsub", "mul", "div", "neg", "__add__", "__radd__", "__sub__", "__rsub__"),
    *("__mul__", "__rmul__", "__truediv__", "__neg__"),
)
"""What hands a gate on: views, and arithmetic with plain numbers."""

SUMS = list_callables(
    (torch, Tensor),
    *("add", "add_", "sub", "sub_", "rsub", "__add__", "__radd__", "__iadd__", "__sub__"),
    *("__rsub__", "__isub__", "cumsum", "cat", "concat", "stack", "where", "masked_fill"),
    *("masked_fill_", "tril", "triu"),
)
"""What hands a logarithm on: of a sum each part is a factor."""

EXPONENTIALS = list_callables((torch, Tensor), "exp", "exp_", "exp2", "expm1")

_FOLLOWED = PRODUCTS | CARRIERS | SUMS | EXPONENTIALS


class _Tag(NamedTuple):
    """What is known of a tensor that comes from an activation.

    Attributes:
        tensor: alive as long as somebody else holds it.
        call: index of the activation's call.
        is_log: its exponential may multiply something, not it itself.
    """

    tensor: weakref.ref[Tensor]
    call: int
    is_log: bool


class GateFinder:
    """Follows what activations return to where it multiplies something.

    Decays of linear attention are kept as logarithms, which are summed over time before their
    exponential multiplies anything (Yang et al. 2024, "Gated Linear Attention"; Beck et al. 2024,
    "xLSTM").

    Args:
        mark: is called with the index of a call that turns out to be a gate.
    """

    def __init__(self, mark: Callable[[int], None]) -> None:
        self._mark = mark
        self._tags: dict[int, _Tag] = {}

    def begin(self, y: Tensor, call: int, is_log: bool) -> None:
        """An activation has returned.

        Args:
            y: what it returned.
            call: its index.
            is_log: as of ``Activation``.
        """
        self._tags[id(y)] = _Tag(weakref.ref(y), call, is_log)

    def is_asked(self, func: Any) -> bool:
        """Whether a call of this function may hand something on.

        Args:
            func: of torch.
        """
        return bool(self._tags) and func in _FOLLOWED

    def follow(self, func: Any, args: tuple[Any, ...], result: Any) -> None:
        """A function has returned.

        Args:
            func: for which ``is_asked`` says so.
            args: that it was called with.
            result: what it returned.
        """
        tensors = collect_tensors(args, depth=2)
        for tensor in tensors:
            tag = self._tags.get(id(tensor))
            if tag is None or tag.tensor() is not tensor:
                continue
            partners = [other for other in tensors if other is not tensor]
            if func in PRODUCTS and any(map(_learns, partners)):
                self._mark(tag.call)
            elif func in EXPONENTIALS:
                if tag.is_log:
                    self._hand_on(tag._replace(is_log=False), result)
            elif (func in CARRIERS and not partners) or (tag.is_log and func in SUMS):
                self._hand_on(tag, result)

    def _hand_on(self, tag: _Tag, result: Any) -> None:
        for out in collect_tensors(result, depth=1):
            self._tags[id(out)] = tag._replace(tensor=weakref.ref(out))


def _learns(partner: Tensor) -> bool:
    return partner.grad_fn is not None and partner.dim() > 0
