"""From a record of a running training to its verdict, its log, and whoever listens."""

from __future__ import annotations

import dataclasses
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from gradwatch.interruption import forget_frames, is_foreign
from gradwatch.journal import Journal, list_scalars
from gradwatch.records import StepRecord
from gradwatch.report import Report
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.alertness import Alertness
from gradwatch.verdict.engine import Doctor
from gradwatch.verdict.episodes import Change
from gradwatch.verdict.findings import Finding, announce
from gradwatch.verdict.own_rules import list_rules
from gradwatch.verdict.rule import Rule

_log = logging.getLogger("gradwatch")

OnChange = Callable[[Change], None]
Log = Callable[[dict[str, float], int], Any]


class LiveJudgement:
    """Judges, logs and announces each record; neither a full disk nor a listener ends it.

    Args:
        run: name of the run, for reports.
        thresholds: of the rules.
        rules: further ones, as in ``gradwatch.watch``.
        journal: the run's log; ``None`` writes nothing.
        on_change: called with each finding that begins or ends.
        log: called with the scalars of each record and its step.
        per_layer_scalars: those include one per layer and statistic.
        log_findings: say each finding that begins, once, through the logger ``"gradwatch"``.
    """

    def __init__(
        self,
        run: str,
        thresholds: Thresholds,
        rules: Sequence[Rule] = (),
        journal: Journal | None = None,
        on_change: OnChange | None = None,
        log: Log | None = None,
        log_findings: bool = True,
        per_layer_scalars: bool = False,
    ) -> None:
        self.thresholds = thresholds
        self._run = run
        self._doctor = Doctor(thresholds, list_rules(rules))
        self._journal = journal
        self._on_change = on_change
        self._log = log
        self._per_layer = per_layer_scalars
        self._log_findings = log_findings
        self._logged: set[tuple[str, tuple[str, ...]]] = set()
        self._is_log_failing = False
        self._alertness = Alertness()

    def take(self, record: StepRecord) -> int:
        """Judge the next record, write it, and call whoever listens.

        Args:
            record: of the newest sampled step.

        Returns:
            How many of the next steps are worth a sample each.
        """
        changes = self._doctor.observe(record)
        self._write(self._write_record, changes)
        if self._log is not None:
            scalars = list_scalars(self._doctor.history.latest, self._per_layer)
            self._call(self._log, scalars, record.global_step)
        for change in changes:
            if change.began and self._log_findings:
                self._say(change.finding)
            if self._on_change is not None:
                self._call(self._on_change, change)
        return self._alertness.count_samples(
            record, self._doctor.is_waiting, self._doctor.lacks_losses
        )

    @property
    def latest(self) -> StepRecord | None:
        """The newest record; ``None`` before the first."""
        history = self._doctor.history
        return history.latest.record if history.window else None

    def _say(self, finding: Finding) -> None:
        """One that comes and goes is said the first time."""
        place = finding.code, finding.layers
        if place not in self._logged:
            self._logged.add(place)
            logdir = self._journal.logdir if self._journal is not None else ""
            self._call(_log.warning, "%s", announce([finding], finding.last_step, logdir))

    def report(self, failure: str = "", unstepped: int = 0) -> Report:
        """The verdict so far.

        Args:
            failure: error of our own that ended the watching; ``""``: none.
            unstepped: steps' worth of backward passes since the last step.
        """
        report = Report.from_verdict(self._doctor.judge(self._run, failure, unstepped))
        logdir = self._journal.logdir if self._journal is not None else ""
        return dataclasses.replace(report, logdir=logdir)

    def close(
        self, report: Callable[[], Report], exception: str, global_step: int, remark: str = ""
    ) -> None:
        """Write the log's end.

        Args:
            report: answers the last verdict.
            exception: class of what ended the training; ``""`` where it ended by itself.
            global_step: optimizer steps made.
            remark: how a watch ended that nobody detached.
        """
        self._write(self._write_end, report, exception, global_step, remark)

    def _write_record(self, changes: tuple[Change, ...]) -> None:
        if self._journal is None:
            return
        self._journal.write(self._doctor.history.latest)
        if changes:
            self._journal.write_verdict(self._doctor.judge(self._run))

    def _write_end(self, report: Callable[[], Report], *how: Any) -> None:
        if self._journal is not None:
            self._journal.close(report(), *how)

    def _write(self, function: Callable[..., None], *args: Any) -> None:
        """A log that cannot be written must not end the watching, let alone the training."""
        try:
            function(*args)
            self._is_log_failing = False
        except Exception as error:
            if is_foreign(error):
                raise
            if not self._is_log_failing:
                warn(
                    f"gradwatch could not write its log ({type(error).__name__}: {error}); it goes "
                    "on watching, and writes again at the next record if that is possible."
                )
            self._is_log_failing = True
        for notice in self._journal.take_notices() if self._journal else ():
            warn(notice)

    def _call(self, listener: Callable[..., None], *args: Any) -> None:
        """Whoever listens must not end the watching either."""
        try:
            listener(*args)
        except Exception as error:
            if is_foreign(error):
                raise
            name = getattr(listener, "__qualname__", type(listener).__name__)
            warn(
                f"gradwatch called {name}, which raised {type(error).__name__}: {error}. It goes "
                "on watching; to stop a training, raise in the loop, as report().raise_if() does."
            )
            forget_frames(error)


def warn(text: str, stacklevel: int = 3) -> None:
    """Warn in a way that cannot stop a training, also where warnings are errors.

    Args:
        text: in full sentences.
        stacklevel: frames above, of the line that the warning names.
    """
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=stacklevel)
    except Warning:  # warnings are errors here, and an error of ours must not stop a training
        print(text, file=sys.stderr)
