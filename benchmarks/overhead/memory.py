"""Peak memory of a training, alone in a process, from when it has settled.

python -m benchmarks.overhead.memory mlp "gradwatch sampled"

What a process has needed once, to import its modules or to make its optimizer's state, would hide
what comes later. So the kernel is made to forget the peak (``/proc/self/clear_refs``) after some
steps, and the largest resident size since then is read (``VmHWM``). Linux only.

Both processes have watched another, tiny training before: the modules that watching imports take
the same memory whatever the model's size, and are counted by themselves.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import gradwatch
from benchmarks.overhead.tools import BARE, RUNS
from benchmarks.overhead.workloads import WORKLOADS, Workload

WARM_UP_STEPS = 3
"""Steps with the tool attached before the peak is forgotten."""

STEPS = 8

AT_ONCE = 2
"""Processes side by side: a size does not depend on what else is running, as a time would."""

SAMPLED = "gradwatch sampled"

NO_ROOM = "glibc.malloc.mmap_threshold=131072"
"""Has glibc give each large tensor memory of its own, and take it back: no room is left between
them where small ones stay, so that the peak is what is held."""

FORGET_PEAK = "5"
"""What ``/proc/self/clear_refs`` understands as: reset the peak to the present size."""


class Sizes(NamedTuple):
    """Of one process, MiB.

    Attributes:
        peak: largest resident size over the steps.
        kept: resident size after them, once the allocator has given back what is free.
        modules: what importing everything that watching needs has added.
    """

    peak: float
    kept: float
    modules: float


def compare_peaks(workload: Workload, repetitions: int) -> dict[str, list[float]]:
    """Sizes of the bare training and of one with every step sampled, and the modules', MiB."""
    runs = [BARE, SAMPLED] * repetitions
    with ThreadPoolExecutor(AT_ONCE) as pool:
        measured = list(pool.map(partial(_run_alone, workload.name), runs))
        held = list(pool.map(partial(_run_alone, workload.name, tunables=NO_ROOM), runs[:2]))
    return {
        "held_bare": [held[0].peak],
        "held_sampled": [held[1].peak],
        "bare": [process.peak for process in measured[::2]],
        "sampled": [process.peak for process in measured[1::2]],
        "kept_bare": [process.kept for process in measured[::2]],
        "kept_sampled": [process.kept for process in measured[1::2]],
        "modules": [process.modules for process in measured],
    }


def summarise_added(peaks: Mapping[str, Sequence[float]]) -> tuple[float, float, float]:
    """Median, smallest and largest share that sampling adds to the median bare peak."""
    bare = statistics.median(peaks["bare"])
    added = [peak / bare - 1 for peak in peaks["sampled"]]
    return statistics.median(added), min(added), max(added)


def summarise_kept(sizes: Mapping[str, Sequence[float]]) -> float:
    """Share that sampling adds to what the training holds between steps."""
    return statistics.median(sizes["kept_sampled"]) / statistics.median(sizes["kept_bare"]) - 1


def summarise_held(peaks: Mapping[str, Sequence[float]]) -> float:
    """Share that sampling adds to what is held at the peak, without the allocator's room."""
    return statistics.median(peaks["held_sampled"]) / statistics.median(peaks["held_bare"]) - 1


def _run_alone(workload: str, run: str, tunables: str = "") -> Sizes:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.overhead.memory", workload, run]
    environment = {**os.environ, "GLIBC_TUNABLES": tunables}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return Sizes(*map(float, done.stdout.split()))


def measure_sizes(workload: Workload, run: str) -> Sizes:
    """Of this process."""
    torch.set_num_threads(1)
    modules = _measure_modules()
    training = workload.start()
    with RUNS[run](training) as step:
        for _ in range(WARM_UP_STEPS):
            step()
        gc.collect()
        Path("/proc/self/clear_refs").write_text(FORGET_PEAK, encoding="ascii")
        for _ in range(STEPS):
            step()
        peak = _read_status("VmHWM")
        ctypes.CDLL(None).malloc_trim(0)
        return Sizes(peak, _read_status("VmRSS"), modules)


def _measure_modules() -> float:
    """What importing everything that watching needs adds to the process, MiB."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = _read_status("VmRSS")
    with gradwatch.watch(model, optimizer):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    return _read_status("VmRSS") - before


def _read_status(field: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found.group(1)) / 1024


if __name__ == "__main__":
    print(*measure_sizes(WORKLOADS[sys.argv[1]], sys.argv[2]))
