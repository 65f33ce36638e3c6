"""Sections of the page whose figures other programs have made; none where there is no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.overhead.profile import write_table

POINTS = 10
"""Of a curve, in a table."""


def list_long_run(result: Mapping[str, Any] | None) -> Iterator[str]:
    """From what ``python -m benchmarks.long_run --save`` has written."""
    if result is None:
        return
    resident, traced = (_thin(result[name]) for name in ("resident_mib", "traced_kib"))
    done = [f"{result['steps'] * (place + 1) // POINTS:,}" for place in range(POINTS)]
    yield "## A long run"
    yield ""
    yield f"{result['steps']:,} steps of a network of {result['layers']} layers under the default"
    yield f"schedule, {result['records']:,} of them sampled, in {result['seconds']:.0f} s. The log"
    yield f"takes {result['log_bytes'] / 2**20:.2f} MiB, {_divide(result):.0f} bytes for each"
    yield "sampled step. Memory of the training process, and what of it Python objects take that"
    yield "were made since the run began (in a second run, traced):"
    yield ""
    yield f"| after steps | {' | '.join(done)} |"
    yield "| --- |" + " --- |" * POINTS
    yield f"| resident, MiB | {' | '.join(f'{one:.1f}' for one in resident)} |"
    yield f"| Python objects, KiB | {' | '.join(f'{one:.0f}' for one in traced)} |"
    yield ""
    yield "Python's share moves between two levels: records are kept for figures up to a number,"
    yield "and thinned out then. Measured anew by `python -m benchmarks.long_run --save`."
    yield ""


def _thin(values: list[float]) -> list[float]:
    """Equally spaced ones, the last among them."""
    every = len(values) // POINTS
    return values[every - 1 :: every][:POINTS]


def _divide(result: Mapping[str, Any]) -> float:
    return float(result["log_bytes"] / result["records"])


def list_profile(profiles: dict[str, dict[str, float]] | None) -> Iterator[str]:
    """From ``profile_step`` of each workload."""
    if profiles is None:
        return
    yield "## Where a sampled step's time goes"
    yield ""
    yield "What watching adds to a step, by part; watching the parts costs something too, which"
    yield "is in the figures."
    yield ""
    yield write_table(profiles)
    yield ""
