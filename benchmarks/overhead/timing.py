"""Interleaved rounds: every way to run a step once per round, so that a drift of the machine
strikes all of them alike."""

from __future__ import annotations

import gc
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.overhead.tools import BARE, RUNS, Tool
from benchmarks.overhead.workloads import Training, Workload

WARM_UP_STEPS = 2
"""Steps before the clock starts, whenever a tool has just been attached."""

BLOCK_S = 0.35
"""A block of bare steps takes about this long, seconds."""

MAX_BLOCK_S = 1.5
"""A block of a slow tool ends after this long, seconds."""

MIN_STEPS, MAX_STEPS = 3, 24


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""``cpu`` is for a machine that others use at the same time: the seconds of this process alone."""


@dataclass
class Timings:
    """Milliseconds per step of each way to run it, one number for each round."""

    step_ms: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def compute_ratios(self, shares: Mapping[str, float], base: str = BARE) -> list[float]:
        """Of a mix to the bare step (or to another way), round by round; empty if not measured."""
        if any(name not in self.step_ms for name in (*shares, base)):
            return []
        columns = [[share * ms for ms in self.step_ms[name]] for name, share in shares.items()]
        mixed = [sum(values) for values in zip(*columns, strict=True)]
        return [ms / other for ms, other in zip(mixed, self.step_ms[base], strict=True)]


def measure_rounds(
    workload: Workload,
    tools: Iterable[Tool],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    say: Callable[[str], None] = print,
) -> Timings:
    """Time each way to run a step that the tools need; one that raises is left out."""
    wanted = {BARE} | {name for tool in tools if tool.is_installed for name in tool.shares}
    names = [name for name in RUNS if name in wanted]
    training, result = workload.start(), Timings()
    steps = _choose_steps(training, clock)
    for number in range(rounds):
        for name in [way for way in names if way not in result.errors]:
            try:
                milliseconds = 1e3 * time_block(training, name, steps, clock)
            except Exception as error:  # whatever a tool raises is its result
                result.errors[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                result.step_ms.pop(name, None)
                continue
            result.step_ms.setdefault(name, []).append(milliseconds)
        say(f"{workload.name}: round {number + 1} of {rounds}")
    return result


def time_block(
    training: Training, name: str, steps: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds per step."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with RUNS[name](training) as step:
            for _ in range(WARM_UP_STEPS):
                step()
            return _time_steps(step, steps, clock)


def _time_steps(step: Callable[[], None], steps: int, clock: Callable[[], float]) -> float:
    began, done = clock(), 0
    while done < steps and clock() - began < MAX_BLOCK_S:
        step()
        done += 1
    return (clock() - began) / done


def _choose_steps(training: Training, clock: Callable[[], float]) -> int:
    for _ in range(WARM_UP_STEPS):
        training.step()
    seconds = _time_steps(training.step, MIN_STEPS, clock)
    return min(max(round(BLOCK_S / seconds), MIN_STEPS), MAX_STEPS)


def summarise(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest, largest."""
    return statistics.median(values), min(values), max(values)
