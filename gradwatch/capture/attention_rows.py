"""Attentions of one shape, reduced together; their queries and keys as the graph keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradwatch.capture.attention import (
    MAX_QUERIES,
    choose_heads,
    measure_weights,
    spread_over,
)
from gradwatch.capture.attention_masks import make_mask
from gradwatch.capture.call_rows import Places
from gradwatch.capture.device_values import Ledger
from gradwatch.capture.graph import Node
from gradwatch.capture.reach import read_saved


@dataclass(eq=False)
class ScoreRows:
    """Softmax of attentions from samples of their queries and keys.

    Args:
        causal: as of ``Scores``; ``()``: a query sees every key.
        scale: of the scores, where the queries do not have it.
    """

    causal: tuple[Any, ...]
    scale: float = 1.0

    def reduce(self, places: Places, ledger: Ledger, *matrices: Tensor) -> None:
        """As of ``Reduction``.

        Args:
            places, ledger, *matrices: as there.
        """
        q, k = matrices
        mask = make_mask(self.causal)
        for name, values in zip(_NAMES, measure_weights(q * self.scale, k, mask), strict=True):
            places.note(name, values, ledger)


_NAMES = ("saturated_fraction", "derivative_mean")


@lru_cache(maxsize=256)
def find_score_rows(causal: tuple[Any, ...], scale: float = 1.0) -> ScoreRows:
    """The same for equal arguments, so that their rows wait together.

    Args:
        causal, scale: as of ``ScoreRows``.
    """
    return ScoreRows(causal, scale)


def find_node(func: Any, args: tuple[Any, ...], kwargs: Any, result: Any) -> Node | None:
    """The node that keeps what an attention was given; ``None`` where it does not say it all.

    Args:
        func: an attention.
        args, kwargs: that it was called with.
        result: what it returned.
    """
    given = {**dict(zip(_FUSED, args, strict=False)), **kwargs}
    node = getattr(result, "grad_fn", None)
    if func is not F.scaled_dot_product_attention or node is None:
        return None
    if given.get("attn_mask") is not None or given.get("enable_gqa"):
        return None
    kept = read_kept(node)
    is_same = kept is not None and all(
        tensor.shape == given[name].shape for tensor, name in zip(kept[:2], _FUSED, strict=False)
    )
    return node if is_same else None


_FUSED = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def read_kept(node: Node) -> tuple[Tensor, Tensor, bool, float] | None:
    """Queries, keys, whether it is causal, and scale, from the node of an attention.

    Args:
        node: of the graph, before its backward.

    Returns:
        ``None`` where the node keeps something else, or hooks have it.
    """
    if not hasattr(node, "_saved_is_causal"):
        return None
    q, k = read_saved(node, "query"), read_saved(node, "key")
    if q is None or k is None or q.shape[:-2] != k.shape[:-2] or not (q.numel() and k.numel()):
        return None
    scale = getattr(node, "_saved_scale", None)
    return q, k, node._saved_is_causal, q.shape[-1] ** -0.5 if scale is None else scale


def sample_kept(q: Tensor, k: Tensor, is_causal: bool) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    """The elements that ``sample_attention`` chooses, and what determines the mask.

    Args:
        q, k: queries and keys ``(..., L, E)`` and ``(..., S, E)``.
        is_causal: a query sees no key after its own place.
    """
    heads, rows, is_whole = _plan_sample(q.shape[:-1])
    causal = (rows.start, rows.stop, rows.step, k.shape[-2], k.device) if is_causal else ()
    if not is_whole:
        chosen = *heads, rows
        q, k = q[chosen].clone(), k[heads].clone()  # and not all of it is kept
    return q.float(), k.float(), causal


@lru_cache(maxsize=256)
def _plan_sample(shape: torch.Size) -> tuple[tuple[slice, ...], slice, bool]:
    heads, rows = choose_heads(shape[:-1]), spread_over(shape[-1], MAX_QUERIES)
    chosen = zip(shape, (*heads, rows), strict=True)
    return heads, rows, all(len(range(size)[part]) == size for size, part in chosen)
