"""``gradwatch baseline LOGDIR``: the findings of now, so that a gate fails for more only."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradwatch.cli.arguments import add_jobs, add_logdir, add_output, add_selection, add_thresholds
from gradwatch.cli.printing import write, write_file

_FILE = Path("gradwatch-baseline.json")


def add_baseline(commands: Any) -> None:
    """The command and its options.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    text = "Write down the findings of now, for gradwatch check --baseline."
    baseline = commands.add_parser("baseline", help=text, description=text)
    add_logdir(baseline)
    add_output(baseline, _FILE)
    add_selection(baseline)
    add_jobs(baseline)
    add_thresholds(baseline)
    baseline.set_defaults(run=_run_baseline)


def _run_baseline(options: argparse.Namespace) -> int:
    from gradwatch.cli.judging import judge
    from gradwatch.configuration import find_configuration
    from gradwatch.gate.baseline import Baseline
    from gradwatch.gate.outcome import HEALTHY, NOTHING_TO_JUDGE
    from gradwatch.workers.pool import Workers

    with Workers(options.jobs) as workers:
        judgement = judge(options, find_configuration(), workers)
    if judgement.unreadable:  # what was not read would be held to be well
        return NOTHING_TO_JUDGE
    baseline = Baseline.of_verdicts(judgement.verdicts)
    write_file(options.output, baseline.to_json())
    n_runs = len(baseline.runs)
    runs = f"{n_runs} run{'s' if n_runs != 1 else ''}"
    write(f"{options.output}: {len(baseline.findings)} known findings of {runs}\n")
    return HEALTHY
