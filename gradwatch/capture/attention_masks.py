"""Masks of attention, as what is added to its scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def merge_masks(
    mask: Tensor | None,
    padding: Tensor | None,
    batch: slice,
    shape: tuple[int, int],
    n_keys: int,
) -> Tensor | None:
    """Both masks as one to be added, broadcast to ``(N, heads, L, S)``, of the chosen batch.

    Args:
        mask: ``(L, S)`` or ``(N * heads, L, S)``; boolean: True is left out.
        padding: ``(N, S)`` likewise.
        batch: that is chosen of ``N``.
        shape: ``(N, heads)``.
        n_keys: ``S``.
    """
    merged: Tensor | None = None
    if mask is not None:
        merged = make_additive(mask, excludes=True)
        if merged.dim() == 3:
            merged = merged.unflatten(0, shape)[batch]
    if padding is not None:
        hidden = make_additive(padding[batch], excludes=True).view(-1, 1, 1, n_keys)
        merged = hidden if merged is None else merged + hidden
    return merged


def make_additive(mask: Tensor, excludes: bool = False) -> Tensor:
    """A mask to be added.

    Args:
        mask: boolean, or added already.
        excludes: True of a boolean one is left out, and does not take part.
    """
    if mask.dtype is not torch.bool:
        return mask.detach().float()
    hidden = mask if excludes else ~mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(hidden, float("-inf"))


def make_mask(causal: tuple[Any, ...]) -> Tensor | None:
    """A mask to be added for the chosen queries, which see no key after their own.

    Args:
        causal: as of ``Scores``; ``()``: none is needed.
    """
    if not causal:
        return None
    *rows, n_keys, device = causal
    queries = torch.arange(*rows, device=device)
    return make_additive(torch.arange(n_keys, device=device) <= queries.unsqueeze(1))


def choose_of_mask(mask: Tensor, chosen: tuple[slice, ...]) -> Tensor:
    """The part of a mask for the chosen heads and queries; what is broadcast stays so.

    Args:
        mask: that broadcasts to ``(*batch, heads, L, S)``.
        chosen: parts of all dimensions but the last.
    """
    mask = mask.reshape(*[1] * (len(chosen) + 1 - mask.dim()), *mask.shape)
    return mask[
        tuple(
            slice(None) if size == 1 else part
            for size, part in zip(mask.shape, chosen, strict=False)
        )
    ]
