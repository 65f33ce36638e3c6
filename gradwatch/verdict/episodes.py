"""Signs that last become findings: episodes, their beginning and their end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from gradwatch.thresholds import Thresholds
from gradwatch.verdict.advice import suggest_remedy
from gradwatch.verdict.findings import Finding
from gradwatch.verdict.rule import Rule, Sign

LEAST_RECORDS = 2
"""Sampled steps that are enough when they lie far apart: the least that can."""


@dataclass
class Episode:
    """What is unhealthy in one region, from its first sign on.

    Attributes:
        rule, sign: what it is, as last seen.
        first_step, last_step: global steps of the first and the last sign.
        lasted: sampled steps with the sign.
        missed: sampled steps in a row without it since.
        causes: votes of the first signs.
        voters: the last sign that voted for each: later ones may tell of what it has led to.
        confirmed: it has lasted long enough to be a finding.
        ended: it was confirmed and has gone.
    """

    rule: Rule
    sign: Sign
    first_step: int
    last_step: int
    lasted: int = 1
    missed: int = 0
    causes: Counter[str | None] = field(default_factory=Counter)
    voters: dict[str | None, Sign] = field(default_factory=dict)
    confirmed: bool = False
    ended: bool = False

    def describe(self, severity: str = "") -> Finding:
        """As a finding.

        Args:
            severity: in place of the sign's own; empty: that one.
        """
        cause, sign = self.causes.most_common(1)[0][0], self.sign.explained()
        said = sign if sign.cause == cause else self.voters.get(cause, sign)
        return Finding(
            code=self.rule.code,
            kind=self.rule.kind,
            severity=severity or sign.severity,
            cause=cause,
            layers=sign.layers,
            first_step=self.first_step,
            last_step=self.last_step,
            observed=sign.observed,
            threshold=sign.threshold,
            message=said.message,
            remedy=said.remedy
            or suggest_remedy(self.rule.kind, cause, said.layers, said.topology, said.faults),
            source=said.find_source(),
        )


@dataclass(frozen=True)
class Change:
    """A finding that began or ended with the newest record."""

    finding: Finding
    began: bool


class Tracker:
    """Episodes of one run.

    Args:
        thresholds: how long a sign has to last to be a finding, and to be absent to have gone.
        tells_changes: findings that begin or end are described and returned.
    """

    def __init__(self, thresholds: Thresholds, tells_changes: bool = True) -> None:
        self._thresholds = thresholds
        self._tells_changes = tells_changes
        self._open: list[Episode] = []
        self.past: list[Episode] = []

    @property
    def current(self) -> list[Episode]:
        """Confirmed episodes that have not ended."""
        return [episode for episode in self._open if episode.confirmed]

    @property
    def is_waiting(self) -> bool:
        """Whether a sign has shown that must last before it is a finding, or that more records
        would decide."""
        return any(
            episode.sign.is_open or (not episode.confirmed and episode.sign.severity != "note")
            for episode in self._open
        )

    def update(
        self,
        rule: Rule,
        signs: list[Sign],
        global_step: int,
        sees: Callable[[Sign], bool] = lambda sign: True,
    ) -> list[Change]:
        """Take in what one rule saw at one step.

        Args:
            rule: that was asked.
            signs: what it saw, one per region.
            global_step: of the record; rises.
            sees: whether the step shows anything of a sign's layers: otherwise nothing is missed.

        Returns:
            Findings that began or ended with this step.
        """
        mine = [episode for episode in self._open if episode.rule is rule]
        if not (signs or mine):
            return []
        changes = [self._meet(rule, sign, mine, global_step) for sign in signs]
        missing = (
            episode for episode in mine if episode.last_step != global_step and sees(episode.sign)
        )
        changes += [self._miss(episode, global_step) for episode in missing]
        return [change for change in changes if change is not None]

    def confirm(self, kind: str) -> list[Change]:
        """Believe what has shown so far of a kind: no further step can show more.

        Args:
            kind: of rules.

        Returns:
            Findings that began by that.
        """
        found = [
            episode for episode in self._open if episode.rule.kind == kind and not episode.confirmed
        ]
        for episode in found:
            episode.confirmed = True
        changes = [self._tell(episode, began=True) for episode in found]
        return [change for change in changes if change is not None]

    def _tell(self, episode: Episode, began: bool) -> Change | None:
        """A change that somebody wants to hear of; notes wake nobody."""
        is_heard = self._tells_changes and episode.sign.severity != "note"
        return Change(episode.describe(), began) if is_heard else None

    def _meet(self, rule: Rule, sign: Sign, mine: list[Episode], global_step: int) -> Change | None:
        episode = next((episode for episode in mine if _belongs(episode, sign, global_step)), None)
        if episode is None:
            episode = Episode(rule, sign, global_step, global_step)
            self._open.append(episode)
        else:
            episode.sign, episode.last_step = sign, global_step
            episode.lasted += 1
            episode.missed = 0
        if sum(episode.causes.values()) < self._thresholds.cause_votes:
            episode.sign = sign.explained()
            episode.causes[episode.sign.cause] += 1
            episode.voters[episode.sign.cause] = episode.sign
        if episode.confirmed or not self._has_lasted(episode):
            return None
        episode.confirmed = True
        return self._tell(episode, began=True)

    def _has_lasted(self, episode: Episode) -> bool:
        needed = episode.rule.persistence or self._thresholds.persistence
        steps = episode.last_step - episode.first_step
        spans = episode.lasted >= LEAST_RECORDS and steps >= self._thresholds.persistence_steps
        return episode.sign.looks_back or spans or episode.lasted >= needed

    def _has_gone(self, episode: Episode, global_step: int) -> bool:
        if episode.rule.withdraws:
            return True
        absent = global_step - episode.last_step
        spans = episode.missed >= LEAST_RECORDS and absent >= self._thresholds.persistence_steps
        unhealthy = episode.last_step - episode.first_step
        long_enough = absent >= self._thresholds.recovery_share * unhealthy
        return long_enough and (spans or episode.missed >= self._thresholds.persistence)

    def _miss(self, episode: Episode, global_step: int) -> Change | None:
        episode.missed += 1
        if not episode.confirmed:
            self._open.remove(episode)
            return None
        if not self._has_gone(episode, global_step):
            return None
        self._open.remove(episode)
        episode.ended = True
        episode.sign = episode.sign.explained()  # lets go of the record
        self.past.append(episode)
        return self._tell(episode, began=False)


def _belongs(episode: Episode, sign: Sign, global_step: int) -> bool:
    """Whether a sign continues an episode: the same layers, or the very next step."""
    same = (episode.sign.severity == "note") == (sign.severity == "note")
    meets = episode.missed == 0 or bool(set(episode.sign.layers) & set(sign.layers))
    return same and meets and episode.last_step != global_step
