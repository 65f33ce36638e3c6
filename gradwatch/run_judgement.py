"""What came of one run, judged from the records in its event files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gradwatch.errors import GradWatchError, UnreadableLog
from gradwatch.log.reader import Run
from gradwatch.records import StepRecord
from gradwatch.run_marks import RunEnd, RunHeader
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import diagnose
from gradwatch.verdict.findings import Verdict
from gradwatch.verdict.trials import Trial


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
            allow_unfinished: a run without an end is judged up to its last record, if it has any.
        """
        is_allowed = allow_unfinished and self.verdict is not None
        return self.problem or ("" if is_allowed else self.unfinished)


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


def judge_run(
    run: Run, overrides: Mapping[str, object], keeps_history: bool = True
) -> RunJudgement:
    """Judge one run; whatever is wrong with it is in what comes back.

    Args:
        run: with the records to judge.
        overrides: thresholds by name, instead of those in its log.
        keeps_history: the verdict has the history that figures are drawn from.
    """
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
        unfinished=describe_end(run),
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


def describe_end(run: Run) -> str:
    """Why the run is unfinished, in words; ``""`` when it is finished, or from before marks.

    Args:
        run: with or without records.
    """
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
    return "its latest training made no step" if _is_begun_in_vain(run) else ""


def _is_begun_in_vain(run: Run) -> bool:
    """Whether the newest watch began the training again and saw no step of it.

    What an earlier one saw proves nothing of it then; a finished training that is resumed, and has
    nothing left to do, begins behind the last record.
    """
    latest = run.sessions[-1]
    if latest.entries or latest.header is None or run.last_step is None:
        return False
    return latest.header.description.first_step <= run.last_step


def _list_notes(run: Run) -> tuple[str, ...]:
    notes = list(run.notes)
    if len(run) and run.header is None:
        notes.append("written before logs had a start and an end; judged up to its last record")
    if run.end is not None and run.end.how == "detached" and run.end.detail:
        notes.append(f"nobody detached the watch: {run.end.detail} at step {run.end.last_step}")
    ended = [session.end for session in run.sessions[:-1] if session.name]
    if None in ended:
        count = ended.count(None)
        notes.append(f"preempted and resumed {'once' if count == 1 else f'{count} times'}")
    return tuple(notes)
