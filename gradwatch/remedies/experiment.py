"""One remedy on one copy: change, train, measure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from gradwatch.errors import NothingToJudge
from gradwatch.evidence.topology import Topology
from gradwatch.remedies.measurement import has_nonfinite_gradient, measure_training
from gradwatch.remedies.optimizers import (
    list_trainable,
    rebuild_optimizer,
    scale_learning_rates,
)
from gradwatch.remedies.surgery import Edit, NotApplicable, Remedy
from gradwatch.remedies.survey import Survey, survey_model
from gradwatch.report import Report
from gradwatch.thresholds import Thresholds
from gradwatch.twin_training import (
    LossFunction,
    OptimizerLike,
    compute_loss,
    copy_training,
    make_optimizer,
    train_step,
)
from gradwatch.verdict.episodes import Change
from gradwatch.verdict.trials import Measurement, Trial
from gradwatch.watcher import watch

LOSS_BATCHES = 8
"""Batches over which the loss before and after the training is averaged."""

SEED = 0
"""Of every copy's training, so that all draw the same random numbers."""


@dataclass(frozen=True)
class Setup:
    """What is trained, on a copy for each remedy; arguments as of ``try_remedies``."""

    model: nn.Module
    batches: Sequence[Any]
    loss_fn: LossFunction
    optimizer: OptimizerLike
    steps: int
    thresholds: Thresholds


@dataclass(frozen=True)
class Training:
    """A copy with its optimizer, and its own loss where that holds parameters."""

    model: nn.Module
    loss_fn: LossFunction
    optimizer: Optimizer


def measure_baseline(setup: Setup) -> tuple[Measurement, Topology]:
    """Train the untouched model.

    Args:
        setup: of all trials; its model stays as it is, a copy is trained.

    Returns:
        What was measured, and the topology that the last record shows.

    Raises:
        NothingToJudge: gradwatch itself failed, or saw no step.
    """
    measured, report = _train(setup, _copy(setup))
    if report.failure or report.history is None or not report.records:
        raise NothingToJudge(
            "Expected a complete record of the untouched model's steps, got "
            f"{report.failure or 'none'}. Please report it with the model."
        )
    return measured, report.history.latest.topology


def survey_setup(setup: Setup, topology: Topology) -> Survey:
    """Look at a copy of the untouched model.

    Args:
        setup: of all trials.
        topology: of the untouched model.
    """
    _seed()
    twin = _copy(setup)
    return survey_model(twin.model, setup.batches[:LOSS_BATCHES], twin.loss_fn, topology)


def try_remedy(setup: Setup, remedy: Remedy, survey: Survey, before: Measurement) -> Trial:
    """Whatever a remedy breaks in a model that was not made for it is an answer, not an error.

    Args:
        setup: of all trials.
        remedy: operates on a copy.
        survey: of another copy, so that it holds no module of this one.
        before: of the untouched model.
    """
    edit = Edit(remedy.name, "")
    try:
        training, edit = _operate(setup, remedy, survey)
        after, report = _train(setup, training)
    except NotApplicable as answer:
        return describe_trial(setup, remedy, edit, before, None, str(answer))
    except Exception as error:
        reason = f"the changed model fails with {type(error).__name__}: {_first_line(error)}"
        return describe_trial(setup, remedy, edit, before, None, reason)
    if report.failure:
        reason = f"gradwatch could not watch the changed model: {report.failure}"
        return describe_trial(setup, remedy, edit, before, None, reason)
    return describe_trial(setup, remedy, edit, before, after)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def describe_trial(
    setup: Setup,
    remedy: Remedy,
    edit: Edit,
    before: Measurement,
    after: Measurement | None,
    reason: str = "",
) -> Trial:
    """The trial as data; its outcome is known when all are ranked.

    Args:
        setup: of all trials.
        remedy: that was tried.
        edit: what it did to the copy.
        before: of the untouched model.
        after: of the changed copy; ``None`` when it could not be trained.
        reason: why it could not; empty otherwise.
    """
    return Trial(edit.name, remedy.change, edit.description, setup.steps, before, after, reason)


def _operate(setup: Setup, remedy: Remedy, survey: Survey) -> tuple[Training, Edit]:
    _seed()
    training = _copy(setup)
    known = {id(param) for param in training.model.parameters()}
    edit = remedy.operate(training.model, survey)
    optimizer = training.optimizer
    if remedy.change != "learning_rate":
        optimizer = _remake_optimizer(setup, training, known)
    scale_learning_rates(optimizer, remedy.learning_rate_factor)
    return Training(training.model, training.loss_fn, optimizer), edit


def _copy(setup: Setup) -> Training:
    return Training(*copy_training(setup.model, setup.loss_fn, setup.optimizer))


def _remake_optimizer(setup: Setup, training: Training, known: set[int]) -> Optimizer:
    if isinstance(setup.optimizer, Optimizer):
        return rebuild_optimizer(training.optimizer, training.model, known)
    return make_optimizer(setup.optimizer, list_trainable(training.model))


def _train(setup: Setup, training: Training) -> tuple[Measurement, Report]:
    loss_start = _measure_loss(setup, training)
    _seed()
    broken = False

    def stop(change: Change) -> None:
        nonlocal broken
        broken = broken or has_nonfinite_gradient(change)

    with watch(
        training.model,
        training.optimizer,
        every_n_steps=1,
        thresholds=setup.thresholds,
        on_change=stop,
        log_findings=False,
    ) as watching:
        for batch in islice(cycle(setup.batches), setup.steps):
            train_step(training.model, batch, training.loss_fn, training.optimizer)
            if broken:
                break  # NaN breeds NaN: no further step says anything more
        report = watching.report()
    loss_end = _measure_loss(setup, training)
    return measure_training(report, setup.thresholds, loss_start, loss_end), report


def _measure_loss(setup: Setup, training: Training) -> float:
    """Mean loss of some batches, in the model's own mode; its buffers stay as they are."""
    _seed()
    buffers = [(buffer, buffer.clone()) for buffer in training.model.buffers()]
    losses = [
        compute_loss(training.model, batch, training.loss_fn).item()
        for batch in setup.batches[:LOSS_BATCHES]
    ]
    with torch.no_grad():
        for buffer, kept in buffers:
            buffer.copy_(kept)
    return sum(losses) / len(losses)


def _seed() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
