"""What came of all runs under a log directory, judged from the records in their event files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from gradwatch.errors import NothingToJudge
from gradwatch.log.entries import Folder
from gradwatch.log.reader import Run, find_logs, read_folder
from gradwatch.run_judgement import RunJudgement, choose_thresholds, judge_run
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.findings import Verdict
from gradwatch.verdict.own_rules import list_kinds
from gradwatch.verdict.trials import Trial
from gradwatch.workers.pool import MOST, Workers, count_cores


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


BYTES_A_WORKER = 1 << 21
"""Of event files for each worker process, unless somebody says how many: to read and judge so much
of short runs takes 0.7 s, and a process starts in 0.4."""


def judge_logdir(
    logdir: str,
    overrides: Mapping[str, object] | None = None,
    allow_unfinished: bool = False,
    *,
    choose: Callable[[Sequence[Run]], Sequence[Run]] = list,
    workers: Workers | None = None,
) -> Judgement:
    """Judge every run under a log directory, each by the thresholds that its log names.

    A run that cannot be judged hides no other one's verdict.

    Args:
        logdir: a log directory, or one event file.
        overrides: thresholds by name, instead of those in the log.
        allow_unfinished: judge a run without an end up to its last record.
        choose: which of the runs to judge, and with which of their records.
        workers: started here, one for each core where there is enough to read, and of use for what
            comes after. Verdicts lack the history that figures are drawn from then, 250 kB a short
            run. ``None``: all is done in this process.

    Returns:
        Its outcomes are in the order of the chosen runs, and the same for any number of workers.

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
    judge = partial(judge_run, overrides=chosen, keeps_history=workers is None)
    ask = Workers() if workers is None else workers
    if workers is not None:
        workers.start(_count_workers(folders, workers.most))
    found = ask.map(read_folder, folders, _make_unread)
    runs = list(choose([run for part in found for run in part]))
    outcomes = list(ask.map(judge, runs, _make_unjudged))
    return Judgement(outcomes, _find_overrides(runs, chosen), allow_unfinished)


def _count_workers(folders: Sequence[Folder], most: int | None) -> int:
    """Never more than there are directories."""
    if most is not None:
        return min(most, len(folders))
    worth = sum(folder.count_bytes() for folder in folders) // BYTES_A_WORKER
    return min(count_cores(), MOST, len(folders), worth)


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
