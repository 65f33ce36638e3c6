"""The command line of measurements that run in one process, and the file that they keep."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch


def run_command(
    program: str,
    measure: Callable[[int], Iterable[tuple[str, Any]]],
    path: Path,
    rounds: int,
    arguments: Sequence[str] | None = None,
    **facts: object,
) -> bool:
    """Measure, print, and with ``--save`` keep the figures; gives whether they were kept.

    Args:
        program: module that is run, for the help.
        measure: is called with the number of rounds; gives each workload's title and figures.
        path: of the results, as JSON.
        rounds: where none are asked for.
        arguments: of the command line; ``None``: those of this process.
        **facts: of the measurement, kept beside the figures.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--save", action="store_true")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    workloads = {}
    for title, figures in measure(chosen.rounds):
        workloads[title] = figures
        print(title, figures, flush=True)
    machine = {"processor": find_processor(), "torch": str(torch.__version__)}
    if chosen.save:
        result = {"machine": machine, "rounds": chosen.rounds, **facts, "workloads": workloads}
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return bool(chosen.save)


def find_processor() -> str:
    """Model of the processor."""
    source = Path("/proc/cpuinfo")
    lines = source.read_text(encoding="utf-8").splitlines() if source.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
