"""python -m benchmarks.overhead.gpu [--rounds N] [--save]: GPT-2 124M in bfloat16 on a CUDA device.

Blocks of steps are timed in interleaved rounds, from one synchronisation of the device to the next.
In a run of their own, kernels are counted by torch's profiler and synchronisations by
``torch.cuda.set_sync_debug_mode("warn")``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.overhead.lower_bound import run_lower_bound
from benchmarks.overhead.ours import Step, run_bare, run_between, run_sampled
from benchmarks.overhead.timing import WARM_UP_STEPS, summarise
from benchmarks.overhead.tools import HORIZON, count_sampled
from benchmarks.overhead.workloads import GPT, Training
from gradwatch.capture import statistics
from gradwatch.capture.schedule import Schedule

RESULTS = Path(__file__).parents[1] / "results" / "overhead_gpu.json"

ROUNDS = 7
STEPS = 8
"""Steps of a block."""

VOCABULARY, WIDTH, DEPTH, HEADS, LENGTH, BATCH = 50257, 768, 12, 12, 1024, 8

Run = Callable[[Training], AbstractContextManager[Step]]

RUNS: dict[str, Run] = {
    "bare": run_bare,
    "bare again": run_bare,
    "between": run_between,
    "sampled": run_sampled,
    "lower bound": run_lower_bound,
}
"""Ways to run a step, in the order of a round."""


class Autocast(nn.Module):
    """A model whose forward runs in bfloat16."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            result: Tensor = self.inner(x)
        return result


def build(*, compiled: bool) -> Training:
    """GPT-2's smallest size: 124 million parameters, the head tied to the embedding."""
    torch.manual_seed(0)
    inner = GPT(VOCABULARY, WIDTH, DEPTH, HEADS, LENGTH)
    inner.head.weight = inner.token.weight
    nn.init.normal_(inner.token.weight, std=0.02)
    model = Autocast(inner).cuda()
    if compiled:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(VOCABULARY, (BATCH, LENGTH + 1), device="cuda")
    return Training(model, optimizer, tokens[:, :-1], tokens[:, 1:].flatten(), F.cross_entropy)


def time_steps(step: Step, steps: int) -> float:
    """Milliseconds per step, the device's work included."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - began) / steps


def list_runs(training: Training) -> dict[str, Run]:
    """Those that suit the training: the reductions by hand hook modules, which compiled code has
    no more."""
    eager = training.model._compiled_call_impl is None
    return {name: run for name, run in RUNS.items() if eager or name != "lower bound"}


def measure_rounds(training: Training, rounds: int) -> dict[str, list[float]]:
    """Milliseconds per step of each way to run it, one number for each round."""
    found: dict[str, list[float]] = {name: [] for name in list_runs(training)}
    for number in range(rounds):
        for name, run in list_runs(training).items():
            with run(training) as step:
                time_steps(step, WARM_UP_STEPS)
                found[name].append(time_steps(step, STEPS))
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


def compare(found: dict[str, list[float]]) -> dict[str, Any]:
    """Ratios to the bare step of the same round: median, smallest, largest."""
    share = count_sampled(Schedule()) / HORIZON
    ratios = {
        name: [value / bare for value, bare in zip(values, found["bare"], strict=True)]
        for name, values in found.items()
    }
    both = zip(ratios["between"], ratios["sampled"], strict=True)
    ratios["default"] = [(1 - share) * between + share * sampled for between, sampled in both]
    measured = {name: summarise(values) for name, values in ratios.items() if name != "bare"}
    return {"bare_ms": summarise(found["bare"]), "ratios": measured}


@dataclass
class Counts:
    """What one step makes of each: kernels, synchronisations, tensors read whole."""

    kernels: int
    synchronisations: int
    readings: int


def count_step(training: Training, run: Run) -> Counts:
    """One step after those that warm up."""
    readings = [0]
    original = statistics.measure_l2_norm

    def measure(tensor: Tensor) -> Any:
        readings[0] += 1
        return original(tensor)

    with run(training) as step:
        time_steps(step, WARM_UP_STEPS)
        synchronisations = _count_synchronisations(step)
        statistics.measure_l2_norm = measure
        try:
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
                step()
                torch.cuda.synchronize()
        finally:
            statistics.measure_l2_norm = original
    events = profiler.events() or ()
    on_device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [event for event in on_device if not event.name.startswith(("Memcpy", "Memset"))]
    n_params = len(list(training.model.parameters()))
    return Counts(len(kernels), synchronisations, readings[0] and readings[0] + 2 * n_params)


def _count_synchronisations(step: Step) -> int:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message).lower() for warning in said)


def measure(rounds: int) -> dict[str, Any]:
    """Everything, eager and compiled."""
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rounds": rounds,
        "steps_per_block": STEPS,
    }
    for name in ("eager", "compiled"):
        training = build(compiled=name == "compiled")
        result[name] = compare(measure_rounds(training, rounds))
        counts = {way: count_step(training, RUNS[way]) for way in ("bare", "between", "sampled")}
        result[name]["counts"] = {way: vars(count) for way, count in counts.items()}
        result[name]["peak_mib"] = {
            way: _measure_peak(training, RUNS[way]) for way in ("bare", "sampled")
        }
        training.model.to("cpu")
        del training
        torch.cuda.empty_cache()
    return result


def _measure_peak(training: Training, run: Run) -> float:
    with run(training) as step:
        time_steps(step, WARM_UP_STEPS)
        torch.cuda.reset_peak_memory_stats()
        time_steps(step, 2)
    return torch.cuda.max_memory_allocated() / 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and with ``--save`` keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead.gpu")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--save", type=Path, nargs="?", const=RESULTS, help="where the JSON goes")
    chosen = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("Expected a CUDA device, found none. Run this on a machine with a GPU.")
    torch.set_float32_matmul_precision("high")
    result = measure(chosen.rounds)
    text = json.dumps(result, indent=1)
    if chosen.save is not None:
        chosen.save.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
