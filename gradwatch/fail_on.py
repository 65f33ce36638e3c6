"""Findings that are to stop a training: what the callbacks of the trainers share."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from typing import Any

from gradwatch.capture.exchange import Exchange, is_job
from gradwatch.capture.sampling_budget import check_budget
from gradwatch.capture.schedule import Schedule
from gradwatch.configuration import find_configuration, is_milder
from gradwatch.errors import GradWatchError, InvalidInput, UnhealthyGradients
from gradwatch.judgement import judge_latest
from gradwatch.live_watch import Watch, find_watch
from gradwatch.report import Report
from gradwatch.verdict.coverage import NOT_JUDGED
from gradwatch.verdict.episodes import Change
from gradwatch.verdict.findings import Finding, describe_findings
from gradwatch.watcher import watch

_log = logging.getLogger("gradwatch")

_trainings = itertools.count()
"""Ranks that begin trainings in the same order find each other by number."""


def borrow_watch(model: Any) -> Watch | None:
    """The watch that a model has already: a callback that comes later says so, and leaves it.

    Args:
        model: that is about to be trained.

    Returns:
        ``None`` where there is none, and the callback begins its own.
    """
    found = find_watch(model)
    if found is not None:
        _log.warning(
            "This %s is watched already: this callback leaves it to the watch that is there, and "
            "reports what that one has seen.",
            type(model).__name__,
        )
    return found


HANDED_ON = (
    *("every_n_steps", "budget", "rules", "statistics", "thresholds", "per_layer_scalars"),
    "compiled",
)
"""Settings of ``watch`` that a callback has under the same names."""


def begin_watch(
    callback: Any, model: Any, optimizers: Sequence[Any], **settings: Any
) -> Watch | None:
    """Begin a watch that a trainer holds: another one in the middle of it is refused.

    Args:
        callback: of the trainer, with an attribute for each of ``HANDED_ON``.
        model: of the trainer.
        optimizers: those that hold its parameters; none: steps are marked by hand.
        **settings: the others, as for ``watch``.

    Returns:
        ``None`` where nothing can be watched, which is said: the training goes on without.
    """
    settings |= {name: getattr(callback, name) for name in HANDED_ON}
    try:
        return watch(model, optimizers or None, **settings).__enter__()
    except InvalidInput as error:
        _log.warning("This training goes on without a watch. %s", error)
        return None


def count_samples(loader: Any, batches: int) -> int:
    """Samples of an optimizer step; 0 where the loader does not say how many a batch has.

    Args:
        loader: of the trainer.
        batches: of a step, accumulated and over all ranks.
    """
    size = getattr(loader, "batch_size", None)
    return size * batches if isinstance(size, int) else 0


def find_own_optimizers(optimizers: Sequence[Any], model: Any) -> list[Any]:
    """Those that hold parameters of the model; a trainer may have a stand-in that holds none.

    Args:
        optimizers: of the trainer, wrapped or not.
        model: that is about to be trained.
    """
    params = {id(param) for param in model.parameters()}
    return [
        optimizer
        for optimizer in optimizers
        if any(
            id(param) in params
            for group in getattr(optimizer, "param_groups", ())
            for param in group["params"]
        )
    ]


class Alarms:
    """Keeps the findings that are to stop the training.

    Args:
        fail_on: kinds that stop it; none when empty.
        every_n_steps, budget: as the watch has them.

    Raises:
        InvalidInput: an unknown kind, an interval below 1, or a budget that is no share.
    """

    def __init__(
        self, fail_on: Sequence[str], every_n_steps: int, budget: float | None = None
    ) -> None:
        self.fail_on = (fail_on,) if isinstance(fail_on, str) else tuple(fail_on)
        Report().of_kind(*self.fail_on)  # an unknown kind is refused before the training
        self._schedule = Schedule(every_n_steps)
        check_budget(budget)
        self._agreed = find_configuration()
        self.begin()

    def begin(self, global_step: int = 0, directory: str | os.PathLike[str] | None = None) -> None:
        """A training begins at this step, and logs into this directory.

        Args:
            global_step: above 0 where a training is resumed.
            directory: of the event files; ``None`` where this process writes none.
        """
        self._resumed_from = directory if global_step else None
        self._is_resumed = global_step > 0
        self.findings: list[Finding] = []
        self._asked_at = global_step
        self._asked = 0
        is_shared = bool(self.fail_on) and is_job()
        name = f"gradwatch/fail_on/{next(_trainings)}" if is_shared else ""
        self._exchange = Exchange(name) if is_shared else None

    def hear(self, change: Change) -> None:
        """A finding began or ended.

        Args:
            change: one that ends, is ignored or is too mild changes nothing.
        """
        if not change.began:
            return
        if change.finding.kind in self.fail_on and not self._is_silenced(change.finding):
            self.findings.append(change.finding)

    def _is_silenced(self, finding: Finding) -> bool:
        agreed = self._agreed
        return bool(agreed.find_reason(finding)) or is_milder(finding, agreed.min_severity)

    def is_to_stop(self, watch: Watch) -> bool:
        """Whether to raise here, the same on every rank.

        Rank 0 decides at one step of the schedule that all of them raise at the next: whoever gets
        there has made a step together with rank 0 since, and finds what it has decided.

        Args:
            watch: of the training, after a step.
        """
        if not self._is_time_to_ask(watch):
            return False
        if self._exchange is None:
            return bool(self.findings)
        self._asked += 1
        decided = self._exchange.take("stop")
        if decided is None and self.findings and self._exchange.rank == 0:
            self._exchange.put("stop", str(self._asked + 1).encode())
        return decided is not None and self._asked >= int(decided)

    def fails_anywhere(self, decision: bool) -> bool:
        """Whether any rank that answers in time has decided, at the end, that the training fails.

        Who is not there by then is not waited for.

        Args:
            decision: of this rank.
        """
        exchange = self._exchange
        if exchange is None:
            return decision
        keys = [f"end/{rank}" for rank in range(exchange.world)]
        exchange.put(keys[exchange.rank], str(int(decision)).encode())
        exchange.wait(keys)
        return decision or any(exchange.take(key) == b"1" for key in keys)

    def _is_time_to_ask(self, watch: Watch) -> bool:
        """Whether a step of the schedule was made since this was asked; the same on every rank.

        Under a budget some of these are not sampled: there is nothing new then.
        """
        begin, self._asked_at = self._asked_at, watch.global_step
        return bool(self.fail_on) and self._schedule.find_next(begin) < self._asked_at

    def judge(self, report: Report) -> GradWatchError | None:
        """Why a training that has ended fails, if it does; no record is a reason.

        What a resumed process has seen too little of, the log of the whole training may prove; only
        rank 0 has it, and decides.

        Args:
            report: on what this process has seen.

        Returns:
            The error to raise; ``None`` where the training passes, or nothing was asked for.
        """
        if not self.fail_on:
            return None
        if self._is_resumed and report.status == NOT_JUDGED and not report.failure:
            if self._exchange is not None and self._exchange.rank != 0:
                return None
            report = _read_whole(self._resumed_from) or report
        try:
            self._agreed.silence(report).raise_if(*self.fail_on)
        except GradWatchError as error:
            return error
        return self.make_error() if self.findings else None

    def make_error(self) -> UnhealthyGradients:
        """The error to raise."""
        if not self.findings:
            return UnhealthyGradients("Another process of this job has findings.")
        return UnhealthyGradients(describe_findings(self.findings), tuple(self.findings))


def _read_whole(directory: str | os.PathLike[str] | None) -> Report | None:
    """The report on all of a training whose last part logged into a directory."""
    if directory is None:
        return None
    try:
        found = judge_latest(directory)
    except GradWatchError:
        return None
    if found is None or found.verdict is None or found.find_obstacle():
        return None
    return Report.from_verdict(found.verdict)
