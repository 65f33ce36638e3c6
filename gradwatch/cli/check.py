"""``gradwatch check LOGDIR``: the gate of a CI job."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwatch import __version__
from gradwatch.cli.arguments import (
    add_allow_unfinished,
    add_fail_on,
    add_jobs,
    add_logdir,
    add_output,
    add_selection,
    add_thresholds,
    parse_positive,
    parse_step,
)
from gradwatch.cli.printing import draw_parts, print_warning, write, write_file
from gradwatch.errors import GradWatchError

if TYPE_CHECKING:
    from gradwatch.configuration import Configuration
    from gradwatch.gate.outcome import Outcome
    from gradwatch.workers.pool import Workers

_FORMATS = ("text", "json", "markdown", "github", "sarif", "junit")
_SEVERITIES = ("warning", "critical")


def add_check(commands: Any) -> None:
    """The command and its options.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    check = commands.add_parser(
        "check",
        help="Judge the runs under a log directory; the exit status tells the result.",
        description="Judge every run under LOGDIR from the records in its event files. Settings "
        "stand in [tool.gradwatch] of pyproject.toml; the command line wins over them.",
        epilog="Exit status: 1 findings in any run; otherwise 2 nothing to judge, or a run that "
        "is damaged, unfinished, failed or not seen to learn; otherwise 0.",
    )
    add_logdir(check)
    add_fail_on(check)
    check.add_argument("--format", choices=_FORMATS, default="text", help="(%(default)s)")
    add_output(check)
    _add_limits(check)
    check.add_argument(
        "--rows",
        type=parse_positive,
        default=20,
        metavar="N",
        help="rows of a layer table beyond which its middle is left out (%(default)s)",
    )
    add_allow_unfinished(check)
    add_selection(check)
    add_jobs(check)
    add_thresholds(check)
    check.set_defaults(run=_run_check)


def _add_limits(check: argparse.ArgumentParser) -> None:
    """Which findings make it fail."""
    check.add_argument(
        "--baseline", type=Path, metavar="FILE", help="fail only for what is new or worse"
    )
    check.add_argument(
        "--min-severity", choices=_SEVERITIES, help="mildest severity that fails (warning)"
    )
    check.add_argument(
        "--since",
        type=parse_step,
        metavar="STEP",
        help="only findings that were still there at this step or later make it fail",
    )


def _run_check(options: argparse.Namespace) -> int:
    from gradwatch.gate.outcome import NOTHING_TO_JUDGE, Outcome
    from gradwatch.workers.pool import Workers

    with Workers(options.jobs) as workers:
        try:
            outcome = _find_outcome(options, workers)
        except GradWatchError as error:  # a file of the job before must not stand for this one
            print_warning(str(error))
            unread = {options.logdir: str(error)}
            outcome = Outcome(NOTHING_TO_JUDGE, options.logdir, unreadable=unread)
        _write_outcome(replace(outcome, version=__version__), options, workers)
    return outcome.status


def _find_outcome(options: argparse.Namespace, workers: Workers) -> Outcome:
    from gradwatch.cli.judging import choose_overrides, judge
    from gradwatch.configuration import find_configuration
    from gradwatch.gate.baseline import read_baseline
    from gradwatch.gate.outcome import Gate
    from gradwatch.thresholds import Thresholds

    configuration = _override(find_configuration(), options)
    baseline = read_baseline(options.baseline) if options.baseline else None
    overrides = choose_overrides(options, configuration, speaks=False)
    thresholds = Thresholds().replace(**overrides)
    gate = Gate(configuration, baseline, options.since, thresholds)
    return gate.decide(judge(options, configuration, workers), options.logdir)


def _override(configuration: Configuration, options: argparse.Namespace) -> Configuration:
    return replace(
        configuration,
        fail_on=tuple(options.fail_on) or configuration.fail_on,
        min_severity=options.min_severity or configuration.min_severity,
    )


def _write_outcome(outcome: Outcome, options: argparse.Namespace, workers: Workers) -> None:
    if options.format == "text":
        from gradwatch.output.text import list_parts, list_unread

        parts = list_parts(outcome, options.rows)
        text = draw_parts(parts, workers, to_stdout=options.output is None)
        if options.output is not None:  # where no stderr stands beside it
            text = "\n".join(filter(None, [text, *list_unread(outcome)]))
    else:
        from gradwatch.output import write_outcome

        text = write_outcome(outcome, options.format)
    if options.output is None:
        write(text)
    else:
        write_file(options.output, text if text.endswith("\n") else text + "\n")
