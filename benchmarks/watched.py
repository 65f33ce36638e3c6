"""gradwatch as a detector, through its public interface only."""

from __future__ import annotations

from collections.abc import Sequence

import gradwatch
from benchmarks.rivals.probe import NAMED
from benchmarks.sighting import Sighting
from gradwatch.verdict.episodes import Change
from gradwatch.verdict.findings import Finding
from tests.zoo import Training


class GradWatch:
    """``gradwatch.watch`` around the run; a finding is detected when ``on_change`` is called."""

    alone = True

    def __init__(self, every_n_steps: int) -> None:
        self._every_n_steps = every_n_steps
        self._began: list[Finding] = []
        self._watch: gradwatch.Watch | None = None

    def attach(self, training: Training) -> None:
        self._watch = gradwatch.watch(
            training.model,
            training.optimizers,
            every_n_steps=self._every_n_steps,
            on_change=self._take,
        )

    def detach(self) -> None:
        if self._watch is not None:
            self._watch.detach()

    def judge(self, losses: Sequence[float]) -> list[Sighting]:
        """What the report finds, then what began and ended on the way.

        Raises:
            RuntimeError: gradwatch ended the watching by an error of its own.
        """
        assert self._watch is not None
        report = self._watch.report()
        if report.failure:
            raise RuntimeError(report.failure)
        return list_sightings(report.findings, self._began)

    def _take(self, change: Change) -> None:
        if change.began:
            self._began.append(change.finding)


def list_sightings(findings: Sequence[Finding], began: Sequence[Finding]) -> list[Sighting]:
    """What a verdict finds, then what began and ended on the way.

    Args:
        findings: of the verdict at the end.
        began: as each finding was when it was first reported.
    """
    lasting = [_translate(finding, began, lasting=True) for finding in findings]
    kinds = {finding.kind for finding in findings}
    passing = [finding for finding in began if finding.kind not in kinds]
    return lasting + [_translate(finding, began, lasting=False) for finding in passing]


def _translate(finding: Finding, began: Sequence[Finding], lasting: bool) -> Sighting:
    same_kind = [other for other in began if other.kind == finding.kind]
    same = [other for other in same_kind if other.first_step == finding.first_step] or same_kind
    step = min((other.last_step for other in same), default=finding.last_step) + 1
    return Sighting(finding.kind, finding.layers[:NAMED], step, finding.cause, lasting)
