"""A directory's records as runs: whose they are, in which order, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gradwatch.errors import UnreadableLog
from gradwatch.log.resume import Entry, Stretch, split_streams
from gradwatch.run_marks import Mark, RunEnd, RunGap, RunHeader

MAX_SESSIONS = 1024
"""Watches that wrote into one directory: a training that was preempted as often is none."""

MAX_STREAMS = 64
"""Watches that wrote into one directory at the same time."""


@dataclass
class WrittenSession:
    """One watch's share of the log.

    Attributes:
        name: 8 hexadecimal digits; ``""`` for records from before there were sessions.
        header: its start mark, if that was found.
        end: its end mark, if there is one.
        gaps: records that it could not write.
        entries: its records, in the order of their numbers.
    """

    name: str
    header: RunHeader | None = None
    end: RunEnd | None = None
    gaps: list[RunGap] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @property
    def order(self) -> tuple[int, float]:
        """Sorts sessions as they began: by the files that each found, which no clock can change."""
        header = self.header
        return (-1, 0.0) if header is None else (header.files_before, header.started_at)

    def settle(self) -> None:
        """Bring the records into order; a record that stands twice, as in a copied file, counts
        once."""
        if self.name:
            by_number = {entry.number: entry for entry in reversed(self.entries)}
            self.entries = [by_number[number] for number in sorted(by_number)]

    def find_missing(self) -> str:
        """What is missing of it and should be there, in words; ``""`` when it is whole."""
        if self.name and self.header is None:
            return f"the start mark of session {self.name} is missing"
        known = sorted({entry.number for entry in self.entries})
        expected = self._count_expected()
        expected -= sum(gap.last - gap.first + 1 for gap in self.gaps)
        outside = [number for number in known if not self._is_lost(number)]
        if not self.name or len(outside) >= expected:
            return ""
        return f"{expected - len(outside)} records of session {self.name} are missing"

    def _count_expected(self) -> int:
        last = max(
            [entry.number for entry in self.entries] + [gap.last for gap in self.gaps] + [-1]
        )
        return max(last + 1, self.end.records if self.end else 0)

    def _is_lost(self, number: int) -> bool:
        return any(gap.first <= number <= gap.last for gap in self.gaps)

    def is_beside(self, other: WrittenSession) -> bool:
        """Whether the two are of different trainings at the same time, and not one resumed.

        Args:
            other: a session of the same directory.
        """
        if not (self.entries and other.entries):
            return False
        mine, theirs = Stretch(self.entries), Stretch(other.entries)
        if self._names(other) or other._names(self):
            return mine.overlaps(theirs)
        if self._is_clock_back or other._is_clock_back:
            return False
        return mine.is_beside(theirs)

    def _names(self, other: WrittenSession) -> bool:
        return self.header is not None and other.name in self.header.beside

    @property
    def _is_clock_back(self) -> bool:
        return self.header is not None and self.header.is_clock_back


@dataclass(frozen=True)
class SessionChain:
    """One run of a directory: sessions that follow each other.

    Attributes:
        sessions: in the order in which they began; the last one says how the run ended.
    """

    sessions: tuple[WrittenSession, ...] = ()

    @property
    def written(self) -> tuple[Entry, ...]:
        """All its records, as they were written one session after the other."""
        return tuple(entry for session in self.sessions for entry in session.entries)


def arrange(entries: Sequence[Entry], marks: Iterable[Mark]) -> list[SessionChain]:
    """Records and marks of a directory as runs; at least one, which may be empty.

    Args:
        entries: of records, in the order of files and of writing.
        marks: of starts, ends and gaps.

    Raises:
        UnreadableLog: more sessions, or more at the same time, than any training has.
    """
    streams = [[WrittenSession("", entries=list(stream))] for stream in _split_unnamed(entries)]
    for session in _gather_sessions(entries, marks):
        home = next((s for s in streams if not any(session.is_beside(p) for p in s)), None)
        if home is None:
            streams.append([session])
        else:
            home.append(session)
        _limit(len(streams), MAX_STREAMS, "watches at the same time")
    return [SessionChain(tuple(stream)) for stream in streams] or [SessionChain()]


def _split_unnamed(entries: Sequence[Entry]) -> list[list[Entry]]:
    unnamed = sorted(
        (entry for entry in entries if not entry.session), key=lambda entry: entry.wall_time
    )
    streams = split_streams(unnamed)
    _limit(len(streams), MAX_STREAMS, "watches at the same time")
    return streams


def _gather_sessions(entries: Sequence[Entry], marks: Iterable[Mark]) -> list[WrittenSession]:
    found: dict[str, WrittenSession] = {}
    for mark in marks:
        session = found.setdefault(mark.session, WrittenSession(mark.session))
        if isinstance(mark, RunHeader):
            session.header = session.header or mark
        elif isinstance(mark, RunEnd):
            session.end = mark
        elif mark not in session.gaps:
            session.gaps.append(mark)
    for entry in entries:
        if entry.session:
            found.setdefault(entry.session, WrittenSession(entry.session)).entries.append(entry)
    _limit(len(found), MAX_SESSIONS, "sessions")
    for session in found.values():
        session.settle()
    return sorted(found.values(), key=lambda session: session.order)


def _limit(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise UnreadableLog(
            f"Expected at most {limit} {what} in one directory, got {count}. "
            "The event files are damaged; run the training again."
        )
