"""What is trained, and where, for the head of a run's log: read once, when a watch begins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gradwatch.capture.exchange import count_ranks
from gradwatch.capture.stepped_objects import find_class
from gradwatch.capture.wrappers import unwrap
from gradwatch.run_marks import OptimizerSettings, RunDescription


def describe_training(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    every_n_steps: int,
    first_step: int,
    batch_size: int = 0,
) -> RunDescription:
    """Describe a training as it begins; parameters are counted as they are held here.

    Args:
        model: that is watched, also inside a parallel wrapper.
        optimizers: whose steps are the boundaries.
        every_n_steps: longest wait between two sampled steps.
        first_step: global step at which the watch begins.
        batch_size: samples of an optimizer step over all ranks; 0: not known.
    """
    inner, _ = unwrap(model)
    params = dict(inner.named_parameters())
    trainable = [name for name, param in params.items() if param.requires_grad]
    return RunDescription(
        model=type(inner).__name__,
        n_params=sum(param.numel() for param in params.values()),
        n_trainable=sum(params[name].numel() for name in trainable),
        trainable_digest=hashlib.sha256("\n".join(trainable).encode()).hexdigest()[:8],
        optimizers=tuple(map(_describe_optimizer, optimizers)),
        dtypes=_list_words(param.dtype for param in params.values()),
        devices=_list_words(param.device for param in params.values()),
        world_size=count_ranks(),
        gradwatch_version=_find_version(),
        torch_version=str(torch.__version__),
        every_n_steps=every_n_steps,
        first_step=first_step,
        batch_size=batch_size,
    )


def _describe_optimizer(optimizer: Optimizer) -> OptimizerSettings:
    groups = optimizer.param_groups
    return OptimizerSettings(
        type=find_class(optimizer).__name__,
        learning_rates=tuple(float(group.get("lr") or 0.0) for group in groups),
        weight_decays=tuple(float(group.get("weight_decay") or 0.0) for group in groups),
    )


def _list_words(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(value).removeprefix("torch.") for value in values}))


def _find_version() -> str:
    try:
        return metadata.version("gradwatch")
    except metadata.PackageNotFoundError:  # run from a copy of the sources
        return ""
