"""Records of all runs of the zoo, kept as small logs, so that judging all of them takes seconds.

    python -m benchmarks.zoo_records            make those that are missing (some minutes)
    python -m benchmarks.zoo_records --anew     make all of them again, after a change of capture

The logs lie under ``build/zoo_records`` and are not kept in the repository.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import gradwatch
from gradwatch.log.reader import read_runs
from gradwatch.records import StepRecord
from tests.zoo import CASES, Case

HOME = Path(__file__).resolve().parent.parent / "build" / "zoo_records"

SCHEDULES = (1, 50)
"""Values of ``every_n_steps``."""


@dataclass(frozen=True)
class RecordedRun:
    """One run of the zoo under one schedule.

    Attributes:
        case: with its label.
        every_n_steps: of the schedule.
        records: in order.
    """

    case: Case
    every_n_steps: int
    records: tuple[StepRecord, ...]


def record_case(case: Case, every_n_steps: int, logdir: Path) -> None:
    """Train once under a watch that writes its log."""
    torch.set_num_threads(1)
    training = case.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        watched = training.model, training.optimizers
        with gradwatch.watch(*watched, logdir=logdir, every_n_steps=every_n_steps):
            training.run()


def find_logdir(case: Case, every_n_steps: int) -> Path:
    """Where the log of a run lies."""
    return HOME / f"{case.name}@{every_n_steps}"


def make_records(cases: Iterable[Case], anew: bool = False) -> None:
    """Record the runs that are not there yet, or all of them."""
    for case in cases:
        for every_n_steps in SCHEDULES:
            logdir = find_logdir(case, every_n_steps)
            if anew:
                shutil.rmtree(logdir, ignore_errors=True)
            if not logdir.exists():
                record_case(case, every_n_steps, logdir)


def read_records(
    cases: Iterable[Case] = CASES, schedules: Iterable[int] = SCHEDULES
) -> Iterator[RecordedRun]:
    """The recorded runs of some cases."""
    for case in cases:
        for every_n_steps in schedules:
            logdir = find_logdir(case, every_n_steps)
            (run,) = read_runs(logdir)
            yield RecordedRun(case, every_n_steps, tuple(run.records()))


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anew", action="store_true", help="record every run again")
    make_records(CASES, parser.parse_args().anew)


if __name__ == "__main__":
    main()
