"""gradwatch at work on a training, and the training alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradwatch
from benchmarks.overhead.workloads import Training

Step = Callable[[], None]

NEVER = 10**12
"""A sampling interval that no run of the benchmark reaches, ..."""

LATE = 10**8
"""... from this step on: early ones are sampled whatever the interval."""


@contextmanager
def run_bare(training: Training) -> Iterator[Step]:
    """Nobody looks."""
    yield training.step


@contextmanager
def run_sampled(training: Training, logdir: str | None = None) -> Iterator[Step]:
    """Every step is sampled."""
    with gradwatch.watch(training.model, training.optimizer, every_n_steps=1, logdir=logdir):
        yield training.step


@contextmanager
def run_between(training: Training) -> Iterator[Step]:
    """A watch is there, and no step is sampled."""
    with gradwatch.watch(training.model, training.optimizer, every_n_steps=NEVER, global_step=LATE):
        yield training.step
