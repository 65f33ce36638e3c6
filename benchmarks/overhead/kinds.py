"""What a sampled step adds, by kind, and what that makes of 100 and of 1,000 steps.

    python -m benchmarks.overhead.kinds [--rounds N] [--save]

One thread and the processor time of this process, so that other jobs on the machine disturb little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F

from benchmarks.overhead.command import run_command
from benchmarks.overhead.ours import run_bare, run_sampled
from benchmarks.overhead.workloads import GPT, WORKLOADS, Training
from gradwatch.capture import native
from gradwatch.capture.planning import Planner
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import FIRST_CUTS, HISTOGRAM_EVERY

RESULTS = Path(__file__).parents[1] / "results" / "overhead_kinds.json"

WARM_UP, STEPS = 4, 5
HORIZONS = (100, 1000)
SMALL = "12-layer GPT, width 64, 2 x 8 tokens"


def build_small_gpt() -> Training:
    """Nearly all that a sampled step adds to it is time of the host."""
    torch.manual_seed(0)
    model = GPT(128, 64, 12, 4, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(128, (2, 9))
    return Training(model, optimizer, tokens[:, :-1], tokens[:, 1:].flatten(), F.cross_entropy)


@contextmanager
def run_followed(training: Training) -> Iterator[Callable[[], None]]:
    """Every step is sampled, and none is executed from a plan."""
    with patch.object(Planner, "choose", lambda *_: None), run_sampled(training) as step:
        yield step


READ = {"python": None, "native": native.find_package()}
"""Who reads CPU tensors; compiled code where it is installed (``pip install ./native``)."""

KINDS = {"followed": run_followed, "planned": run_sampled}


def list_runs() -> dict[str, Callable[[Training], Any]]:
    """What is timed, by name: the bare step, and each kind of sampled step by who reads."""
    found: dict[str, Callable[[Training], Any]] = {"bare": run_bare}
    for reader, package in READ.items():
        if reader == "python" or package is not None:
            found |= {f"{kind}, {reader}": _read_with(package, run) for kind, run in KINDS.items()}
    return found


def _read_with(package: Any, run: Callable[[Training], Any]) -> Callable[[Training], Any]:
    @contextmanager
    def run_it(training: Training) -> Iterator[Callable[[], None]]:
        with patch.object(native, "PACKAGE", package), run(training) as step:
            yield step

    return run_it


def measure(training: Training, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each kind of step, the median of each round."""
    timed = list_runs()
    found: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, run in timed.items():
            with run(training) as step:
                for _ in range(WARM_UP):
                    step()
                found[name].append(1e3 * statistics.median(time_step(step) for _ in range(STEPS)))
    return found


def time_step(step: Callable[[], None]) -> float:
    """Seconds of the processor."""
    began = time.process_time()
    step()
    return time.process_time() - began


def count_kinds(steps: int) -> dict[str, int]:
    """Sampled steps of the default schedule by kind, while all is well."""
    sampled = sum(map(Schedule().is_sampled, range(steps)))
    followed = sum(
        number < FIRST_CUTS or number % HISTOGRAM_EVERY == 0 for number in range(sampled)
    )
    return {"followed": followed, "planned": sampled - followed}


def summarise(found: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of ratios to the bare step of the same round."""
    ratios = {
        name: statistics.median(a / b for a, b in zip(times, found["bare"], strict=True))
        for name, times in found.items()
        if name != "bare"
    }
    readers = [reader for reader in READ if f"planned, {reader}" in ratios]
    runs = {reader: [_sum_up(ratios, reader, steps) for steps in HORIZONS] for reader in readers}
    return {"bare_ms": statistics.median(found["bare"]), "ratios": ratios, "runs": runs}


def _sum_up(ratios: dict[str, float], reader: str, steps: int) -> float:
    """Of so many steps under the default schedule, the ratio to as many bare ones."""
    counts = count_kinds(steps).items()
    return 1 + sum((ratios[f"{kind}, {reader}"] - 1) * count / steps for kind, count in counts)


def measure_all(rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Title and figures of each workload."""
    trainings: dict[str, Callable[[], Training]] = {
        SMALL: build_small_gpt,
        **{workload.title: workload.start for workload in WORKLOADS.values()},
    }
    for title, start in trainings.items():
        yield title, summarise(measure(start(), rounds))


if __name__ == "__main__":
    run_command("benchmarks.overhead.kinds", measure_all, RESULTS, 7, steps=HORIZONS)
