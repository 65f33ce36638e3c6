"""``gradwatch report LOGDIR``: the runs as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradwatch.cli.arguments import add_logdir, add_output, add_selection, add_thresholds
from gradwatch.cli.printing import write, write_file


def add_report(commands: Any) -> None:
    """The command and its options.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    text = "Write the runs under a log directory as one HTML page."
    report = commands.add_parser("report", help=text, description=text)
    add_logdir(report)
    add_output(report, Path("report.html"))
    add_selection(report)
    add_thresholds(report)
    report.set_defaults(run=_run_report)


def _run_report(options: argparse.Namespace) -> int:
    from gradwatch.cli.judging import judge
    from gradwatch.configuration import find_configuration
    from gradwatch.gate.outcome import HEALTHY, NOTHING_TO_JUDGE

    judgement = judge(options, find_configuration())
    if not judgement.verdicts:
        return NOTHING_TO_JUDGE
    from gradwatch.display.html import write_page
    from gradwatch.display.run_facts import RunFacts

    facts = {outcome.run: RunFacts(outcome.header, outcome.end) for outcome in judgement.outcomes}
    page = write_page(judgement.verdicts, trials=judgement.trials, facts=facts)
    write_file(options.output, page)
    write(f"{options.output}\n")
    return HEALTHY
