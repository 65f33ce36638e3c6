"""watch(): where capture, diagnosis and display meet. Named so that ``gradwatch.watch`` stays the
function: a submodule of that name would take its place once imported."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gradwatch.capture.description import describe_training
from gradwatch.capture.own_statistics import OwnStatistic, list_statistics
from gradwatch.capture.ranks import unwrap
from gradwatch.capture.sampling_budget import check_budget
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import Session
from gradwatch.capture.trainables import check_model, check_optimizers, unwrap_optimizers
from gradwatch.errors import AlreadyWatched, InvalidInput
from gradwatch.interruption import find_uncaught
from gradwatch.journal import Journal
from gradwatch.live_judgement import LiveJudgement, OnChange, OnScalars, warn
from gradwatch.records import StepRecord
from gradwatch.report import Report
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.own_rules import list_rules
from gradwatch.verdict.rule import Rule

Optimizers = Optimizer | Iterable[Optimizer] | None

_watches: weakref.WeakValueDictionary[int, Watch] = weakref.WeakValueDictionary()
"""By ``id`` of the model: what models call equal, or cannot hash, plays no part."""


class Watch:
    """A model under watch; made by ``watch()``. A context manager, or call ``detach()``.

    It goes on when this object is dropped, until ``unwatch(model)`` or until the model is gone; it
    keeps neither the model nor its optimizers alive.

    Attributes:
        thresholds: by which the run is judged.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: tuple[Optimizer, ...],
        schedule: Schedule,
        judgement: LiveJudgement,
        global_step: int = 0,
        budget: float | None = None,
        statistics: Sequence[OwnStatistic] = (),
    ) -> None:
        self.thresholds = judgement.thresholds
        self._judgement = judgement
        self._session = Session(
            model, optimizers, schedule, self._take, global_step, budget, statistics
        )
        self._detached = False
        self._is_entered = False
        self._process = os.getpid()
        self._earlier_error = find_uncaught()
        inner, _ = unwrap(model)
        self._model_id = id(inner)
        _watches[self._model_id] = self
        self._finalizer = weakref.finalize(inner, _end, weakref.ref(self))
        self._session.start()

    def __enter__(self) -> Watch:
        self._is_entered = True
        return self

    def __del__(self) -> None:
        if not getattr(self, "_detached", True):
            self.abandon()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.detach(error)

    def __repr__(self) -> str:
        state = "ended" if self._detached else "watching"
        return f"<Watch: {state}, step {self.global_step}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict so far."""
        return self.report()._repr_html_()

    @property
    def is_entered(self) -> bool:
        """Whether a ``with`` block of its own holds it."""
        return self._is_entered

    @property
    def is_detached(self) -> bool:
        """Whether the watching has ended."""
        return self._detached

    @property
    def global_step(self) -> int:
        """Optimizer steps made so far."""
        return self._session.global_step

    @property
    def failure(self) -> BaseException | None:
        """The error of our own that ended the watching, if there was one."""
        return self._session.failure

    def step(self) -> None:
        """Mark the end of a training step; needed only without an optimizer.

        Raises:
            InvalidInput: the watch has an optimizer, whose own steps are the boundaries.
        """
        if self._session.optimizers:
            raise InvalidInput(
                "Expected watch.step() only without an optimizer, got a watch that counts the "
                "steps of its own. Remove the call, or watch(model) without the optimizer."
            )
        self._session.after_step(0, None)

    def leave_out(self, is_trial: Callable[[], bool]) -> None:
        """Pass over steps that are no part of the training, such as a learning-rate finder's.

        They are neither counted nor recorded. Call ``resume()`` before the training goes on.

        Args:
            is_trial: asked after each optimizer step; holding the model would keep it alive.
        """
        self._session.leave_out(is_trial)

    def resume(self) -> None:
        """The training goes on after steps that were left out; harmless where none were."""
        self._session.resume()

    def report(self) -> Report:
        """The verdict so far; waits for numbers still on their way from the device."""
        self._session.deliver(wait=True)
        failure = "" if self.failure is None else repr(self.failure)
        return self._judgement.report(failure)

    def detach(self, error: BaseException | None = None) -> None:
        """Stop watching and leave no trace; the report stays available. Harmless when repeated.

        Args:
            error: what ended the training, if it did not end by itself; the log's end names it.
        """
        self._detach("" if error is None else type(error).__name__)

    def _detach(self, exception: str, remark: str = "") -> None:
        if self._detached:
            return
        self._detached = True
        self._finalizer.detach()
        if _watches.get(self._model_id) is self:
            del _watches[self._model_id]
        self._session.stop()
        self._judgement.close(self.report, exception, self.global_step, remark)

    def abandon(self) -> None:
        """The model or whoever held this is gone: ``detach`` that waits for nobody.

        A process that was forked has only a copy, and leaves the files to the one that it is of.
        """
        if self._process != os.getpid():
            return
        self._session.abandon()
        if self._session.model is None:
            self._detach("", "the model was gone")
            return
        error = find_uncaught()
        is_new = error is not None and error is not self._earlier_error
        self._detach(type(error).__name__ if is_new else "", "the process was over")

    def _take(self, record: StepRecord) -> int:  # the session's hooks hold the watch by it
        return self._judgement.take(record)


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
    on_scalars: OnScalars | None = None,
    rules: Sequence[Rule] = (),
    statistics: Sequence[OwnStatistic] = (),
    log_findings: bool = True,
) -> Watch:
    """Watch a model train: ``with gradwatch.watch(model, optimizer, logdir="runs/a") as watch:``.

    The step boundary comes from the optimizer's own step hooks, so that the loop needs no call.
    The first optimizer steps are sampled, then ever fewer down to every ``every_n_steps``-th; and
    one after the other where something has shown that is no finding yet.

    Args:
        model: any module with trainable parameters; nothing is stored on it.
        optimizer: one or several; without, ``Watch.step()`` marks each step.
        logdir: where TensorBoard event files go; ``None`` writes nothing.
        every_n_steps: longest wait between two sampled steps (see ``Schedule``).
        budget: largest share of the training's time that watching may take, such as 0.01; samples
            are left out until it holds, on every rank the same. ``None`` asks no clock.
        writer: somebody else's ``SummaryWriter`` or logger to write through, instead of ``logdir``.
        thresholds: of the rules.
        per_layer_scalars: also write a scalar per layer and statistic (many charts).
        run: name of the run, for reports.
        global_step: number of the first step, when a run is resumed.
        on_change: called with a finding that begins or ends, on the training's thread.
        on_scalars: called with the step and the run-level scalars of each record, likewise.
        rules: that judge besides gradwatch's own and those of installed packages. What judges the
            log later knows those of packages only (entry points ``gradwatch.rules``).
        statistics: that are measured besides gradwatch's own and those of installed packages
            (entry points ``gradwatch.statistics``).
        log_findings: say each finding that begins, once, through the logger ``"gradwatch"`` of
            Python's ``logging``; of a job's ranks the first one speaks.

    Raises:
        InvalidInput: the model, the optimizer or one of the settings cannot be used.
        AlreadyWatched: the model is watched already, in a ``with`` block around this.
    """
    optimizers = unwrap_optimizers(check_model(model), optimizer)
    check_optimizers(model, optimizers)
    schedule = Schedule(every_n_steps)
    check_budget(budget)
    _check_settings(logdir, writer, thresholds, global_step)
    list_rules(rules)
    measured = list_statistics(statistics)
    _end_earlier(model)
    judged_by = thresholds or Thresholds()
    journal, is_first = None, _is_first_rank()
    if (logdir is not None or writer is not None) and is_first:
        about = describe_training(model, optimizers, every_n_steps, global_step)
        journal = Journal(logdir, writer, per_layer_scalars, judged_by, about)
    listeners = on_change, on_scalars, log_findings and is_first
    judgement = LiveJudgement(run, judged_by, rules, journal, *listeners)
    return Watch(model, optimizers, schedule, judgement, global_step, budget, measured)


def _is_first_rank() -> bool:
    distributed = torch.distributed
    is_ready = distributed.is_available() and distributed.is_initialized()
    return not is_ready or distributed.get_rank() == 0


def _check_settings(
    logdir: object, writer: object, thresholds: object, global_step: object
) -> None:
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
    if not isinstance(global_step, int) or global_step < 0:
        raise InvalidInput(
            f"Expected global_step to be a whole number from 0, got {global_step!r}. "
            "Pass the optimizer steps made before this run was resumed."
        )


def find_watch(model: Any) -> Watch | None:
    """The watch that this very model has, also through a parallel wrapper."""
    inner, _ = unwrap(model)
    return _watches.get(id(inner))


def unwatch(model: nn.Module) -> None:
    """End whatever watch a model has, and leave no trace; harmless where there is none.

    For a notebook, and wherever the ``Watch`` is no longer at hand: ``gradwatch.unwatch(model)``.

    Args:
        model: as it was handed to ``watch()``, or what a parallel wrapper holds.
    """
    watching = find_watch(model)
    if watching is not None:
        watching.detach()


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


def _end(found: weakref.ref[Watch]) -> None:
    """A model is gone, or the process ends."""
    watching = found()
    if watching is not None:
        with suppress(Exception):  # nobody is left to hear of it
            watching.abandon()
