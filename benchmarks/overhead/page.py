"""docs/overhead.md from the figures: ``python -m benchmarks.overhead.page`` redraws it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.overhead.sections import (
    list_compiled,
    list_gpu,
    list_kinds,
    list_late_ranks,
    list_long_run,
    list_profile,
)
from benchmarks.overhead.tools import TOOLS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "overhead.md"
RESULTS = ROOT / "benchmarks" / "results" / "overhead.json"

LONG_RUN = ROOT / "benchmarks" / "results" / "long_run.json"

LATE_RANKS = ROOT / "benchmarks" / "results" / "late_ranks.json"

GPU = ROOT / "benchmarks" / "results" / "overhead_gpu.json"

KINDS = ROOT / "benchmarks" / "results" / "overhead_kinds.json"

COMPILED = ROOT / "benchmarks" / "results" / "overhead_compiled.json"

MEMORY_TARGET = 0.02

TARGETS = {"default": 1.01, "budget": 1.01, "every_step": 1.15}
"""Ratio to the bare step that each schedule was to stay below."""


def write_page(result: Mapping[str, Any], *, save: bool) -> str:
    """The page as text; with ``save`` it and its pictures are also written."""
    text = "\n".join(_list_lines(result)) + "\n"
    if save:
        from benchmarks.overhead.plot import draw_plots  # matplotlib is an extra

        PAGE.write_text(text, encoding="utf-8")
        draw_plots(result)
    return text


def redraw_text() -> None:
    """Write the page again, but for its pictures, from the figures that have been saved."""
    result = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(write_page(result, save=False), encoding="utf-8")


def _list_lines(result: Mapping[str, Any]) -> Iterator[str]:
    machine, workloads = result["machine"], result["workloads"]
    yield "# What it costs"
    yield ""
    yield f"Medians of {result['rounds']} interleaved rounds ({result['clock']} clock), smallest to"
    yield "largest in brackets, as ratios to the bare step of the same round; torch"
    yield f"{machine['torch']}, {machine['threads']} threads, {machine['processor']}. Measured"
    yield "again by `python -m benchmarks.overhead --save`, after `pip install -e '.[benchmark]'`,"
    yield "no constraints given: one of the others holds setuptools back."
    yield ""
    yield "![Every tool's ratio to the bare step, on each workload](images/overhead.svg)"
    yield ""
    yield "| | " + " | ".join(workload["title"] for workload in workloads.values()) + " |"
    yield "| --- |" + " --- |" * len(workloads)
    bare = [f"{workload['bare_ms'][0]:.1f} ms" for workload in workloads.values()]
    yield f"| bare step | {' | '.join(bare)} |"
    names = list(next(iter(workloads.values()))["ratios"])
    for name in names:
        cells = [_write_cell(workload["ratios"][name], name) for workload in workloads.values()]
        yield f"| {TOOLS[name].title} | {' | '.join(cells)} |"
    lower = [_write_ratio(workload["to_lower_bound"]) for workload in workloads.values()]
    yield f"| every step, against the same by hand | {' | '.join(lower)} |"
    added = [_write_added(workload.get("peak_added")) for workload in workloads.values()]
    yield f"| peak memory added, every step sampled | {' | '.join(added)} |"
    held = [_write_percent(workload.get("held_added")) for workload in workloads.values()]
    yield f"| of it held, the allocator's room left out | {' | '.join(held)} |"
    kept = [_write_percent(workload.get("kept_added")) for workload in workloads.values()]
    yield f"| held between steps, added | {' | '.join(kept)} |"
    logs = [
        f"{workload['log_bytes_per_layer_and_step']:.0f} bytes" for workload in workloads.values()
    ]
    yield f"| event log per layer and sampled step | {' | '.join(logs)} |"
    yield ""
    yield "Targets: 1.01 for the default schedule and under a budget, 1.15 for every step, 2 % for"
    yield "memory; a figure above its target is marked with an asterisk."
    yield ""
    for remark in result.get("remarks", ()):
        yield from (remark, "")
    yield from _list_notes(workloads)
    yield from list_kinds(_read(KINDS))
    yield from list_compiled(_read(COMPILED))
    yield from _list_growth(result["growth"])
    check = result["check"]
    yield f"`gradwatch check` on {check['layers']:,} layers x {check['steps']:,} steps under the"
    yield f"default schedule ({check['records']:,} records): {check['seconds']:.1f} s beyond the"
    yield "start of the interpreter."
    yield ""
    yield from list_profile(result.get("profile"))
    yield from list_gpu(_read(GPU))
    yield from list_late_ranks(_read(LATE_RANKS))
    yield from list_long_run(_read(LONG_RUN))


def _list_notes(workloads: Mapping[str, Any]) -> Iterator[str]:
    """What each tool measures, and how the figures that need it were made."""
    yield "| tool | what it measures |"
    yield "| --- | --- |"
    for name in next(iter(workloads.values()))["ratios"]:
        yield f"| {TOOLS[name].title} | {TOOLS[name].note} |"
    yield ""
    yield "Each tool is used as its own documentation says. Where one looks at some steps only,"
    yield "both kinds of step are timed, and 1,000 steps are made up of them as its schedule has"
    yield "it. Under the budget, the watch's own decisions are taken by a clock that goes as the"
    yield "measured steps say. A tool that failed on a workload has its error instead of a figure."
    yield ""
    modules = [
        workload["modules_mib"] for workload in workloads.values() if "modules_mib" in workload
    ]
    yield "Memory is the largest resident size over eight steps after three, in processes of their"
    yield "own, relative to the median of the bare ones; median, smallest and largest. What is held"
    yield "between steps is measured once the allocator has given back what is free, by"
    yield "`malloc_trim`. Much of what is added to the peak is room between tensors that small ones"
    yield "have split: without it, where glibc takes each large tensor from the system and gives it"
    yield "back (`glibc.malloc.mmap_threshold`), what is left is what a sampled step holds."
    if modules:
        yield f"The modules that watching imports take {max(modules):.0f} MiB more, once."
    yield ""


def _list_growth(points: list[dict[str, Any]]) -> Iterator[str]:
    yield "## How cost grows"
    yield ""
    yield "![What a sampled step adds, by the number of layers](images/growth.svg)"
    yield ""
    yield "| layers | width | bare step | sampled step | added | added per layer |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for point in points:
        added = point["sampled_ms"] - point["bare_ms"]
        yield (
            f"| {point['depth']} | {point['width']} | {point['bare_ms']:.2f} ms | "
            f"{point['sampled_ms']:.2f} ms | {added:.2f} ms | "
            f"{1e3 * added / point['depth']:.0f} µs |"
        )
    yield ""


def _write_cell(measured: Mapping[str, Any], name: str) -> str:
    if "error" in measured:
        return measured["error"].replace("|", "/")[:60] or "-"
    missed = measured["ratio"][0] > TARGETS.get(name, float("inf"))
    return _write_ratio(measured["ratio"]) + ("*" if missed else "")


def _write_percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _write_added(values: list[float] | None) -> str:
    if values is None:
        return "-"
    middle, low, high = (100 * value for value in values)
    missed = "*" if values[0] > MEMORY_TARGET else ""
    return f"{middle:.1f} % [{low:.1f}, {high:.1f}]{missed}"


def _write_ratio(values: list[float] | None) -> str:
    if values is None:
        return "-"
    middle, low, high = values
    return f"{middle:.3f} [{low:.2f}, {high:.2f}]"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


if __name__ == "__main__":
    print(write_page(json.loads(RESULTS.read_text(encoding="utf-8")), save=True))
