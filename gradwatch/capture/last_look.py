"""The weights once more when a watch ends: what has broken after the last sampled step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gradwatch.records import StepRecord

_READ = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))


def look_last(model: nn.Module, last: StepRecord, global_step: int) -> StepRecord | None:
    """A record of weights that were finite at the last one and are not any more.

    It holds nothing else: no step was followed. All weights are read with one transfer.

    Args:
        model: that was watched.
        last: newest record.
        global_step: optimizer steps made.

    Returns:
        ``None`` where no step has been made since, or nothing has broken.
    """
    if global_step <= last.global_step + 1:
        return None
    sizes = last.param("weight_l2_norm")
    found = dict(model.named_parameters(remove_duplicate=False))
    known = [
        (index, found[param.fqn])
        for index, param in enumerate(last.layer_set.params)
        if np.isfinite(sizes[index]) and param.fqn in found
    ]
    read = [(index, tensor.detach()) for index, tensor in known if _is_plain(tensor)]
    broken = [index for index, is_whole in _ask_whole(read) if not is_whole]
    return _make_record(last, global_step, broken) if broken else None


def _is_plain(tensor: Tensor) -> bool:
    """Whether a parameter is all here, and of a format whose ends can be asked for."""
    is_here = tensor.layout == torch.strided and tensor.device.type != "meta" and tensor.numel() > 0
    return type(tensor) is nn.Parameter and is_here and tensor.dtype in _READ


def _ask_whole(read: list[tuple[int, Tensor]]) -> list[tuple[int, bool]]:
    """Whether each is finite: its least and its largest element are, and NaN is both."""
    by_device: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for index, tensor in read:
        ends = torch.stack(tuple(torch.aminmax(tensor)))
        by_device.setdefault(tensor.device, []).append((index, torch.isfinite(ends).all()))
    whole: list[tuple[int, bool]] = []
    for asked in by_device.values():
        flags = torch.stack([flag for _, flag in asked]).tolist()
        whole += [(index, flag) for (index, _), flag in zip(asked, flags, strict=True)]
    return whole


def _make_record(last: StepRecord, global_step: int, broken: list[int]) -> StepRecord:
    layers, params, steps = (
        np.full_like(values, np.nan)
        for values in (last.layer_values, last.param_values, last.step_values)
    )
    params[last.layer_set.rows.places["param"]["weight_l2_norm"], broken] = np.inf
    return StepRecord(global_step, last.layer_set, layers, params, steps)
