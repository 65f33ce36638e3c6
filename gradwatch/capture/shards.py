"""Parameters of which each rank holds a part: DTensors, what the older FSDP flattens, ZeRO-3's."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import nn


def find_flat_parameters(model: nn.Module) -> list[Any]:
    """What ``FullyShardedDataParallel`` has made of the parameters of each part that it wraps.

    While forward runs these are the leaves of the graph, whatever ``parameters()`` lists.

    Args:
        model: or a part of one.
    """
    return [handle.flat_param for handle in _find_handles(model)]


def _find_handles(model: nn.Module) -> list[Any]:
    if "torch.distributed.fsdp" not in sys.modules or not dist.is_initialized():
        return []  # without a walk over all modules: FSDP needs a process group
    handles = (getattr(module, "_handle", None) for module in model.modules())
    return [handle for handle in handles if getattr(handle, "flat_param", None) is not None]


def count_parts(model: nn.Module | None, params: Iterable[nn.Parameter]) -> list[int]:
    """For each parameter, among how many ranks it is divided; 1 when each holds the whole.

    With fewer parts than ranks, as in hybrid sharding, every part has copies.

    Args:
        model: whose wrapped parts are looked at; ``None`` where it is gone.
        params: of the model.
    """
    counts: dict[int, int] = {}
    for handle in _find_handles(model) if model is not None else ():
        originals = getattr(handle.flat_param, "_params", None) or ()
        for param in (handle.flat_param, *originals):
            counts[id(param)] = int(handle.world_size)
    return [counts.get(id(param)) or _count_shards(param) for param in params]


def is_elsewhere(param: Any) -> bool:
    """Whether DeepSpeed's ZeRO-3 holds the elements, and leaves none here between the passes.

    Args:
        param: of the watched model; ZeRO-3 leaves it with no element and with ``ds_tensor``.
    """
    return hasattr(param, "ds_tensor") and not param.numel()


def describe_elsewhere(params: Iterable[nn.Parameter]) -> tuple[str, ...]:
    """What to say of the weights that ZeRO-3 holds.

    Args:
        params: of the watched model.

    Returns:
        One sentence, or none where no parameter is elsewhere.
    """
    count = sum(map(is_elsewhere, params))
    if not count:
        return ()
    return (
        f"ZeRO-3 holds the elements of {count} parameters in shards: their gradients are seen, and "
        "their weights and updates are not. Stages 1 and 2 of ZeRO show both",
    )


def find_shape(param: Any) -> tuple[int, ...]:
    """Shape of the whole parameter.

    Args:
        param: of the watched model, whole or held in shards by ZeRO-3.
    """
    return tuple(param.ds_shape if is_elsewhere(param) else param.shape)


def _count_shards(param: Any) -> int:
    if type(param) is nn.Parameter:
        return 1
    placements = enumerate(getattr(param, "placements", ()))
    return math.prod(
        param.device_mesh.size(dim) for dim, placement in placements if placement.is_shard()
    )
