"""What came of all runs under a log directory, judged from the records in their event files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from gradwatch.errors import GradWatchError, NothingToJudge, UnreadableLog
from gradwatch.log.entries import Folder
from gradwatch.log.reader import Run, find_logs, read_folder
from gradwatch.records import StepRecord
from gradwatch.run_marks import RunEnd, RunHeader
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import diagnose
from gradwatch.verdict.findings import Verdict
from gradwatch.verdict.own_rules import list_kinds
from gradwatch.verdict.trials import Trial
from gradwatch.workers.pool import Workers, count_cores


@dataclass(frozen=True)
class RunJudgement:
    """What came of one run.

    Attributes:
        run: its name.
        verdict: over the records that could be read; ``None`` without any.
        header: how the watch began; ``None`` in logs from before there were marks.
        end: how it ended; ``None`` when it has not.
        problem: why the records are no proof whatever the options: damage, or an error of ours.
        unfinished: why they are no proof unless unfinished runs are allowed.
        notes: worth a line, and no more.
        trials: the remedies that were tried on its model, best first.
    """

    run: str
    verdict: Verdict | None = None
    header: RunHeader | None = None
    end: RunEnd | None = None
    problem: str = ""
    unfinished: str = ""
    notes: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()

    @property
    def is_foreign(self) -> bool:
        """Nothing of gradwatch's is there: somebody else's run."""
        return not (self.verdict or self.header or self.problem or self.unfinished)

    def find_obstacle(self, allow_unfinished: bool = False) -> str:
        """Why this run is not judged, in words; ``""`` when it is.

        Args:
            allow_unfinished: a run without an end is judged up to its last record.
        """
        return self.problem or ("" if allow_unfinished else self.unfinished)


@dataclass
class Judgement:
    """What came of all runs under a log directory.

    Attributes:
        outcomes: one per run, by name.
        overrides: thresholds that were given and that differ from those of some training.
        allow_unfinished: a run without an end counts up to its last record.
    """

    outcomes: list[RunJudgement] = field(default_factory=list)
    overrides: Mapping[str, object] = field(default_factory=dict)
    allow_unfinished: bool = False

    @property
    def verdicts(self) -> list[Verdict]:
        """Those that may be shown: of runs that were judged, or that have findings anyway."""
        return [
            outcome.verdict
            for outcome in self.outcomes
            if outcome.verdict is not None
            and (outcome.verdict.findings or not outcome.find_obstacle(self.allow_unfinished))
        ]

    @property
    def trials(self) -> dict[str, tuple[Trial, ...]]:
        """By run, the remedies that were tried on its model, best first."""
        return {outcome.run: outcome.trials for outcome in self.outcomes if outcome.trials}

    @property
    def without_records(self) -> list[str]:
        """Names of somebody else's runs."""
        return [outcome.run for outcome in self.outcomes if outcome.is_foreign]

    @property
    def unreadable(self) -> dict[str, str]:
        """Runs that are no proof, with the reason."""
        found = (
            (outcome.run, outcome.find_obstacle(self.allow_unfinished)) for outcome in self.outcomes
        )
        return {run: reason for run, reason in found if reason}

    @property
    def notes(self) -> dict[str, str]:
        """What is worth a line, by run."""
        return {outcome.run: "; ".join(outcome.notes) for outcome in self.outcomes if outcome.notes}


BYTES_A_WORKER = 1 << 20
"""Of event files for each worker process, unless somebody says how many: to read and judge so much
of short runs takes as long as the start of a process, 0.4 s."""


def judge_logdir(
    logdir: str,
    overrides: Mapping[str, object] | None = None,
    allow_unfinished: bool = False,
    *,
    choose: Callable[[Sequence[Run]], Sequence[Run]] = list,
    keeps_history: bool = True,
    jobs: int | None = 1,
) -> Judgement:
    """Judge every run under a log directory, each by the thresholds that its log names.

    A run that cannot be judged hides no other one's verdict.

    Args:
        logdir: a log directory, or one event file.
        overrides: thresholds by name, instead of those in the log.
        allow_unfinished: judge a run without an end up to its last record.
        choose: which of the runs to judge, and with which of their records.
        keeps_history: verdicts have the history that figures are drawn from, 250 kB a short run.
        jobs: worker processes; 1: none. ``None``: as many as there are cores, where there is
            enough to read. A history does not leave its process: with it there are none.

    Returns:
        Its outcomes are in the order of the chosen runs, and the same for any number of processes.

    Raises:
        NothingToJudge: there is no such directory, or no event file below it.
        InvalidInput: no such threshold, or a value that it cannot have.
    """
    chosen = dict(overrides or {})
    Thresholds().replace(**chosen)
    folders = find_logs(logdir)
    if not folders:
        raise NothingToJudge(
            f"Expected event files under {logdir!r}, got none. "
            "Give the directory that was passed as logdir."
        )
    list_kinds()  # what workers say of kinds of other packages is shown by this process
    judge = partial(_judge_run, overrides=chosen, keeps_history=keeps_history)
    with Workers(1 if keeps_history else _count_workers(folders, jobs)) as workers:
        found = workers.map(read_folder, folders, _make_unread)
        runs = list(choose([run for part in found for run in part]))
        outcomes = list(workers.map(judge, runs, _make_unjudged))
    return Judgement(outcomes, _find_overrides(runs, chosen), allow_unfinished)


def _count_workers(folders: Sequence[Folder], jobs: int | None) -> int:
    """Never more than there are directories."""
    if jobs is not None:
        return min(jobs, len(folders))
    worth = sum(folder.count_bytes() for folder in folders) // BYTES_A_WORKER
    return min(count_cores(), len(folders), worth)


def _make_unread(folder: Folder, reason: str) -> list[Run]:
    return [Run(folder.name, folder.path, damage=(f"{reason}; {_LOOK_ALONE}",))]


def _make_unjudged(run: Run, reason: str) -> RunJudgement:
    return RunJudgement(run.label, header=run.header, problem=f"{reason}; {_LOOK_ALONE}")


_LOOK_ALONE = "judge it alone, with --run NAME --jobs 1 and all the memory"


def _find_overrides(runs: Sequence[Run], given: Mapping[str, object]) -> dict[str, object]:
    """What some run was not trained with."""
    if not given:
        return {}
    trained = [choose_thresholds(run.header, {}) for run in runs]
    return {
        k: v for k, v in given.items() if any(getattr(thresholds, k) != v for thresholds in trained)
    }


def judge_latest(directory: str | os.PathLike[str]) -> RunJudgement | None:
    """The run that was written last into this very directory; ``None`` where there is none.

    Args:
        directory: of one training; runs in directories below it are left out.

    Raises:
        NothingToJudge: there is no such directory, or no event file below it.
    """

    def choose(runs: Sequence[Run]) -> Sequence[Run]:
        return [run for run in runs if run.name.partition("#")[0] == "."][-1:]

    outcomes = judge_logdir(os.fspath(directory), choose=choose).outcomes
    return outcomes[0] if outcomes else None


def choose_thresholds(header: RunHeader | None, overrides: Mapping[str, object]) -> Thresholds:
    """Those in force at the training, the defaults where the log names none; then overrides.

    Args:
        header: start of the log; ``None`` in logs from before there were marks.
        overrides: fields by name.

    Raises:
        InvalidInput: no such threshold, or a value that it cannot have.
    """
    thresholds = header.thresholds if header else Thresholds()
    return thresholds.replace(**overrides) if overrides else thresholds


def _judge_run(
    run: Run, overrides: Mapping[str, object], keeps_history: bool = True
) -> RunJudgement:
    problems = list(run.damage)
    verdict: Verdict | None = None
    trials: tuple[Trial, ...] = ()
    try:
        if len(run):
            records = _read_on(run, problems)
            verdict = diagnose(records, choose_thresholds(run.header, overrides), run.label)
            verdict = replace(
                verdict,
                unstepped=run.end.unstepped if run.end else 0,
                history=verdict.history if keeps_history else None,
            )
            trials = _read_trials(run, problems)
    except (GradWatchError, OSError) as error:
        problems.append(str(error))
    except Exception as error:  # one run that we fail on must not hide the others
        problems.append(f"gradwatch failed on it: {type(error).__name__}: {error}")
    if run.end is not None and run.end.how == "failure":
        problems.append(f"an error of gradwatch's own ended the watching: {run.end.detail}")
    if verdict is not None and not verdict.records:
        verdict = None
    return RunJudgement(
        run=run.label,
        verdict=verdict,
        header=run.header,
        end=run.end,
        problem="; ".join(problems),
        unfinished=_describe_end(run),
        notes=_list_notes(run),
        trials=trials,
    )


def _read_on(run: Run, problems: list[str]) -> Iterable[StepRecord]:
    """The records up to the first that cannot be read, which is a problem of the run."""
    try:
        yield from run.records()
    except (UnreadableLog, OSError) as error:
        problems.append(str(error))


def _read_trials(run: Run, problems: list[str]) -> tuple[Trial, ...]:
    try:
        return run.trials
    except (UnreadableLog, OSError) as error:
        problems.append(str(error))
        return ()


def _describe_end(run: Run) -> str:
    """Why the run is unfinished, in words; ``""`` when it is finished, or from before marks."""
    if run.header is None:
        return ""
    if run.end is None:
        last = (
            "no record" if run.last_step is None else f"its last record is of step {run.last_step}"
        )
        return f"it has no end: still running, or killed ({last})"
    if run.end.how == "exception":
        return f"{run.end.detail} ended the training at step {run.end.last_step}"
    if run.gaps:
        lost = sum(gap.last - gap.first + 1 for gap in run.gaps)
        return f"{lost} records could not be written ({run.gaps[-1].reason})"
    if not len(run):
        return "no step was recorded"
    return ""


def _list_notes(run: Run) -> tuple[str, ...]:
    notes = list(run.notes)
    if len(run) and run.header is None:
        notes.append("written before logs had a start and an end; judged up to its last record")
    if run.end is not None and run.end.how == "detached" and run.end.detail:
        notes.append(f"nobody detached the watch: {run.end.detail} at step {run.end.last_step}")
    ended = [session.end for session in run.sessions[:-1] if session.name]
    if None in ended:
        notes.append(f"{ended.count(None)} times preempted and resumed")
    return tuple(notes)
