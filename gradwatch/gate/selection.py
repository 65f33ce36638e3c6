"""Which runs of a log directory are judged, and up to which step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from gradwatch.errors import NothingToJudge
from gradwatch.log.reader import Run


@dataclass(frozen=True)
class Selection:
    """Runs and steps to judge; everything by default.

    A run is always judged from its first record on, since the rules hold what they see against how
    the training began. ``since`` therefore chooses among findings and not among records.

    Attributes:
        runs: ``fnmatch`` patterns for the names of runs; all when empty.
        last: only the run whose newest record, or start of a watch, is the newest of all.
        since: only findings that were still there at this global step or later count.
        until: records after this global step are left out, as if the training had ended there.
    """

    runs: tuple[str, ...] = ()
    last: bool = False
    since: int | None = None
    until: int | None = None

    def choose(self, runs: Sequence[Run]) -> list[Run]:
        """The runs to judge, with the records to judge.

        Args:
            runs: all runs of a log directory, those without records of gradwatch too.

        Raises:
            NothingToJudge: none is left.
        """
        named = [run for run in runs if not self.runs or self._matches(run)]
        self._require_each([run.label for run in runs])
        if self.last:
            named = [max(named, key=_find_wall_time)]
        chosen = [self._cut(run) for run in named]
        short = [old for old, new in zip(named, chosen, strict=True) if not self._reaches(old, new)]
        if short:
            raise NothingToJudge(
                f"Expected records of every run {self._name_window()}, got none in "
                f"{', '.join(map(_name_steps, short))}. Change --since, --until or --run."
            )
        return chosen

    def _require_each(self, labels: Sequence[str]) -> None:
        """A run that was asked for and is not there must not pass beside one that is."""
        for pattern in self.runs:
            if not any(fnmatchcase(label, pattern) for label in labels):
                raise NothingToJudge(
                    f"Expected a run that matches {pattern!r}, got only {', '.join(labels)}. "
                    "Give one of these, or a pattern."
                )

    def _matches(self, run: Run) -> bool:
        return any(fnmatchcase(run.label, pattern) for pattern in self.runs)

    def _cut(self, run: Run) -> Run:
        if self.until is None:
            return run
        kept = tuple(entry for entry in run.entries if entry.global_step <= self.until)
        return replace(run, entries=kept)

    def _reaches(self, whole: Run, cut: Run) -> bool:
        """A run without records of ours is nobody's to judge, whatever the steps."""
        return not len(whole) or (cut.last_step is not None and cut.last_step >= (self.since or 0))

    def _name_window(self) -> str:
        until = "" if self.until is None else f" to {self.until}"
        return f"from step {self.since or 0}{until}"


def _find_wall_time(run: Run) -> float:
    """Of its newest record or start; where nothing could be read, its directory's last change."""
    times = [entry.wall_time for entry in run.entries]
    times += [session.header.started_at for session in run.sessions if session.header is not None]
    if times or not run.damage:
        return max(times, default=0.0)
    try:
        return run.path.stat().st_mtime
    except OSError:
        return math.inf  # it may be the last one, and must not pass unseen


def _name_steps(run: Run) -> str:
    return f"{run.label}: {run.first_step} to {run.last_step}"
