"""A training of 100,000 steps under watch: is memory flat, and how large is the log?

python -m benchmarks.long_run [--steps N] [--save]

It trains twice: once as it is, for time and resident memory, and once with Python's allocations
traced, which is slower.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

import gradwatch
from gradwatch.report import Report

RESULTS = Path(__file__).parent / "results" / "long_run.json"
STEPS = 100_000
PROBES = 100
"""Memory is read this often along a run."""

MIB = 2**20


@dataclass(frozen=True)
class LongRun:
    """What became of it.

    Attributes:
        steps: optimizer steps.
        records: sampled ones.
        layers: of the network, as gradwatch counts them.
        seconds: of the run that is not traced.
        log_bytes: size of the event log.
        healthy: what the report says.
        resident_mib: memory of the process, at ``PROBES`` points of the run.
        traced_kib: what Python has allocated since the run began, at the same points of another.
    """

    steps: int
    records: int
    layers: int
    seconds: float
    log_bytes: int
    healthy: bool
    resident_mib: tuple[float, ...]
    traced_kib: tuple[float, ...]


def run_long(steps: int = STEPS) -> LongRun:
    """Both runs."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        report, resident = train(steps, folder, read_resident)
        seconds = time.perf_counter() - began
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as folder:
        tracemalloc.start()
        _, traced = train(steps, folder, read_traced)
        tracemalloc.stop()
    return LongRun(
        steps,
        report.records,
        len(report.layers),
        seconds,
        size,
        report.healthy,
        tuple(round(mebibytes, 2) for mebibytes in resident),
        tuple(round(kibibytes, 1) for kibibytes in traced),
    )


def train(steps: int, logdir: str, probe: Callable[[], float]) -> tuple[Report, list[float]]:
    """A tiny network under the default schedule; its report, and what the probe said."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x = torch.randn(32, 8)
    y = x[:, :1] * x[:, 1:2]
    found = []
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
            if step % max(steps // PROBES, 1) == 0:
                found.append(probe())
    return watch.report(), found


def read_resident() -> float:
    """Memory of this process, MiB."""
    return float(psutil.Process().memory_info().rss / MIB)


def read_traced() -> float:
    """Memory that Python holds since tracing began, KiB; garbage is not counted."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] / 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and with ``--save`` keep the figures for the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_run")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args(arguments)
    result = run_long(chosen.steps)
    text = json.dumps(asdict(result)).replace(', "', ',\n "')
    if chosen.save:
        RESULTS.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
