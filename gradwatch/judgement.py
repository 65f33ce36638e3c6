"""What came of all runs under a log directory, judged from the records in their event files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradwatch.errors import NothingToJudge
from gradwatch.log.reader import Run, read_runs
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import diagnose
from gradwatch.verdict.findings import Verdict
from gradwatch.verdict.trials import Trial


@dataclass
class Judgement:
    """What came of all runs under a log directory.

    Attributes:
        verdicts: of the runs that have records.
        trials: by run, the remedies that were tried on its model, best first.
        without_records: names of runs of someone else's, or in which no step was sampled.
        unreadable: runs that could not be read, or only up to some point, with the reason.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    trials: dict[str, tuple[Trial, ...]] = field(default_factory=dict)
    without_records: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def write_json(self, status: int) -> str:
        """One strict JSON object, whatever the number of runs; ``status`` is the exit status."""
        content = {
            "status": status,
            "runs": [json.loads(one.to_json()) for one in self.verdicts],
            "without_records": self.without_records,
            "unreadable": self.unreadable,
        }
        return json.dumps(content, indent=2, ensure_ascii=False)

    def render(self) -> Iterator[Any]:
        """What rich prints: each verdict, and after a sick one the remedies that were tried."""
        from gradwatch.display.terminal import render_report
        from gradwatch.display.trial_table import render_trials

        for verdict in self.verdicts:
            yield render_report(verdict)
            tried = self.trials.get(verdict.run, ())
            if tried and verdict.findings:
                yield render_trials(tried)


def judge_logdir(
    logdir: str,
    overrides: Mapping[str, object] | None = None,
    *,
    choose: Callable[[Sequence[Run]], Sequence[Run]] = list,
) -> Judgement:
    """Judge every run under a log directory, or those that ``choose`` makes of them.

    Args:
        logdir: a log directory, or one event file.
        overrides: thresholds by name, instead of the defaults.
        choose: which of the runs to judge, and with which of their records.

    Raises:
        NothingToJudge: there is no such directory, or no event file below it.
    """
    runs = read_runs(logdir)
    if not runs:
        raise NothingToJudge(
            f"Expected event files under {logdir!r}, got none. "
            "Give the directory that was passed as logdir."
        )
    thresholds = Thresholds().replace(**dict(overrides or {}))
    judgement = Judgement()
    for run in choose(runs):
        if run.damage:
            judgement.unreadable[run.label] = "; ".join(run.damage)
        try:
            if len(run):
                judgement.verdicts.append(diagnose(run.records(), thresholds, run.label))
                judgement.trials[run.label] = run.trials
            elif not run.damage:
                judgement.without_records.append(run.label)
        except (NothingToJudge, OSError) as error:
            judgement.unreadable[run.label] = str(error)
    return judgement
