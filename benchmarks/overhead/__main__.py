"""python -m benchmarks.overhead [--workloads ...] [--tools ...] [--rounds N] [--save]"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.overhead.budgeting import compute_ratios
from benchmarks.overhead.growth import measure_growth, measure_log
from benchmarks.overhead.memory import (
    compare_peaks,
    summarise_added,
    summarise_held,
    summarise_kept,
)
from benchmarks.overhead.page import write_page
from benchmarks.overhead.profile import profile_step
from benchmarks.overhead.reading import LAYERS, STEPS, measure_check
from benchmarks.overhead.timing import CLOCKS, Timings, measure_rounds, summarise
from benchmarks.overhead.tools import TOOLS, Tool
from benchmarks.overhead.workloads import WORKLOADS, Workload

RESULTS = Path(__file__).parents[1] / "results" / "overhead.json"
ROUNDS = 7
PROFILED_STEPS = 10


def describe_machine() -> dict[str, Any]:
    """What the figures belong to."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
    }


def measure_workload(
    workload: Workload, tools: Sequence[Tool], rounds: int, clock: str, repetitions: int
) -> dict[str, Any]:
    """Ratios to the bare step of each tool, the memory added, and the log's bytes."""
    timings = measure_rounds(workload, tools, rounds, CLOCKS[clock], _say)
    peaks = compare_peaks(workload, repetitions)
    return {
        "title": workload.title,
        "bare_ms": summarise(timings.step_ms["bare"]),
        "ratios": {tool.name: _find_ratio(timings, tool) for tool in tools},
        "to_lower_bound": _summarise_or_none(
            timings.compute_ratios({"gradwatch sampled": 1}, "lower bound")
        ),
        "peak_mib": {"bare": peaks["bare"], "sampled": peaks["sampled"]},
        "peak_added": summarise_added(peaks),
        "held_added": summarise_held(peaks),
        "kept_added": summarise_kept(peaks),
        "modules_mib": statistics.median(peaks["modules"]),
        "log_bytes_per_layer_and_step": measure_log(workload),
    }


def _find_ratio(timings: Timings, tool: Tool) -> dict[str, Any]:
    if not tool.is_installed:
        return {"error": f"{tool.requires} is not installed"}
    if tool.budget is None:
        ratios = timings.compute_ratios(tool.shares)
    else:
        ratios = compute_ratios(timings, tool.budget)
    errors = [timings.errors[name] for name in tool.shares if name in timings.errors]
    return {"ratio": summarise(ratios)} if ratios else {"error": "; ".join(errors)}


def _summarise_or_none(ratios: list[float]) -> tuple[float, float, float] | None:
    return summarise(ratios) if ratios else None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the page, and with ``--save`` keep figures and page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead")
    parser.add_argument("--workloads", nargs="*", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--tools", nargs="*", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--repetitions", type=int, default=5, help="of each process for memory")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name} and the page")
    chosen = parser.parse_args(arguments)
    tools = [TOOLS[name] for name in chosen.tools]
    seconds, records = measure_check()
    result = {
        "machine": describe_machine(),
        "rounds": chosen.rounds,
        "clock": chosen.clock,
        "workloads": {
            name: measure_workload(
                WORKLOADS[name], tools, chosen.rounds, chosen.clock, chosen.repetitions
            )
            for name in chosen.workloads
        },
        "profile": {
            name: profile_step(WORKLOADS[name], PROFILED_STEPS, CLOCKS[chosen.clock])
            for name in chosen.workloads
        },
        "growth": [vars(point) for point in measure_growth(CLOCKS[chosen.clock], chosen.rounds)],
        "check": {"layers": LAYERS, "steps": STEPS, "records": records, "seconds": seconds},
    }
    if chosen.save:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(write_page(result, save=chosen.save))
    return 0


if __name__ == "__main__":
    sys.exit(main())
