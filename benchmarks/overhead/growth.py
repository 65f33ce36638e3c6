"""How cost grows: with the layers, with the bytes of the activations, and in the event log."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from benchmarks.overhead.ours import run_sampled
from benchmarks.overhead.timing import time_block
from benchmarks.overhead.tools import BARE
from benchmarks.overhead.workloads import Training, Workload, build_mlp
from gradwatch.log.writer import read_runs

DEPTHS = (10, 100, 1000)
WIDTHS = (64, 256, 1024)
STEPS = 4
LOG_STEPS = (2, 22)
"""The log grows from the first to the second number of sampled steps; the rest is its beginning."""


@dataclass(frozen=True)
class Point:
    """One model of a curve: hidden layers, their width, and milliseconds per step."""

    depth: int
    width: int
    bare_ms: float
    sampled_ms: float


def measure_growth(clock: Callable[[], float], rounds: int) -> list[Point]:
    """Depth at one width, then width at one depth."""
    sizes = [(depth, 64) for depth in DEPTHS] + [(10, width) for width in WIDTHS[1:]]
    return [_measure_point(depth, width, clock, rounds) for depth, width in sizes]


def _measure_point(depth: int, width: int, clock: Callable[[], float], rounds: int) -> Point:
    build = partial(build_mlp, depth, width, 256, nn.Tanh)
    training = Workload("growth", "", build).start()
    measured: dict[str, list[float]] = {BARE: [], "gradwatch sampled": []}
    for _ in range(rounds):
        for name, values in measured.items():
            values.append(1e3 * time_block(training, name, STEPS, clock))
    return Point(depth, width, *(statistics.median(values) for values in measured.values()))


def measure_log(workload: Workload) -> float:
    """Bytes of the event log per layer and sampled step."""
    few, many = (_measure_size(workload.start(), steps) for steps in LOG_STEPS)
    return (many[0] - few[0]) / (LOG_STEPS[1] - LOG_STEPS[0]) / many[1]


def _measure_size(training: Training, steps: int) -> tuple[int, int]:
    """Bytes of the log of a run, and its layers."""
    with tempfile.TemporaryDirectory() as folder:
        with run_sampled(training, folder) as step:
            for _ in range(steps):
                step()
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        record = next(iter(read_runs(folder)[0].records()))
    return size, len(record.layer_set.layers)
