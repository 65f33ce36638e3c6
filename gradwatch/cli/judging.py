"""Runs of a log directory, judged by the repository's configuration and the command line."""

from __future__ import annotations

import argparse

from gradwatch.cli.printing import print_warning
from gradwatch.configuration import Configuration
from gradwatch.errors import NothingToJudge
from gradwatch.gate.selection import Selection
from gradwatch.judgement import Judgement, judge_logdir
from gradwatch.workers.pool import Workers


def choose_overrides(
    options: argparse.Namespace, configuration: Configuration, speaks: bool = True
) -> dict[str, object]:
    """Thresholds of the command line over the configuration's; what is overridden is said.

    Args:
        options: of a command with ``add_thresholds``.
        configuration: of the repository.
        speaks: say on stderr which of the configuration's thresholds are overridden.

    Returns:
        Values by name of the threshold; the command line's win.
    """
    given = dict(options.threshold)
    for name in sorted(configuration.thresholds.keys() & given.keys()):
        if speaks and configuration.thresholds[name] != given[name]:
            old, new = configuration.thresholds[name], given[name]
            print_warning(
                f"threshold {name}: {new} from the command line, {old} in {configuration.path}"
            )
    return {**configuration.thresholds, **given}


def _warn_of_runs(judgement: Judgement) -> None:
    """What is no proof, what is overridden, and what is worth a line."""
    if judgement.overrides:
        given = ", ".join(f"{name} = {value}" for name, value in judgement.overrides.items())
        print_warning(f"thresholds given instead of the training's: {given}")
    for run, reason in judgement.unreadable.items():
        is_shown = any(verdict.run == run for verdict in judgement.verdicts)
        print_warning(f"run {run!r} is {'judged in part' if is_shown else 'not judged'}: {reason}")
    for run, note in judgement.notes.items():
        print_warning(f"run {run!r}: {note}")
    if judgement.allow_unfinished:
        for found in judgement.outcomes:
            if found.verdict is not None and found.unfinished and not found.problem:
                print_warning(
                    f"run {found.run!r} is judged up to its last record: {found.unfinished}"
                )


def judge(
    options: argparse.Namespace, configuration: Configuration, workers: Workers | None = None
) -> Judgement:
    """Judge the chosen runs, and say what could not be read.

    Args:
        options: of a command with ``add_logdir``, ``add_selection`` and ``add_thresholds``.
        configuration: of the repository.
        workers: as in ``judge_logdir``.

    Raises:
        NothingToJudge: no run has records, or none is chosen.
    """
    since = getattr(options, "since", None)
    selection = Selection(tuple(options.runs), options.last, since, options.until)
    overrides = choose_overrides(options, configuration)
    allow_unfinished = getattr(options, "allow_unfinished", True)
    judgement = judge_logdir(
        options.logdir,
        overrides,
        allow_unfinished,
        choose=selection.choose,
        workers=workers,
    )
    _warn_of_runs(judgement)
    if judgement.without_records and judgement.verdicts:
        print_warning(f"no gradwatch records in {', '.join(map(repr, judgement.without_records))}")
    if not judgement.verdicts and not judgement.unreadable:
        raise NothingToJudge(
            f"Expected records of gradwatch under {options.logdir!r}, got event files without any "
            f"({', '.join(judgement.without_records)}). Train with gradwatch.watch(...), or with "
            "GradWatchCallback(), for at least one step."
        )
    return judgement
