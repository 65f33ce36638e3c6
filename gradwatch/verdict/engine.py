"""History -> verdict: runs the rules at every record and follows what they see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from gradwatch.evidence.gradient_flow import Reading, read_flow
from gradwatch.evidence.history import History
from gradwatch.evidence.progress import shows_no_fall_in_few_records
from gradwatch.records import StepRecord
from gradwatch.schema import kinds
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.consequences import (
    drop_consequences,
    inherit_lack,
    inherit_mishandling,
)
from gradwatch.verdict.course import Course, describe_course
from gradwatch.verdict.episodes import Change, Episode, Tracker
from gradwatch.verdict.findings import Finding, Trained, Verdict
from gradwatch.verdict.layer_summary import count_trained, summarise_layers
from gradwatch.verdict.own_rules import SEVERITIES, guard_rule, list_rules
from gradwatch.verdict.param_states import measure_coverage
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.verdict.rules import DEFAULT_RULES

BATCH = 256
"""Records whose flow is computed together when a finished run is judged, ..."""

BATCH_LAYERS = 1 << 16
"""... unless they have so many layers together: their numbers take 8 MB then."""


class Doctor:
    """Judges one run, record by record; bounded memory however long the run.

    Args:
        thresholds: when a measurement counts; the defaults fit most runs.
        rules: what is looked for; by default gradwatch's own and those that
            installed packages name. One that is not gradwatch's own ends at its first exception.
        tells_changes: somebody reads what begins and ends; otherwise none of it is described.
    """

    def __init__(
        self,
        thresholds: Thresholds | None = None,
        rules: Sequence[Rule] | None = None,
        tells_changes: bool = True,
    ) -> None:
        self.thresholds = thresholds or Thresholds()
        self._failures: list[str] = []
        own = {rule.code: rule for rule in DEFAULT_RULES}
        self.rules = tuple(
            rule if own.get(rule.code) == rule else guard_rule(rule, self._failures.append)
            for rule in (list_rules() if rules is None else rules)
        )
        for rule in self.rules:
            kinds.register_kind(rule.kind, rule.title, rule.code)
        self.history = History(thresholds=self.thresholds)
        self._tracker = Tracker(self.thresholds, tells_changes)
        self._ignored: set[str] = set()

    @property
    def is_waiting(self) -> bool:
        """Whether a sign has shown that must last before it is a finding."""
        return self._tracker.is_waiting

    @property
    def lacks_losses(self) -> bool:
        """Whether the loss shows no fall, in fewer records than one is looked for in."""
        return shows_no_fall_in_few_records(self.history)

    def observe(self, record: StepRecord) -> tuple[Change, ...]:
        """Take in the next record.

        Args:
            record: newer than all before.

        Returns:
            What began or ended with it.

        Example:
            >>> from gradwatch.evidence.worked_example import make_record
            >>> doctor = Doctor()
            >>> [doctor.observe(make_record(step)) for step in range(3)]
            [(), (), ()]
        """
        return self.observe_all([record])

    def observe_all(self, records: Sequence[StepRecord]) -> tuple[Change, ...]:
        """Take in several records, whose facts are worked out together.

        Args:
            records: newer than all before, in order.

        Returns:
            What began or ended with them.
        """
        before = self.history.latest.record if self.history.count else None
        readings = read_flow(records, before)
        return tuple(change for reading in readings for change in self._examine(reading))

    @np.errstate(all="ignore")
    def _examine(self, reading: Reading) -> tuple[Change, ...]:
        self.history.extend_with(reading)
        step = reading.record.global_step
        changes: list[Change] = []
        broken = False  # once NaN is there, no number means anything to the other rules
        for rule in self.rules:
            if broken and rule.kind != "exploding":
                continue
            kept = self._ask(rule)
            if kept or not broken:
                changes += self._tracker.update(rule, kept, step, self._sees)
            if kept and rule.kind == "nonfinite":
                broken |= any(sign.severity != "note" for sign in kept)
        if broken:
            changes += self._tracker.confirm("exploding")
        return tuple(changes)

    def _ask(self, rule: Rule) -> list[Sign]:
        """What a rule sees at the newest record, and nobody has asked to be silent about."""
        signs = rule.examine(self.history, self.thresholds)
        if not signs:
            return signs
        if rule.kind in self.thresholds.ignore_kinds:
            self._ignored.update(layer for sign in signs for layer in sign.layers)
            return []
        topology = self.history.latest.topology
        heard = [self._silence(sign) for sign in signs]
        return [sign.change(topology=topology) for sign in heard if sign is not None]

    def _sees(self, sign: Sign) -> bool:
        """Whether the newest record shows anything of these layers; a turn of others does not."""
        record, names = self.history.latest.record, set(sign.layers)
        layers = record.layer_set.layers
        shown = [index for index, layer in enumerate(layers) if layer.fqn in names]
        return not shown or not bool(np.isnan(record.layer_values[:, shown]).all())

    def _silence(self, sign: Sign) -> Sign | None:
        patterns = self.thresholds.ignore_layers
        if not patterns:
            return sign
        kept = [layer for layer in sign.layers if not any(fnmatchcase(layer, p) for p in patterns)]
        return sign if len(kept) == len(sign.layers) else None if not kept else _trim(sign, kept)

    def judge(self, run: str = "", failure: str = "", unstepped: int = 0) -> Verdict:
        """The verdict over all records so far.

        Args:
            run: its name; ``""`` where it has none.
            failure: error of gradwatch's own that ended the watching early; ``""``: none.
            unstepped: steps' worth of backward passes since the last step.
        """
        history, current = self.history, self._tracker.current
        findings = [episode.describe() for episode in current if episode.sign.severity != "note"]
        if findings:
            findings = inherit_lack(drop_consequences(findings, history.latest), history.latest)
        notes = [episode.describe() for episode in current if episode.sign.severity == "note"]
        past = [_describe_past(episode) for episode in self._tracker.past]
        notes += [note for note in past if not _goes_on(note, findings)]
        findings = sorted(_inherit_cause(inherit_mishandling(findings)), key=_rank)
        flagged = {layer for finding in findings for layer in finding.layers}
        coverage = measure_coverage(history, findings, notes, self._ignored, self.thresholds)
        return Verdict(
            coverage=coverage,
            findings=tuple(findings),
            notes=tuple(notes),
            run=run,
            first_step=history.first_step,
            last_step=history.last_step,
            records=history.count,
            layers=summarise_layers(history.latest, flagged) if history.count else (),
            trains=count_trained(history) if history.count else Trained(),
            unseen=(*self._list_notes(), *self._failures),
            failure=failure,
            unstepped=unstepped if unstepped >= self.thresholds.unstepped_steps else 0,
            course=describe_course(history, bool(findings)) if history.count else Course(),
            history=history,
        )

    def _list_notes(self) -> tuple[str, ...]:
        return self.history.latest.topology.layer_set.notes if self.history.count else ()


def _trim(sign: Sign, layers: list[str]) -> Sign:
    return replace(sign, layers=tuple(layers))


def _inherit_cause(findings: list[Finding]) -> list[Finding]:
    """A NaN that large steps or nothing in particular led to has the cause of the explosion."""
    blast = next((finding for finding in findings if finding.kind == "exploding"), None)
    if blast is None or not blast.cause:
        return findings
    weak = (None, "learning_rate")
    return [
        replace(finding, cause=blast.cause, remedy=blast.remedy)
        if finding.kind == "nonfinite" and finding.cause in weak
        else finding
        for finding in findings
    ]


def _describe_past(episode: Episode) -> Finding:
    finding = episode.describe(severity="note")
    text = f"Recovered after step {finding.last_step}: {finding.message}"
    return Finding(**{**finding.to_dict(), "layers": finding.layers, "message": text})


def _goes_on(note: Finding, findings: list[Finding]) -> bool:
    """Whether what a note speaks of has become a finding, or is one again: it has not recovered."""
    return any(
        finding.code == note.code and not set(note.layers).isdisjoint(finding.layers)
        for finding in findings
    )


def _rank(finding: Finding) -> tuple[int, int]:
    return SEVERITIES.index(finding.severity), kinds.rank_kind(finding.kind)


def diagnose(
    records: Iterable[StepRecord], thresholds: Thresholds | None = None, run: str = ""
) -> Verdict:
    """Judge a finished run: the same verdict as ``Doctor.observe`` on each record in turn.

    Args:
        records: in order of training.
        thresholds: when a measurement counts; the defaults fit most runs.
        run: its name.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> diagnose((make_record(step) for step in range(10)), run="example")
        <Verdict of example: healthy; 10 records, steps 0 to 9>
        >>> left = {"stale_grad_l2_norm": 0.5}  # gradients that nobody clears
        >>> diagnose(make_record(step, param=left) for step in range(10))
        <Verdict: unhealthy, GW802 mishandled; 10 records, steps 0 to 9>
    """
    doctor = Doctor(thresholds, tells_changes=False)
    batch: list[StepRecord] = []
    for record in records:
        batch.append(record)
        if len(batch) * (1 + len(record.layer_set.layers)) >= BATCH_LAYERS or len(batch) == BATCH:
            doctor.observe_all(batch)
            batch = []
    doctor.observe_all(batch)
    verdict = doctor.judge(run)
    for reading in doctor.history.window:  # somebody may hold thousands of verdicts
        reading.forget()
    return verdict
