"""watch(): where capture, diagnosis and display meet. Named so that ``gradwatch.watch`` stays the
function: a submodule of that name would take its place once imported."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from gradwatch.capture.description import describe_training
from gradwatch.capture.own_statistics import OwnStatistic, list_statistics
from gradwatch.capture.sampling_budget import check_budget
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.trainables import check_model, check_optimizers, unwrap_optimizers
from gradwatch.errors import AlreadyWatched, InvalidInput
from gradwatch.journal import Journal
from gradwatch.live_judgement import LiveJudgement, Log, OnChange, warn
from gradwatch.live_watch import Watch, find_watch
from gradwatch.setting_values import IN_GRAPH, check_compiled
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.own_rules import list_rules
from gradwatch.verdict.rule import Rule

Optimizers = Optimizer | Iterable[Optimizer] | None


def watch(
    model: nn.Module,
    optimizer: Optimizers = None,
    *,
    logdir: str | os.PathLike[str] | None = None,
    every_n_steps: int = 50,
    budget: float | None = None,
    writer: object = None,
    thresholds: Thresholds | None = None,
    per_layer_scalars: bool = False,
    run: str = "",
    global_step: int = 0,
    on_change: OnChange | None = None,
    log: Log | None = None,
    rules: Sequence[Rule] = (),
    statistics: Sequence[OwnStatistic] = (),
    log_findings: bool = True,
    batch_size: int = 0,
    compiled: str = "eager",
) -> Watch:
    """Watch a model train: ``with gradwatch.watch(model, optimizer, logdir="runs/a") as watch:``.

    The step boundary comes from the optimizer's own step hooks, so that the loop needs no call.
    The first optimizer steps are sampled, then ever fewer down to every ``every_n_steps``-th; and
    one after the other where something has shown that is no finding yet.

    Args:
        model: any module with trainable parameters; nothing is stored on it.
        optimizer: one or several; without, ``Watch.step()`` marks each step.
        logdir: where TensorBoard event files go, a directory or an address such as
            ``s3://bucket/run`` (needs fsspec, ``pip install "gradwatch[remote]"``); ``None`` writes
            nothing.
        every_n_steps: longest wait between two sampled steps (see ``Schedule``).
        budget: largest share of the training's time that watching may take, such as 0.01; samples
            are left out until it holds, on every rank the same. ``None`` asks no clock.
        writer: somebody else's ``SummaryWriter`` or logger to write through, instead of ``logdir``.
        thresholds: of the rules.
        per_layer_scalars: also write and log a scalar per layer and statistic (many charts).
        run: name of the run, for reports.
        global_step: number of the first step, when a run is resumed.
        on_change: called with a finding that begins or ends, on the training's thread.
        log: called as ``log(scalars, global_step)`` after each sampled step, likewise: what a
            tracker has, such as ``wandb.log``, ``mlflow.log_metrics`` or ``accelerator.log``. The
            scalars are the run's, by tag; a logarithm of 0 is ``gradwatch.journal.LOG10_FLOOR``.
        rules: that judge besides gradwatch's own and those of installed packages. What judges the
            log later knows those of packages only (entry points ``gradwatch.rules``).
        statistics: that are measured besides gradwatch's own and those of installed packages
            (entry points ``gradwatch.statistics``).
        log_findings: say each finding that begins, once, through the logger ``"gradwatch"`` of
            Python's ``logging``; of a job's ranks the first one speaks.
        batch_size: samples of an optimizer step, accumulated and over all ranks, for what the log
            says of the run; nothing is judged by it. 0: not known.
        compiled: how layers of a model in ``torch.compile`` are seen: ``"eager"`` runs a sampled
            step without compilation; ``"in_graph"`` compiles the model a second time, with the
            statistics in its graph, for all sampled steps but one of ten. That pays where samples
            are dense, say ``every_n_steps=5``. A graph that cannot be read so runs eagerly.

    Returns:
        The watch, which has begun; in a ``with`` block it ends with that.

    Raises:
        InvalidInput: the model, the optimizer or one of the settings cannot be used.
        AlreadyWatched: the model is watched already, in a ``with`` block around this.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with watch(model, optimizer) as watching:
        ...     for _ in range(3):
        ...         model(torch.randn(16, 4)).square().mean().backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        >>> report = watching.report()
        >>> report.records, report.last_step
        (3, 2)
    """
    optimizers = unwrap_optimizers(check_model(model), optimizer)
    check_optimizers(model, optimizers)
    schedule = Schedule(every_n_steps)
    check_budget(budget)
    _check_settings(logdir, writer, thresholds)
    _check_count("global_step", global_step, "optimizer steps made before this run was resumed")
    _check_count("batch_size", batch_size, "samples of an optimizer step, 0 where not known")
    reads_in_graph = check_compiled(compiled) == IN_GRAPH
    list_rules(rules)
    measured = list_statistics(statistics)
    _end_earlier(model)
    judged_by = thresholds or Thresholds()
    journal, is_first = None, _is_first_rank()
    if (logdir is not None or writer is not None) and is_first:
        about = describe_training(model, optimizers, every_n_steps, global_step, batch_size)
        journal = Journal(logdir, writer, per_layer_scalars, judged_by, about)
    listeners = on_change, log, log_findings and is_first, per_layer_scalars
    judgement = LiveJudgement(run, judged_by, rules, journal, *listeners)
    settings = global_step, budget, measured, reads_in_graph
    return Watch(model, optimizers, schedule, judgement, *settings)


def _is_first_rank() -> bool:
    distributed = torch.distributed
    is_ready = distributed.is_available() and distributed.is_initialized()
    return not is_ready or distributed.get_rank() == 0


def _check_settings(logdir: object, writer: object, thresholds: object) -> None:
    if logdir is not None and writer is not None:
        raise InvalidInput(
            f"Expected either a logdir or a writer, got both ({logdir!r} and "
            f"{type(writer).__name__}). Pass the writer alone to share its file."
        )
    if thresholds is not None and not isinstance(thresholds, Thresholds):
        raise InvalidInput(
            f"Expected gradwatch.Thresholds, got {type(thresholds).__name__}. "
            "Pass Thresholds(profile=...) with the fields that are to differ."
        )


def _check_count(name: str, count: object, meaning: str) -> None:
    if not isinstance(count, int) or count < 0:
        raise InvalidInput(
            f"Expected {name} to be a whole number from 0, got {count!r}. Pass the {meaning}."
        )


def _end_earlier(model: nn.Module) -> None:
    """A cell that is run again starts over; a watch inside another one's ``with`` is a mistake."""
    earlier = find_watch(model)
    if earlier is None:
        return
    if earlier.is_entered:
        raise AlreadyWatched(
            f"Expected a model without a watch, got this {type(model).__name__}, which is watched "
            "in a with block. Use the watch that there is, or detach() it first."
        )
    earlier.detach()
    warn(
        f"gradwatch ended the watch that this {type(model).__name__} had, and began another. "
        "Call gradwatch.unwatch(model) or use a with block to end a watch yourself.",
        stacklevel=4,
    )
