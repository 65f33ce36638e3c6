"""check(): some real training steps on a copy of a model, for a test."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from gradwatch.capture.trainables import check_model
from gradwatch.configuration import find_configuration
from gradwatch.errors import InvalidInput, NothingToJudge
from gradwatch.report import Report
from gradwatch.seed_vote import merge_reports
from gradwatch.setting_values import parse_count, parse_seconds
from gradwatch.thresholds import Thresholds
from gradwatch.twin_training import (
    LossFunction,
    OptimizerLike,
    check_trial,
    choose_batches,
    copy_training,
    keep_random_state,
    train_step,
)
from gradwatch.watcher import watch

CHECK_STEPS = 20
"""Enough for every rule to see that something lasts."""

ModelFactory = Callable[[], nn.Module]


def check(
    model: nn.Module | ModelFactory,
    batches: Iterable[Any],
    loss_fn: LossFunction,
    optimizer: OptimizerLike = None,
    steps: int | None = None,
    *,
    thresholds: Thresholds | None = None,
    seeds: int | None = None,
    budget_seconds: float | None = None,
) -> Report:
    """Train a deep copy of the model for some steps and report; the caller's stays as it was.

    Nothing of the caller's changes: weights, buffers, gradients, optimizer state, random state
    (Python's, NumPy's, torch's, and that of a DataLoader's own generator). What is not given here
    stands in ``[tool.gradwatch]`` of the nearest pyproject.toml, or has the default below.

    With several seeds the training is repeated, each time with the random numbers of another seed
    (0, 1, 2, ...), and a majority decides; NaN or Inf in one of them is enough. A model that is
    given as a function is built once for each seed. One that is given as it is keeps its weights,
    since these may be what is tested: the seeds then vary dropout and the order of the batches.

    Args:
        model: the model to judge, whose train/eval mode is kept; or a function that builds it.
        batches: ``(inputs, target)`` pairs (several inputs may come before the target), mappings
            of keyword arguments, or bare inputs; repeated when there are fewer than ``steps``.
        loss_fn: ``loss_fn(output, target)``; ``loss_fn(output)`` for batches without a target;
            or, when its first parameter is called ``model``, ``loss_fn(model, batch)``.
        optimizer: the model's optimizer (its copy is used), or a function of the parameters that
            makes one; plain SGD with a learning rate of 0.01 when omitted: it hides nothing.
        steps: training steps; 20 when omitted.
        thresholds: of the rules.
        seeds: trainings to judge together; 1 when omitted, which sets no seed.
        budget_seconds: longest time for all of it, seconds; no limit when omitted.

    Returns:
        On all seeds together, with the time that it took.

    Raises:
        InvalidInput: no batch, a loss that is no scalar, an optimizer of another model, or a
            setting that means nothing.
        NothingToJudge: gradwatch itself failed, or the time was up: in a test that is no pass.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> layers = [layer for _ in range(10) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
        >>> batches = [(torch.randn(32, 16), torch.randint(0, 4, (32,))) for _ in range(4)]
        >>> deep = nn.Sequential(*layers, nn.Linear(16, 4))
        >>> report = check(deep, batches, nn.functional.cross_entropy)
        >>> report.healthy, [finding.kind for finding in report.findings]
        (False, ['vanishing'])
    """
    agreed = find_configuration()
    plan = _Plan(
        loss_fn,
        optimizer,
        _first_given(steps, agreed.steps, CHECK_STEPS),
        agreed.choose_thresholds(thresholds),
        parse_count(_first_given(seeds, agreed.seeds, 1)),
        _Clock(_first_given(budget_seconds, agreed.budget_seconds, None)),
    )
    _check_plan(plan, model, batches)
    with keep_random_state(batches), torch.enable_grad():
        chosen = choose_batches(batches, plan.steps)
        reports = [plan.train(model, chosen, seed) for seed in range(plan.seeds)]
    report = reports[0] if len(reports) == 1 else merge_reports(reports)
    return agreed.silence(replace(report, seconds=plan.clock.read()))


def _first_given(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _check_plan(plan: _Plan, model: object, batches: object) -> None:
    if isinstance(model, nn.Module) or not callable(model):
        check_model(model)
    elif isinstance(plan.optimizer, Optimizer):
        raise InvalidInput(
            "Expected a function of the parameters for a model that a factory builds, got the "
            f"optimizer {type(plan.optimizer).__name__} of another model. "
            "Pass for instance lambda params: Adam(params, lr=1e-3)."
        )
    check_trial(batches, plan.loss_fn, plan.steps)


class _Clock:
    """Time since it was made.

    Args:
        budget_seconds: time after which ``check`` raises; ``None`` for no limit.
    """

    def __init__(self, budget_seconds: float | None) -> None:
        self._budget = None if budget_seconds is None else parse_seconds(budget_seconds)
        self._begin = time.perf_counter()

    def read(self) -> float:
        """Seconds since then."""
        return time.perf_counter() - self._begin

    def check(self, done: str) -> None:
        """Raise NothingToJudge when the time is up."""
        if self._budget is not None and self.read() > self._budget:
            raise NothingToJudge(
                f"Expected the check to take at most {self._budget:g} s, got only as far as {done} "
                "in that time. Raise budget_seconds, or ask for fewer steps or seeds."
            )


@dataclass
class _Plan:
    """The trainings of one check."""

    loss_fn: LossFunction
    optimizer: OptimizerLike
    steps: int
    thresholds: Thresholds
    seeds: int
    clock: _Clock

    def train(self, model: nn.Module | ModelFactory, batches: list[Any], seed: int) -> Report:
        """One training, watched at every step; seeded only where there are several."""
        if self.seeds > 1:
            _set_seeds(seed)
        built = model if isinstance(model, nn.Module) else _build(model)
        if self.seeds > 1 and seed and built is model:
            batches = random.sample(batches, len(batches))
        twin, twin_loss, twin_optimizer = copy_training(built, self.loss_fn, self.optimizer)
        options: dict[str, Any] = {"every_n_steps": 1, "thresholds": self.thresholds}
        with watch(twin, twin_optimizer, log_findings=False, **options) as watching:
            for step, batch in enumerate(islice(cycle(batches), self.steps)):
                self.clock.check(f"step {step} of {self.steps}, seed {seed + 1} of {self.seeds}")
                train_step(twin, batch, twin_loss, twin_optimizer)
            report = watching.report()
        if watching.failure is not None:
            raise NothingToJudge(
                f"Expected a complete record of {self.steps} steps, got an error of gradwatch's "
                f"own: {watching.failure!r}. Please report it with the model."
            ) from watching.failure
        return report


def _set_seeds(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _build(factory: ModelFactory) -> nn.Module:
    model = factory()
    check_model(model)
    return model
