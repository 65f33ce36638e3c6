"""What a labelled training run of the zoo is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn


@dataclass
class Training:
    """What a factory returns; it knows nothing of gradwatch.

    `run` is an ordinary training loop (zero_grad, forward, backward, step) and returns the
    training loss of every optimizer step.
    """

    model: nn.Module
    optimizers: tuple[torch.optim.Optimizer, ...]
    run: Callable[[], list[float]]


@dataclass(frozen=True)
class Case:
    """One labelled run. `build` seeds torch itself, so that every call builds the same run."""

    name: str
    build: Callable[[], Training]
    kinds: tuple[str, ...] = ()  # expected kinds, main first; () means healthy
    also_allowed: tuple[str, ...] = ()  # kinds that a truthful observer may report besides
    cause: str | None = None  # expected cause of the main kind
    region: tuple[str, ...] = ()  # fnmatch patterns of module and parameter fqns that are unhealthy
    unhealthy_from_step: int = 0  # 0: unhealthy from the start
    why: str = ""  # one line that justifies the label
    fixed: Callable[[], Training] | None = None  # the same net with the remedy applied
    frozen: Callable[[], Training] | None = None  # the same run with the unhealthy region frozen

    @property
    def healthy(self) -> bool:
        return not self.kinds

    def holds(self, fqn: str) -> bool:
        """Whether a module or parameter, or a module around it, lies in the unhealthy region."""
        parts = fqn.split(".")
        around = (".".join(parts[: end + 1]) for end in range(len(parts)))
        return any(fnmatchcase(name, pattern) for name in around for pattern in self.region)


def freeze_region(case: Case) -> Training:
    """The case's run with the parameters of its unhealthy region frozen from the unhealthy step on.

    Where nothing else could be trained, the learning rate is set to 0 instead, since a loss
    without any trainable parameter has no backward pass.
    """
    if case.frozen is not None:
        return case.frozen()
    training = case.build()
    unhealthy = [p for fqn, p in training.model.named_parameters() if case.holds(fqn)]
    if len(unhealthy) == len(list(training.model.parameters())):
        for group in (group for opt in training.optimizers for group in opt.param_groups):
            group["lr"] = 0.0
    elif case.unhealthy_from_step == 0:
        freeze(unhealthy)
    else:
        freeze_later(training.optimizers[0], unhealthy, case.unhealthy_from_step)
    return training


def freeze(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None


def freeze_later(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], step: int
) -> None:
    """Freeze after `step` optimizer steps."""
    made = itertools.count(1)

    def freeze_in_time(*_: object) -> None:
        if next(made) == step:
            freeze(parameters)

    optimizer.register_step_post_hook(freeze_in_time)
