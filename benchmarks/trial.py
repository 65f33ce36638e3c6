"""Runs a case of the zoo under detectors."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from benchmarks.rivals import RIVALS
from benchmarks.sighting import Detector, Sighting
from benchmarks.watched import GradWatch
from tests.zoo import CASES, Case

Factory = Callable[[], Detector]

WORKERS = 2


@dataclass(frozen=True)
class Outcome:
    """What one detector said of one case.

    Attributes:
        case, detector: names.
        sightings: the most important first.
        error: with which it or the training ended, or ``""``.
    """

    case: str
    detector: str
    sightings: tuple[Sighting, ...] = ()
    error: str = ""


def find_detectors(every_n_steps: Sequence[int]) -> dict[str, Factory]:
    """gradwatch at these sampling intervals, then the rivals; by name."""
    ours = {f"gradwatch@{n}": _make_factory(n) for n in every_n_steps}
    return {**ours, **RIVALS}


def _make_factory(every_n_steps: int) -> Factory:
    return lambda: GradWatch(every_n_steps)


def run_case(case: Case, factories: Mapping[str, Factory]) -> list[Outcome]:
    """One outcome for each detector; those that do not disturb each other share a training."""
    detectors = {name: factory() for name, factory in factories.items()}
    shared = {name: detector for name, detector in detectors.items() if not detector.alone}
    outcomes = _run_together(case, shared)
    if any(outcome.error for outcome in outcomes) and len(shared) > 1:
        outcomes = [_run_alone(case, name, factories[name]()) for name in shared]
    outcomes += [
        _run_alone(case, name, detector) for name, detector in detectors.items() if detector.alone
    ]
    order = list(factories)
    return sorted(outcomes, key=lambda outcome: order.index(outcome.detector))


def _run_alone(case: Case, name: str, detector: Detector) -> Outcome:
    return _run_together(case, {name: detector})[0]


def _run_together(case: Case, detectors: Mapping[str, Detector]) -> list[Outcome]:
    """An error breaks off the training, so it is everybody's."""
    if not detectors:
        return []
    try:
        losses = _train(case, list(detectors.values()))
        return [
            Outcome(case.name, name, tuple(detector.judge(losses)))
            for name, detector in detectors.items()
        ]
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return [Outcome(case.name, name, error=text) for name in detectors]


def _train(case: Case, detectors: Sequence[Detector]) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        training = case.build()
        for detector in detectors:
            detector.attach(training)
        try:
            return training.run()
        finally:
            for detector in detectors:
                detector.detach()


def run_cases(
    cases: Sequence[Case], names: Sequence[str], every_n_steps: Sequence[int]
) -> list[Outcome]:
    """All outcomes, in the order of the cases; two processes with one thread each."""
    tasks = [(case.name, tuple(names), tuple(every_n_steps)) for case in cases]
    context = get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=context, initializer=_start_worker) as pool:
        groups = pool.map(_run_named, tasks, chunksize=4)
        return [outcome for group in groups for outcome in group]


def _start_worker() -> None:
    """One thread, and silence: MKL prints what it thinks of the NaN in an unhealthy run."""
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_named(task: tuple[str, tuple[str, ...], tuple[int, ...]]) -> list[Outcome]:
    case_name, names, every_n_steps = task
    case = next(case for case in CASES if case.name == case_name)
    factories = find_detectors(every_n_steps)
    return run_case(case, {name: factories[name] for name in names})
