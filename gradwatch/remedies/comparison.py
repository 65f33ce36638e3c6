"""try_remedies(): all remedies on copies of one model, best first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from gradwatch.capture.trainables import check_model
from gradwatch.display.trial_table import RankedTrials
from gradwatch.log.writer import EventLog
from gradwatch.remedies.catalogue import REMEDIES, UNTOUCHED
from gradwatch.remedies.experiment import (
    Setup,
    describe_trial,
    measure_baseline,
    survey_setup,
    try_remedy,
)
from gradwatch.thresholds import Thresholds
from gradwatch.twin_training import (
    LossFunction,
    OptimizerLike,
    check_trial,
    choose_batches,
    keep_random_state,
)
from gradwatch.verdict.trials import Trial, rank_trials

REMEDY_STEPS = 40
"""Enough to see whether the loss falls, and for every rule to see a disease last."""


def try_remedies(
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFunction,
    optimizer: OptimizerLike = None,
    *,
    steps: int = REMEDY_STEPS,
    thresholds: Thresholds | None = None,
    logdir: str | os.PathLike[str] | None = None,
) -> list[Trial]:
    """Try each remedy on a deep copy of the model and train it for some steps; best first.

    The untouched model takes part as the trial named "as it is" and is ranked with the others: when
    it comes first, nothing that was tried does better. Remedies that do not fit the model come
    last, with the reason. All copies see the same batches and the same random numbers. Nothing of
    the caller's changes: weights, buffers, gradients, hooks, optimizer state, random state.

    Args:
        model: the model; its train/eval mode is kept.
        batches: as in ``gradwatch.check``; repeated when there are fewer than ``steps``.
        loss_fn: as in ``gradwatch.check``.
        optimizer: the model's optimizer, whose class, groups and hyper-parameters each copy gets
            (and an unchanged copy its state); or a function of the parameters that makes one;
            plain SGD with a learning rate of 0.01 when omitted.
        steps: training steps of each trial.
        thresholds: of the rules, and of when an early layer counts as moving.
        logdir: the directory of the model's run, in which the trials are kept, so that TensorBoard,
            ``gradwatch report`` and ``gradwatch check`` show them with it. Call it after the
            training: TensorBoard reads the event files of a run one after the other.

    Raises:
        InvalidInput: no batch, a loss that is no scalar, a model that cannot be copied, or an
            optimizer of another model, or a logdir that cannot be written.
        NothingToJudge: gradwatch itself failed on the untouched model.
    """
    check_model(model)
    check_trial(batches, loss_fn, steps)
    limits = thresholds or Thresholds()
    with keep_random_state(batches), torch.enable_grad():
        chosen = choose_batches(batches, steps)
        setup = Setup(model, chosen, loss_fn, optimizer, steps, limits)
        baseline, topology = measure_baseline(setup)
        survey = survey_setup(setup, topology)
        trials = [try_remedy(setup, remedy, survey, baseline) for remedy in REMEDIES]
        untouched = UNTOUCHED.operate(model, survey)
    trials.append(describe_trial(setup, UNTOUCHED, untouched, baseline, baseline))
    ranked = RankedTrials(rank_trials(trials, limits))
    if logdir is not None:
        _keep(ranked, logdir)
    return ranked


def _keep(trials: Sequence[Trial], logdir: str | os.PathLike[str]) -> None:
    log = EventLog(logdir)
    log.write_trials(0, trials)
    log.close()
