"""Records of all runs of the zoo, kept as small logs, so that judging all of them takes seconds.

    python -m benchmarks.zoo_records            make those that are missing (some minutes)
    python -m benchmarks.zoo_records --again    make all of them again, after a change of capture

The logs lie under ``build/zoo_records`` and are not kept in the repository.
"""

from __future__ import annotations

import argparse
import itertools
import pickle
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

import gradwatch
from gradwatch.evidence.gradient_flow import Reading, read_flow
from gradwatch.log.reader import read_runs
from tests.zoo import CASES, Case

HOME = Path(__file__).resolve().parent.parent / "build" / "zoo_records"

SCHEDULES = (1, 50)
"""Values of ``every_n_steps``."""

_CASES = {case.name: case for case in CASES}


@dataclass(frozen=True)
class RecordedRun:
    """One run of the zoo under one schedule.

    Attributes:
        case: with its label.
        every_n_steps: of the schedule.
        readings: of its records, in order.
    """

    case: Case
    every_n_steps: int
    readings: tuple[Reading, ...]

    @property
    def name(self) -> str:
        """Such as ``"relu_30_layers_he@50"``."""
        return f"{self.case.name}@{self.every_n_steps}"


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


def make_records(cases: Iterable[Case], again: bool = False) -> None:
    """Record the runs that are not there yet, or all of them."""
    for case in cases:
        for every_n_steps in SCHEDULES:
            logdir = find_logdir(case, every_n_steps)
            if again:
                shutil.rmtree(logdir, ignore_errors=True)
            if not logdir.exists():
                record_case(case, every_n_steps, logdir)


def list_recorded(schedules: Iterable[int] = SCHEDULES) -> list[str]:
    """Names of the runs that are there, such as ``"relu_30_layers_he@50"``."""
    wanted = itertools.product(CASES, schedules)
    return [f"{case.name}@{every}" for case, every in wanted if find_logdir(case, every).exists()]


def read_run(name: str) -> RecordedRun:
    """A recorded run.

    What no threshold decides, the flow of the gradient, is worked out once and kept beside the log.

    Args:
        name: as in ``list_recorded``.
    """
    case, every_n_steps = _CASES[name.partition("@")[0]], int(name.partition("@")[2])
    logdir = find_logdir(case, every_n_steps)
    kept = logdir / "flow.pickle"
    if not kept.exists():
        (run,) = read_runs(str(logdir))
        kept.write_bytes(pickle.dumps(tuple(read_flow(tuple(run.records()))), protocol=5))
    return RecordedRun(case, every_n_steps, pickle.loads(kept.read_bytes()))


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="record every run again")
    make_records(CASES, parser.parse_args().again)


if __name__ == "__main__":
    main()
