"""What a sampled step of a compiled model adds: run eagerly, and read inside its graph.

    python -m benchmarks.overhead.compiled [--rounds N] [--save]

One thread and the processor time of this process and of the compilers that it starts.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import gradwatch
from benchmarks.overhead.command import run_command
from benchmarks.overhead.kinds import time_step
from benchmarks.overhead.page import redraw_text
from benchmarks.overhead.timing import summarise
from benchmarks.overhead.workloads import GPT, Training, Workload, build_mlp
from gradwatch.capture.eager_stance import NOT_INSIDE
from gradwatch.capture.session import HISTOGRAM_EVERY
from gradwatch.live_watch import Watch

RESULTS = Path(__file__).parents[1] / "results" / "overhead_compiled.json"

WAYS = {"bare": None, "bare again": None, "eager": "eager", "in graph": "in_graph"}
"""How a training is watched, by name; ``None``: not at all."""

FIRST_PLANNED = 3
"""The step in which the second compilation is made: two agree before it, and one is followed."""


def build_gpt() -> Training:
    """A language model that one core compiles in half a minute."""
    model = GPT(1024, 128, 4, 4, 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(1024, (2, 129))
    return Training(model, optimizer, tokens[:, :-1], tokens[:, 1:].flatten(), F.cross_entropy)


WORKLOADS = (
    Workload("gpt", "GPT, 4 blocks of width 128, 2 x 128 tokens", build_gpt),
    Workload("mlp", "sigmoid MLP, 6 layers of 512, batch 256", lambda: build_mlp(depth=6)),
)


def measure(workload: Workload, rounds: int) -> dict[str, Any]:
    """Ratios of planned steps to the bare compiled step, and what compiling takes."""
    torch._dynamo.reset()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # nothing of an earlier run
        trainings = {name: _compile(workload.start()) for name in WAYS}
        watches = {name: _watch(trainings[name], way) for name, way in WAYS.items() if way}
        firsts = {name: _warm_up(training.step) for name, training in trainings.items()}
        found = _measure_rounds({name: each.step for name, each in trainings.items()}, rounds)
    for watch in watches.values():
        watch.detach()
    _check(watches["in graph"])
    return {
        "bare_ms": statistics.median(found["bare"]),
        "ratios": {
            name: summarise([a / b for a, b in zip(times, found["bare"], strict=True)])
            for name, times in found.items()
            if name != "bare"
        },
        "compile_s": {"bare": firsts["bare"][0], "in graph": firsts["in graph"][FIRST_PLANNED]},
    }


def _compile(training: Training) -> Training:
    model: Any = torch.compile(training.model)
    training.model = model
    return training


def _watch(training: Training, compiled: str) -> Watch:
    return gradwatch.watch(
        *(training.model, training.optimizer),
        every_n_steps=1,
        compiled=compiled,
        log_findings=False,
    )


def _warm_up(step: Callable[[], None]) -> list[float]:
    """Seconds of each step up to the next that is followed, with those of compilers."""
    found = []
    for _ in range(HISTOGRAM_EVERY):
        began = sum(os.times()[:4])
        step()
        found.append(sum(os.times()[:4]) - began)
    return found


def _measure_rounds(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way's steps, the median of each round."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            step()  # of the watched ones, this is followed
            times = [time_step(step) for _ in range(HISTOGRAM_EVERY - 1)]
            found[name].append(1e3 * statistics.median(times))
    return found


def _check(watch: Watch) -> None:
    """Figures of steps that ran eagerly after all would be none of the graph.

    Raises:
        RuntimeError: they did.
    """
    history = watch.report().history
    notes = () if history is None else history.records[-1].layer_set.notes
    for note in notes:
        if note.startswith(NOT_INSIDE):
            raise RuntimeError(f"Expected steps that are read in the graph, got: {note}.")


def measure_all(rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Title and figures of each workload."""
    torch._inductor.config.compile_threads = 1  # whose time is that of this process
    warnings.simplefilter("ignore")
    for workload in WORKLOADS:
        yield workload.title, measure(workload, rounds)


if __name__ == "__main__":
    began = time.perf_counter()
    is_kept = run_command("benchmarks.overhead.compiled", measure_all, RESULTS, 15)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if is_kept:
        redraw_text()
