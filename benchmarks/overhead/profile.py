"""python -m benchmarks.overhead.profile: where the time of a sampled step goes, part by part.

Each part is the time spent in some functions of gradwatch less what is spent in another part inside
them. Watching the functions costs something too, about two readings of the clock for each call.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.overhead.ours import run_sampled
from benchmarks.overhead.timing import CLOCKS, WARM_UP_STEPS
from benchmarks.overhead.workloads import WORKLOADS, Workload
from gradwatch.capture import functions, param_readings, saturation, statistics
from gradwatch.capture.assembly import Assembler
from gradwatch.capture.call_rows import CallRows
from gradwatch.capture.device_values import Ledger
from gradwatch.capture.forward import ForwardTracker
from gradwatch.capture.functions import FunctionMode
from gradwatch.capture.fused_ops import InsideRecorder
from gradwatch.capture.gates import GateFinder
from gradwatch.capture.gradients import GradientReader
from gradwatch.capture.planned_forward import PlannedForward
from gradwatch.capture.sampled_step import SampledStep
from gradwatch.capture.session import Session
from gradwatch.capture.weight_samples import WeightSamples
from gradwatch.verdict.engine import Doctor

PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "norms of outputs and of their gradients": (
        (statistics, "measure_l2_norm"),
        (CallRows, "flush"),
    ),
    "fractions, of samples": (
        (statistics, "measure_zero_fraction"),
        (saturation, "measure_saturation"),
        (statistics, "count_histogram"),
        (statistics, "find_fired_units"),
    ),
    "parameters: gradients and weights": (
        (param_readings, "read_gradients"),
        (param_readings, "read_weights"),
    ),
    "parameters: updates": (
        (WeightSamples, "take"),
        (param_readings, "note_updates"),
    ),
    "attention, computed again": ((FunctionMode, "_record_attention"),),
    "recurrent layers, computed again": (
        (InsideRecorder, "record_recurrent"),
        (InsideRecorder, "end_pass"),
    ),
    "following forward: modules, activations, the graph": (
        (ForwardTracker, "_enter"),
        (ForwardTracker, "_leave"),
        (PlannedForward, "_leave"),
        (FunctionMode, "_record"),
        (functions, "_note_operands"),
        (GateFinder, "follow"),
    ),
    "following backward": ((GradientReader, "_see"), (SampledStep, "_read_backward")),
    "arming: names, samples of weights": ((SampledStep, "__post_init__"), (Session, "_arm")),
    "the copy to the host": ((Ledger, "send"),),
    "the record": ((Assembler, "build"), (SampledStep, "collect")),
    "judging it": ((Doctor, "observe"),),
}
"""Functions of each part."""

REST = "hooks of torch, and what no part names"


@dataclass
class Stopwatch:
    """Seconds by part, each without the parts inside it."""

    clock: Callable[[], float]
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _inside: list[float] = field(default_factory=list)

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            began = self.clock()
            try:
                return function(*args, **kwargs)
            finally:
                took = self.clock() - began
                self.seconds[part] += took - self._inside.pop()
                if self._inside:
                    self._inside[-1] += took

        return timed

    @contextmanager
    def attach(self) -> Iterator[None]:
        """Time the functions of all parts meanwhile."""
        places = [(part, *place) for part, several in PARTS.items() for place in several]
        originals = [(owner, name, getattr(owner, name)) for _, owner, name in places]
        for part, owner, name in places:
            setattr(owner, name, self.wrap(part, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)


def profile_step(workload: Workload, steps: int, clock: Callable[[], float]) -> dict[str, float]:
    """Milliseconds that watching adds to a step, by part: medians over the steps."""
    training, stopwatch = workload.start(), Stopwatch(clock)
    bare = median(_time_steps(training.step, steps, clock))
    with run_sampled(training) as step:
        added = median(_time_steps(step, steps, clock)) - bare
    seen: list[dict[str, float]] = []

    def timed_step() -> None:
        stopwatch.seconds.clear()
        step()
        seen.append(dict(stopwatch.seconds))

    with stopwatch.attach(), run_sampled(training) as step:
        _time_steps(timed_step, steps, clock)
    parts = {
        p: 1e3 * median(seconds.get(p, 0.0) for seconds in seen[WARM_UP_STEPS:]) for p in PARTS
    }
    return {**parts, REST: max(1e3 * added - sum(parts.values()), 0.0)}


def _time_steps(step: Callable[[], None], steps: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of each step after the first ones."""
    seconds = []
    for _ in range(WARM_UP_STEPS + steps):
        began = clock()
        step()
        seconds.append(clock() - began)
    return seconds[WARM_UP_STEPS:]


def write_table(profiles: dict[str, dict[str, float]]) -> str:
    """A table in Markdown: part, milliseconds per step and share, for each workload."""
    names = [f"{name}, ms | {name}, share" for name in profiles]
    lines = [f"| part | {' | '.join(names)} |", "| --- |" + " --- | --- |" * len(profiles)]
    totals = {name: sum(found.values()) for name, found in profiles.items()}
    rows = {part: [found[part] for found in profiles.values()] for part in (*PARTS, REST)}
    for part, values in [*rows.items(), ("together", list(totals.values()))]:
        cells = (
            f"{value:.2f} | {value / total:.0%}"
            for value, total in zip(values, totals.values(), strict=True)
        )
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead.profile")
    parser.add_argument("--workloads", nargs="*", choices=list(WORKLOADS), default=["mlp", "gpt"])
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu")
    chosen = parser.parse_args(arguments)
    clock = CLOCKS[chosen.clock]
    profiles = {
        name: profile_step(WORKLOADS[name], chosen.steps, clock) for name in chosen.workloads
    }
    print(write_table(profiles))
    return 0


if __name__ == "__main__":
    sys.exit(main())
