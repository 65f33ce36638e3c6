"""Judgement -> outcome: which findings fail the job, and in what words the others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gradwatch.configuration import Configuration, is_milder
from gradwatch.gate.baseline import Baseline, KnownFinding, find_known
from gradwatch.judgement import Judgement
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.coverage import NOT_JUDGED
from gradwatch.verdict.findings import Finding, Verdict
from gradwatch.verdict.trials import Trial

HEALTHY, FINDINGS, NOTHING_TO_JUDGE = 0, 1, 2
"""Exit status of every command that judges."""

FAILS, KNOWN, IGNORED, MILDER, EARLIER, NOT_ASKED = (
    "fails",
    "known",
    "ignored",
    "below_min_severity",
    "before_since",
    "kind_not_asked_for",
)
"""What may be ruled of a finding. Only the first fails the job."""


@dataclass(frozen=True)
class Ruling:
    """A finding, and whether it fails the job.

    Attributes:
        finding: what was found.
        ruling: ``"fails"``, or why it does not.
        reason: in words; for one that fails against a baseline, what is new about it.
    """

    finding: Finding
    ruling: str = FAILS
    reason: str = ""

    @property
    def fails(self) -> bool:
        """Whether it fails the job."""
        return self.ruling == FAILS


@dataclass(frozen=True)
class RunOutcome:
    """One run at the gate.

    Attributes:
        verdict: all that was found.
        rulings: of its findings, in their order.
        gone: known findings that are not there any more.
        trials: the remedies that were tried on its model.
    """

    verdict: Verdict
    rulings: tuple[Ruling, ...] = ()
    gone: tuple[KnownFinding, ...] = ()
    trials: tuple[Trial, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether one of its findings fails the job."""
        return any(ruling.fails for ruling in self.rulings)

    @property
    def leaves_unjudged(self) -> bool:
        """Also beside findings that fail nothing: who waives those has not waived the rest."""
        verdict = self.verdict
        left = verdict.coverage.of_state(NOT_JUDGED) if verdict.coverage else ()
        return verdict.status == NOT_JUDGED or bool(left or verdict.failure)


@dataclass(frozen=True)
class Outcome:
    """What came of all runs, ready for any format.

    Attributes:
        status: exit status, one of ``HEALTHY``, ``FINDINGS`` and ``NOTHING_TO_JUDGE``.
        logdir: as given.
        runs: those that were judged.
        has_baseline: known findings were compared.
        without_records: names of runs without records of ours.
        unreadable: runs that could not be read, or only up to some point, with the reason.
        version: of gradwatch.
    """

    status: int
    logdir: str = ""
    runs: tuple[RunOutcome, ...] = ()
    has_baseline: bool = False
    without_records: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True)
class Gate:
    """What fails a job.

    Attributes:
        configuration: kinds, mildest severity, and what is ignored.
        baseline: what is known; ``None`` without one.
        since: findings last seen before this global step fail nothing.
        thresholds: by which "worse" is judged.
    """

    configuration: Configuration = field(default_factory=Configuration)
    baseline: Baseline | None = None
    since: int | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)

    def decide(self, judgement: Judgement, logdir: str = "") -> Outcome:
        """The outcome of all runs; findings outrank what could not be judged.

        Args:
            judgement: the verdicts, and what could not be read.
            logdir: as the user gave it, for the formats that name it.
        """
        names = [verdict.run for verdict in judgement.verdicts]
        runs = tuple(
            self._rule_run(verdict, names, judgement.trials.get(verdict.run, ()))
            for verdict in judgement.verdicts
        )
        return Outcome(
            status=_choose_status(judgement, runs),
            logdir=logdir,
            runs=runs,
            has_baseline=self.baseline is not None,
            without_records=tuple(judgement.without_records),
            unreadable=dict(judgement.unreadable),
        )

    def _rule_run(
        self, verdict: Verdict, names: Sequence[str], trials: tuple[Trial, ...]
    ) -> RunOutcome:
        known = self.baseline.of_run(verdict.run, names) if self.baseline else ()
        rulings = tuple(self._rule(finding, known) for finding in verdict.findings)
        seen = {id(row) for finding in verdict.findings for row in _overlap(finding, known)}
        gone = tuple(row for row in known if id(row) not in seen)
        return RunOutcome(verdict, rulings, gone, trials)

    def _rule(self, finding: Finding, known: Sequence[KnownFinding]) -> Ruling:
        agreed = self.configuration
        reason = agreed.find_reason(finding)
        if reason:
            return Ruling(finding, IGNORED, reason)
        if agreed.fail_on and finding.kind not in agreed.fail_on:
            return Ruling(finding, NOT_ASKED, f"fails on {', '.join(agreed.fail_on)} only")
        if is_milder(finding, agreed.min_severity):
            return Ruling(finding, MILDER, f"fails from {agreed.min_severity} on")
        if self.since is not None and finding.last_step < self.since:
            return Ruling(finding, EARLIER, f"last seen before step {self.since}")
        return self._compare(finding, known)

    def _compare(self, finding: Finding, known: Sequence[KnownFinding]) -> Ruling:
        if self.baseline is None:
            return Ruling(finding)
        rows = find_known(finding, known)
        if not rows:
            return Ruling(finding, FAILS, "new: not in the baseline")
        if all(row.is_exceeded_by(finding, self.thresholds) for row in rows):
            return Ruling(finding, FAILS, "worse than in the baseline")
        return Ruling(finding, KNOWN, "in the baseline")


def _overlap(finding: Finding, known: Sequence[KnownFinding]) -> list[KnownFinding]:
    """Known findings that are still there, if only in part."""
    layers = set(finding.layers)
    same = (row for row in known if row.kind == finding.kind)
    return [row for row in same if not row.layers or layers & set(row.layers)]


def _choose_status(judgement: Judgement, runs: Sequence[RunOutcome]) -> int:
    if any(run.fails for run in runs):
        return FINDINGS
    unjudged = any(run.leaves_unjudged for run in runs)
    return NOTHING_TO_JUDGE if judgement.unreadable or unjudged or not runs else HEALTHY
