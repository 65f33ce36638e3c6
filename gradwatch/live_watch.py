"""A watch that is under way: the session that captures, the judgement that takes its records."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from torch import nn
from torch.optim import Optimizer

from gradwatch.capture.last_look import look_last
from gradwatch.capture.own_statistics import OwnStatistic
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import Session
from gradwatch.capture.wrappers import unwrap
from gradwatch.errors import InvalidInput
from gradwatch.interruption import find_uncaught
from gradwatch.live_judgement import LiveJudgement
from gradwatch.records import StepRecord
from gradwatch.report import Report

_watches: weakref.WeakValueDictionary[int, Watch] = weakref.WeakValueDictionary()
"""By ``id`` of the model: what models call equal, or cannot hash, plays no part."""

_BUNDLES = (nn.ModuleList, nn.ModuleDict)
"""What has no forward and may be made for ``watch()`` alone, as in ``watch(ModuleList([a, b]))``:
the watch is the only one to hold it."""


class Watch:
    """A model under watch; made by ``watch()``. A context manager, or call ``detach()``.

    It goes on when this object is dropped, until ``unwatch(model)`` or until the model is gone; it
    keeps neither the model nor its optimizers alive; only a ``ModuleList`` or ``ModuleDict``, which
    may have been made for it.

    Args:
        model: that is watched, also inside a parallel wrapper.
        optimizers: whose steps are the boundaries; none: ``step`` marks them.
        schedule: which steps are sampled.
        judgement: takes the records.
        global_step: number of the first step.
        budget: largest share of the training's time; ``None`` for the schedule as it is.
        statistics: that are measured besides gradwatch's own.
        reads_in_graph: a compiled model's layers are read inside its graph.

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
        reads_in_graph: bool = False,
    ) -> None:
        self.thresholds = judgement.thresholds
        self._judgement = judgement
        settings = global_step, budget, statistics, reads_in_graph
        self._session = Session(model, optimizers, schedule, self._take, *settings)
        self._unstepped = 0
        self._detached = False
        self._is_entered = False
        self._process = os.getpid()
        self._earlier_error = find_uncaught()
        inner, _ = unwrap(model)
        self._model_id = id(inner)
        _watches[self._model_id] = self
        self._bundle = inner if isinstance(inner, _BUNDLES) else None
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

        Example:
            >>> import gradwatch, torch
            >>> model = torch.nn.Linear(4, 2)
            >>> with gradwatch.watch(model) as watching:  # whatever changes the weights
            ...     model(torch.ones(3, 4)).sum().backward()
            ...     watching.step()
            >>> watching.global_step
            1
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
        if not self._detached:
            self._unstepped = self._session.count_unstepped()
        return self._judgement.report(failure, self._unstepped)

    def detach(self, error: BaseException | None = None) -> None:
        """Stop watching and leave no trace; the report stays available. Harmless when repeated.

        Args:
            error: what ended the training, if it did not end by itself; the log's end names it.
        """
        self._detach("" if error is None else type(error).__name__)

    def _detach(self, exception: str, remark: str = "") -> None:
        if self._detached:
            return
        self._unstepped = self._session.count_unstepped()
        self._detached, self._bundle = True, None
        self._finalizer.detach()
        if _watches.get(self._model_id) is self:
            del _watches[self._model_id]
        self._session.stop()
        if not remark:
            self._session.guard(self._look_last)
        self._judgement.close(self.report, exception, self.global_step, remark)

    def _look_last(self) -> None:
        """What has broken after the last sampled step is judged with the rest."""
        model, last = self._session.model, self._judgement.latest
        record = None if model is None or last is None else look_last(model, last, self.global_step)
        if record is not None:
            self._take(record)

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


def find_watch(model: Any) -> Watch | None:
    """The watch that this very model has, also through a parallel wrapper.

    Args:
        model: or anything else, which has none.
    """
    inner, _ = unwrap(model)
    return _watches.get(id(inner))


def unwatch(model: nn.Module) -> None:
    """End whatever watch a model has, and leave no trace; harmless where there is none.

    For a notebook, and wherever the ``Watch`` is no longer at hand: ``gradwatch.unwatch(model)``.

    Args:
        model: as it was handed to ``watch()``, or what a parallel wrapper holds.

    Example:
        >>> import gradwatch
        >>> from torch import nn
        >>> model = nn.Linear(4, 2)
        >>> watching = gradwatch.watch(model)
        >>> unwatch(model)
        >>> watching.is_detached
        True
    """
    watching = find_watch(model)
    if watching is not None:
        watching.detach()


def _end(found: weakref.ref[Watch]) -> None:
    """A model is gone, or the process ends."""
    watching = found()
    if watching is not None:
        with suppress(Exception):  # nobody is left to hear of it
            watching.abandon()
