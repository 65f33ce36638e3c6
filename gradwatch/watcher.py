"""watch(): where capture, diagnosis and display meet. Named so that ``gradwatch.watch`` stays the
function: a submodule of that name would take its place once imported."""

from __future__ import annotations

import os
import sys
import warnings
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
from gradwatch.errors import AlreadyWatched, InvalidInput
from gradwatch.interruption import is_foreign
from gradwatch.journal import Journal, summarise_run
from gradwatch.records import StepRecord
from gradwatch.report import Report
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import Doctor
from gradwatch.verdict.episodes import Change
from gradwatch.verdict.own_rules import list_rules
from gradwatch.verdict.rule import Rule

Optimizers = Optimizer | Iterable[Optimizer] | None
OnChange = Callable[[Change], None]
OnScalars = Callable[[int, dict[str, float]], None]

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
        thresholds: Thresholds,
        journal: Journal | None,
        run: str = "",
        global_step: int = 0,
        on_change: OnChange | None = None,
        on_scalars: OnScalars | None = None,
        budget: float | None = None,
        rules: Sequence[Rule] = (),
        statistics: Sequence[OwnStatistic] = (),
    ) -> None:
        self.thresholds = thresholds
        self._run = run
        self._doctor = Doctor(thresholds, list_rules(rules))
        self._journal = journal
        self._on_change = on_change
        self._on_scalars = on_scalars
        self._session = Session(
            model, optimizers, schedule, self._take, global_step, budget, statistics
        )
        self._exception = ""
        self._is_log_failing = False
        self._detached = False
        self._is_entered = False
        self._process = os.getpid()
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

    def report(self) -> Report:
        """The verdict so far; waits for numbers still on their way from the device."""
        self._session.deliver(wait=True)
        failure = "" if self.failure is None else repr(self.failure)
        return Report.from_verdict(self._doctor.judge(self._run, failure))

    def detach(self, error: BaseException | None = None) -> None:
        """Stop watching and leave no trace; the report stays available. Harmless when repeated.

        Args:
            error: what ended the training, if it did not end by itself; the log's end names it.
        """
        if self._detached:
            return
        self._exception = "" if error is None else type(error).__name__
        self._detached = True
        self._finalizer.detach()
        if _watches.get(self._model_id) is self:
            del _watches[self._model_id]
        self._session.stop()
        self._write(self._close_journal)

    def abandon(self) -> None:
        """The model or whoever held this is gone: ``detach`` that waits for nobody.

        A process that was forked has only a copy, and leaves the files to the one that it is of.
        """
        if self._process == os.getpid():
            self._session.abandon()
            self.detach()

    def _take(self, record: StepRecord) -> None:
        changes = self._doctor.observe(record)
        self._write(self._write_record, changes)
        if self._on_scalars is not None:
            scalars = summarise_run(self._doctor.history.latest)
            self._tell(self._on_scalars, record.global_step, scalars)
        for change in changes:
            if self._on_change is not None:
                self._tell(self._on_change, change)

    def _write_record(self, changes: tuple[Change, ...]) -> None:
        if self._journal is None:
            return
        self._journal.write(self._doctor.history.latest, changes)
        if changes:
            self._journal.write_verdict(self._doctor.judge(self._run))

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close(self.report(), self._exception, self.global_step)

    def _write(self, function: Callable[..., None], *args: Any) -> None:
        """A log that cannot be written must not end the watching, let alone the training."""
        try:
            function(*args)
            self._is_log_failing = False
        except Exception as error:
            if is_foreign(error):
                raise
            if not self._is_log_failing:
                _warn(
                    f"gradwatch could not write its log ({type(error).__name__}: {error}); it goes "
                    "on watching, and writes again at the next record if that is possible."
                )
            self._is_log_failing = True
        for notice in self._journal.take_notices() if self._journal else ():
            _warn(notice)

    def _tell(self, listener: Callable[..., None], *args: Any) -> None:
        """Whoever listens must not end the watching either."""
        try:
            listener(*args)
        except Exception as error:
            if is_foreign(error):
                raise
            name = getattr(listener, "__qualname__", type(listener).__name__)
            _warn(
                f"gradwatch called {name}, which raised {type(error).__name__}: {error}. It goes "
                "on watching; to stop a training, raise in the loop, as report().raise_if() does."
            )


def _warn(text: str, stacklevel: int = 3) -> None:
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=stacklevel)
    except Warning:  # warnings are errors here, and an error of ours must not stop a training
        print(text, file=sys.stderr)


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
) -> Watch:
    """Watch a model train: ``with gradwatch.watch(model, optimizer, logdir="runs/a") as watch:``.

    The step boundary comes from the optimizer's own step hooks, so that the loop needs no call.
    Every one of the first 10 optimizer steps is sampled, then every ``every_n_steps``-th.

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
        on_change: told when a finding begins or ends, on the training's thread.
        on_scalars: told the step and the run-level scalars of each record, likewise.
        rules: that judge besides gradwatch's own and those of installed packages. What judges the
            log later knows those of packages only (entry points ``gradwatch.rules``).
        statistics: that are measured besides gradwatch's own and those of installed packages
            (entry points ``gradwatch.statistics``).

    Raises:
        InvalidInput: the model, the optimizer or one of the settings cannot be used.
        AlreadyWatched: the model is watched already, in a ``with`` block around this.
    """
    optimizers = _unwrap_optimizers(optimizer)
    check_model(model, optimizers)
    schedule = Schedule(every_n_steps)
    check_budget(budget)
    _check_settings(logdir, writer, thresholds, global_step)
    list_rules(rules)
    measured = list_statistics(statistics)
    _end_earlier(model)
    judged_by = thresholds or Thresholds()
    journal = None
    if (logdir is not None or writer is not None) and _is_first_rank():
        about = describe_training(model, optimizers, every_n_steps, global_step)
        journal = Journal(logdir, writer, per_layer_scalars, judged_by, about)
    told = on_change, on_scalars
    where = journal, run, global_step
    return Watch(model, optimizers, schedule, judged_by, *where, *told, budget, rules, measured)


def _is_first_rank() -> bool:
    distributed = torch.distributed
    is_ready = distributed.is_available() and distributed.is_initialized()
    return not is_ready or distributed.get_rank() == 0


def _unwrap_optimizers(optimizer: Any) -> tuple[Optimizer, ...]:
    if optimizer is None:
        return ()
    is_single = isinstance(optimizer, Optimizer) or _wraps(optimizer) or _holds(optimizer)
    several = [optimizer] if is_single else optimizer
    if not isinstance(several, Iterable):
        raise InvalidInput(
            "Expected an optimizer, several of them or None, got "
            f"{type(optimizer).__name__}. Pass what calls .step() in your loop."
        )
    found = [inner for each in several for inner in _unwrap(each)]
    wrong = [each for each in found if not isinstance(each, Optimizer)]
    if wrong or not found:
        came = type(wrong[0]).__name__ if wrong else "an empty collection"
        raise InvalidInput(
            f"Expected torch.optim.Optimizer, got {came}. Pass what calls .step() in your loop, "
            "or leave it out and mark each step with watch.step()."
        )
    return tuple(dict.fromkeys(found))


def _wraps(optimizer: Any) -> bool:
    return isinstance(getattr(optimizer, "optimizer", None), Optimizer)


def _holds(wrapper: Any) -> list[Optimizer]:
    """Optimizers among the attributes of what is none itself but steps them, such as LARC."""
    if isinstance(wrapper, (Optimizer, str, list, tuple, dict)) or not hasattr(wrapper, "step"):
        return []
    found: list[Optimizer] = []
    for value in getattr(wrapper, "__dict__", {}).values():
        values = value.values() if isinstance(value, dict) else value
        several = values if isinstance(value, (list, tuple, dict)) else [value]
        found += [each for each in several if isinstance(each, Optimizer)]
    return found


def _unwrap(optimizer: Any) -> list[Any]:
    """The optimizers inside a wrapper such as Accelerate's, Lightning's or a container."""
    while _wraps(optimizer):
        optimizer = optimizer.optimizer
    return list(_holds(optimizer)) or [optimizer]


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


def check_model(model: Any, optimizers: tuple[Optimizer, ...] = ()) -> None:
    """Raise InvalidInput for no module, nothing to train, or optimizers of something else."""
    if not isinstance(model, nn.Module):
        raise InvalidInput(
            f"Expected a torch.nn.Module, got {type(model).__name__}. "
            "Pass the model itself, not its output or its parameters."
        )
    params = {id(param) for param in model.parameters() if param.requires_grad}
    if not params:
        raise InvalidInput(
            f"Expected a model with trainable parameters, got {type(model).__name__} with none. "
            "Unfreeze what is to learn (requires_grad_(True)) before watching."
        )
    held = {id(p) for one in optimizers for group in one.param_groups for p in group["params"]}
    if optimizers and not held & params:
        raise InvalidInput(
            f"Expected an optimizer that holds parameters of this {type(model).__name__}, got one "
            "that holds none of them. Was the optimizer made for another copy of the model?"
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
    """A cell that is run again begins anew; a watch inside another one's ``with`` is a mistake."""
    earlier = find_watch(model)
    if earlier is None:
        return
    if earlier.is_entered:
        raise AlreadyWatched(
            f"Expected a model without a watch, got this {type(model).__name__}, which is watched "
            "in a with block. Use the watch that there is, or detach() it first."
        )
    earlier.detach()
    _warn(
        f"gradwatch ended the watch that this {type(model).__name__} had, and began another. "
        "Call gradwatch.unwatch(model) or use a with block to end a watch yourself.",
        stacklevel=4,
    )


def _end(found: weakref.ref[Watch]) -> None:
    """A model is gone, or the process ends."""
    watching = found()
    if watching is not None:
        with suppress(Exception):  # nobody is left to be told
            watching.abandon()
