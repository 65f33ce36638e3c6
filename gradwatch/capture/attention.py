"""The softmax inside fused attention: computed again for a few heads and queries.

``scaled_dot_product_attention`` and ``multi_head_attention_forward`` show only their output. The
attention weights of a bounded sample follow from what they were called with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gradwatch.capture.attention_masks import (
    choose_of_mask,
    make_additive,
    make_mask,
    merge_masks,
)
from gradwatch.capture.calls import Measured, Part
from gradwatch.capture.device_values import RawValue
from gradwatch.capture.graph import is_readable
from gradwatch.schema.activations import ACTIVATIONS, SATURATION_SHARE

MAX_HEADS = 16
"""Pairs of a sequence and a head that are computed again."""

MAX_QUERIES = 32
"""Queries of each that are computed again, spread over the sequence. The standard error of a
fraction is 0.022 at most, if queries know nothing of each other."""

PART = Part("attention", 0, "activation", "softmax")


class Scores(NamedTuple):
    """What the scores of a bounded sample of an attention are made of.

    Attributes:
        q: scaled queries ``(..., L, E)``, float32.
        k: keys ``(..., S, E)``, float32; a view of what forward used.
        mask: to be added, or ``None``.
        causal: what determines a causal mask, so that two of them are known to be the same.
    """

    q: Tensor
    k: Tensor
    mask: Tensor | None
    causal: tuple[Any, ...] = ()


Sampler = Callable[..., Scores | str]
"""Takes the arguments of an attention, and gives their sample or why there is none."""


def find_attention(func: Any) -> Sampler | None:
    """What samples this function's arguments, if it is an attention, and they can be read.

    Args:
        func: that forward calls, as a torch function mode sees it.

    Returns:
        ``None`` for what is no fused attention.
    """
    sampler = find_sampler(func)
    return None if sampler is None else partial(_sample_readable, sampler)


def find_sampler(func: Any) -> Sampler | None:
    """What samples this function's arguments, if it is an attention.

    Args:
        func: that forward calls.
    """
    if func is F.scaled_dot_product_attention:
        return sample_attention
    return sample_multi_head if func is F.multi_head_attention_forward else None


def _sample_readable(sampler: Sampler, *args: Any, **kwargs: Any) -> Scores | str:
    given = {**dict(zip(("query", "key"), args, strict=False)), **kwargs}
    if not (is_readable(given["query"]) and is_readable(given["key"])):
        return _UNREADABLE
    return sampler(*args, **kwargs)


_UNREADABLE = "its attention is not seen, its inputs cannot be read"


def sample_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Scores | str:
    """The arguments' sample, or why there is none.

    Args:
        query: ``(..., H, L, E)``, any float dtype.
        key: ``(..., H, S, E)``; with ``enable_gqa`` of fewer heads.
        value, dropout_p: have no part in the weights.
        attn_mask: broadcast to ``(..., L, S)``: boolean, ``True`` takes part; or to be added.
        is_causal: a query sees no key after its own place.
        scale: of the scores; ``None``: ``E ** -0.5``.
        enable_gqa: several heads of queries share one of keys.

    Returns:
        Float32 copies of at most ``MAX_HEADS`` heads and ``MAX_QUERIES`` queries; or a remark.

    Source: arguments as in the documentation of ``scaled_dot_product_attention``.
    """
    if not query.numel() or not key.numel():
        return _UNREADABLE
    length, size = query.shape[-2:]
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        rows, heads = spread_over(length, MAX_QUERIES), choose_heads(query.shape[:-2])
        chosen = *heads, rows
        q = query.detach()[chosen].float() * (size**-0.5 if scale is None else scale)
        k = key.detach().expand(*query.shape[:-2], *key.shape[-2:])[heads].float()
        mask: Tensor | None = None
        causal: tuple[Any, ...] = ()
        if is_causal:
            causal = rows.start, rows.stop, rows.step, k.shape[-2], k.device
            mask = make_mask(causal)
        if attn_mask is not None:
            mask, causal = make_additive(choose_of_mask(attn_mask, chosen)), ()
        return Scores(q, k, mask, causal)


def sample_multi_head(*args: Any, **kwargs: Any) -> Scores | str:
    """Arguments of ``multi_head_attention_forward``.

    Args:
        *args: in the order of ``torch.nn.functional.multi_head_attention_forward``.
        **kwargs: the rest of them by name.

    Returns:
        As ``sample_attention``, of the projected queries and keys; or why there is none.
    """
    given = {**dict(zip(_MULTI_HEAD, args, strict=False)), **kwargs}
    if given.get("add_zero_attn") or any(
        given.get(name) is not None for name in ("bias_k", "bias_v", "static_k", "static_v")
    ):
        return "its attention is not seen, it adds keys of its own"
    query, key = given["query"].detach(), given["key"].detach()
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        masks = [given.get("attn_mask"), given.get("key_padding_mask")]
        if query.dim() == 2:
            query, key = query.unsqueeze(1), key.unsqueeze(1)
            masks[1] = None if masks[1] is None else masks[1].unsqueeze(0)
        heads = int(given["num_heads"])
        batch = spread_over(query.shape[1], max(MAX_HEADS // heads, 1))
        q, k = (_split(x[:, batch], heads, w, b) for x, w, b in _project(query, key, given))
        mask = merge_masks(masks[0], masks[1], batch, (query.shape[1], heads), len(key))
        return sample_attention(q, k, k, mask)


_MULTI_HEAD = (
    *("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight"),
    *("in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight"),
    *("out_proj_bias", "training", "key_padding_mask", "need_weights", "attn_mask"),
    *("use_separate_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
)


def _project(query: Tensor, key: Tensor, given: dict[str, Any]) -> list[tuple[Tensor, Any, Any]]:
    size, bias = query.shape[-1], given.get("in_proj_bias")
    if given.get("use_separate_proj_weight"):
        weights = [given["q_proj_weight"], given["k_proj_weight"]]
    else:
        weights = [given["in_proj_weight"][:size], given["in_proj_weight"][size : 2 * size]]
    biases = [None, None] if bias is None else [bias[:size], bias[size : 2 * size]]
    return list(zip((query, key), weights, biases, strict=True))


def _split(x: Tensor, heads: int, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Project ``(L, N, E)`` and split into heads: ``(N, heads, L, E / heads)``."""
    y: Tensor = F.linear(x.float(), weight.detach().float(), None if bias is None else bias.float())
    parts: Tensor = y.view(*y.shape[:-1], heads, -1)
    return parts.permute(1, 2, 0, 3)


def choose_heads(shape: torch.Size) -> tuple[slice, ...]:
    """Which of an attention's heads are computed again: all there may be of as few sequences.

    Args:
        shape: of every dimension before the last two.
    """
    left, chosen = MAX_HEADS, []
    for size in reversed(shape):
        part = spread_over(size, max(left, 1))
        chosen.append(part)
        left //= len(range(size)[part])
    return tuple(reversed(chosen))


def spread_over(count: int, most: int) -> slice:
    """An even choice.

    Args:
        count: how many there are.
        most: how many of them may be chosen.
    """
    stride = max(count // most, 1)
    return slice(0, min(stride * most, count), stride)


@torch.no_grad()
def measure_scores(scores: Scores) -> Measured:
    """Saturation of the softmax by its largest weight; queries with one key have no choice.

    Args:
        scores: of one attention.

    Returns:
        Its saturated fraction and mean derivative, on the device.
    """
    mask = scores.mask
    saturated, mean = measure_weights(scores.q[None], scores.k[None], mask)
    yield PART, "saturated_fraction", RawValue(saturated[0])
    yield PART, "derivative_mean", RawValue(mean[0])


def measure_weights(q: Tensor, k: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Saturated fraction and mean derivative of several attentions of one shape.

    To be called where gradients are switched off.

    Args:
        q: scaled queries ``(n, ..., L, E)``.
        k: keys ``(n, ..., S, E)``.
        mask: to be added to the scores of each, or ``None``.

    Returns:
        Each ``(n,)``.

    Source: the derivative of a softmax at its largest weight ``w`` is ``w (1 - w)``.
    """
    with torch.autocast(q.device.type, enabled=False):
        scores = q @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1).amax(-1)
    seen = torch.zeros_like(scores[..., :1, :]) if mask is None else mask
    has_choice = ((seen > float("-inf")).sum(-1) > 1) & ~weights.isnan()
    derivative = torch.where(has_choice, weights * (1 - weights), 0.0)
    count = has_choice.flatten(1).sum(1).clamp(min=1)
    limit = SATURATION_SHARE * ACTIVATIONS["softmax"].maximum
    saturated = (has_choice & (derivative < limit)).flatten(1).sum(1) / count
    return saturated, derivative.flatten(1).sum(1) / count
