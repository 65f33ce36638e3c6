"""Sections of the page whose figures other programs have made; none where there is no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.overhead.profile import write_table

POINTS = 10
"""Of a curve, in a table."""


def list_late_ranks(rows: list[Mapping[str, Any]] | None) -> Iterator[str]:
    """From what ``python -m benchmarks.late_ranks`` has written."""
    if rows is None:
        return
    yield "## Ranks that are late"
    yield ""
    yield "Nobody waits for a rank that is not coming. Twelve steps of a small network on gloo,"
    yield "all of them sampled, in seconds of the slowest rank, one run each. A whole watch waits"
    yield "for other ranks at most one second. Measured again by `python -m benchmarks.late_ranks`."
    yield ""
    yield "| scene | processes | without a watch | with | more |"
    yield "| --- | --- | --- | --- | --- |"
    for row in rows:
        plain, watched = row["plain_s"], row["watched_s"]
        words = f"| {_SCENES[row['scene']]} | {row['processes']} |"
        yield f"{words} {plain:.2f} s | {watched:.2f} s | {watched - plain:.2f} s |"
    yield ""


_SCENES = {
    "all": "all ranks come",
    "join": "rank 0 has more batches, under `join`",
    "skip": "rank 1 skips a step",
    "rank 0 only": "a watch on rank 0 only",
    "rank 1 only": "a watch on rank 1 only",
    "dead": "rank 1 dies",
}
"""By name in ``tests/capture/test_late_ranks.py``."""


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
    yield f"| resident, MiB | {' | '.join(f'{size:.1f}' for size in resident)} |"
    yield f"| Python objects, KiB | {' | '.join(f'{size:.0f}' for size in traced)} |"
    yield ""
    yield "Python's share moves between two levels: records are kept for figures up to a number,"
    yield "and thinned out then. Measured again by `python -m benchmarks.long_run --save`."
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


_GPU_TITLES = {
    "bare again": "bare step, again",
    "between": "a step that is not sampled",
    "default": "**gradwatch, default schedule**",
    "sampled": "**gradwatch, every step**",
    "lower bound": "the same reductions by hand",
}


def list_gpu(result: Mapping[str, Any] | None) -> Iterator[str]:
    """From what ``python -m benchmarks.overhead.gpu --save`` has written on a machine with one."""
    if result is None:
        return
    ways = {name: result[name] for name in ("eager", "compiled")}
    yield "## On a GPU"
    yield ""
    yield "GPT-2 with 124 million parameters, autocast to bfloat16, 8 x 1,024 tokens, fused AdamW;"
    yield f"{result['device']}, torch {result['torch']}. Medians of {result['rounds']} interleaved"
    yield f"rounds of {result['steps_per_block']} steps, as ratios to the bare step of the same"
    yield "round. Measured again by `python -m benchmarks.overhead.gpu --save`."
    yield ""
    yield f"| | {' | '.join(ways)} |"
    yield "| --- | --- | --- |"
    bare = [f"{way['bare_ms'][0]:.1f} ms" for way in ways.values()]
    yield f"| bare step | {' | '.join(bare)} |"
    for name, title in _GPU_TITLES.items():
        cells = [_write_summary(way["ratios"].get(name)) for way in ways.values()]
        yield f"| {title} | {' | '.join(cells)} |"
    yield from _list_counts(ways)
    yield ""
    yield from (*result.get("remarks", ()), "")


def _list_counts(ways: Mapping[str, Any]) -> Iterator[str]:
    counts = [way["counts"] for way in ways.values()]
    waits = [f"{count['sampled']['synchronisations']}" for count in counts]
    yield f"| waits for the device in a sampled step | {' | '.join(waits)} |"
    launches = [
        (count["sampled"]["kernels"] - count["bare"]["kernels"]) / count["sampled"]["readings"]
        for count in counts[:1]
    ]
    yield f"| kernels per tensor that is read | {launches[0]:.1f} | as eager |"
    peaks = [way["peak_mib"]["sampled"] / way["peak_mib"]["bare"] - 1 for way in ways.values()]
    yield f"| peak device memory added | {' | '.join(f'{100 * peak:.2f} %' for peak in peaks)} |"


def _write_summary(values: list[float] | None) -> str:
    return "-" if values is None else f"{values[0]:.3f} [{values[1]:.2f}, {values[2]:.2f}]"


def list_kinds(result: Mapping[str, Any] | None) -> Iterator[str]:
    """From what ``python -m benchmarks.overhead.kinds --save`` has written."""
    if result is None:
        return
    machine, steps = result["machine"], [f"first {steps:,} steps" for steps in result["steps"]]
    yield "## By kind of sampled step"
    yield ""
    yield "The first sampled steps and every tenth are followed call by call; a step that does"
    yield "what those before it did is executed from a plan, and its record is the same. CPU"
    yield "tensors are read through Python (torch's kernels), or natively with `gradwatch-native`."
    yield f"Ratios to the bare step, medians of {result['rounds']} interleaved rounds, one thread,"
    yield f"processor time; torch {machine['torch']}, {machine['processor']}. The runs are made up"
    yield "of what each kind adds and how many there are in the default schedule while all is well."
    yield ""
    yield f"| | bare step | read in | followed | planned | {' | '.join(steps)} |"
    yield "| --- |" + " --- |" * (4 + len(steps))
    for title, workload in result["workloads"].items():
        for reader, runs in workload["runs"].items():
            kinds = (workload["ratios"][f"{kind}, {reader}"] for kind in ("followed", "planned"))
            ratios = " | ".join(f"{ratio:.2f}" for ratio in kinds)
            totals = " | ".join(f"{value:.3f}" for value in runs)
            yield f"| {title} | {workload['bare_ms']:.1f} ms | {reader} | {ratios} | {totals} |"
    yield ""
    for remark in result.get("remarks", ()):
        yield from (remark, "")
    yield "Measured again by `python -m benchmarks.overhead.kinds --save`."
    yield ""


def list_compiled(result: Mapping[str, Any] | None) -> Iterator[str]:
    """From what ``python -m benchmarks.overhead.compiled --save`` has written."""
    yield "## Compiled models"
    yield ""
    yield "A sampled step of a model in `torch.compile` runs eagerly; with"
    yield '`watch(compiled="in_graph")` it runs a second compilation with the statistics in its'
    yield "graph."
    yield from ("", *_list_compiled_ratios(result)) if result is not None else ()
    yield ""
    yield "Names, parameters and the record are read as ever, and are most of what is left. What"
    yield "the second compilation gives from its first sample on is that a sampled step trains as"
    yield "the compiled one does: gradients were the same bit for bit on both networks, on a small"
    yield "GPT under bfloat16 autocast, also on the CPU (where an eager sample's differ by 6e-3),"
    yield "and under dropout. Of a convolutional network of 16 channels they were not; the trial"
    yield "found that, and it was sampled eagerly. On a GPU none of this was measured."
    yield ""


def _list_compiled_ratios(result: Mapping[str, Any]) -> Iterator[str]:
    machine = result["machine"]
    yield "Ratios of a planned step to the bare compiled step, every step sampled, medians of"
    yield f"{result['rounds']} interleaved rounds, inductor, one thread, processor time; torch"
    yield f"{machine['torch']}, {machine['processor']}. To compile means the first step, and the"
    yield "one that makes the second compilation and tries whether it computes the same bits, with"
    yield "caches that are empty at the beginning."
    yield ""
    yield "| | bare step | again | eager sample | in the graph | to compile | once more |"
    yield "| --- |" + " --- |" * 6
    for title, workload in result["workloads"].items():
        cells = [_write_summary(workload["ratios"][name]) for name in _COMPILED]
        spent = [f"{workload['compile_s'][name]:.1f} s" for name in ("bare", "in graph")]
        bare = f"{workload['bare_ms']:.1f} ms"
        yield f"| {title} | {' | '.join((bare, *cells, *spent))} |"
    yield ""
    yield from _list_pays(result["workloads"])
    yield "Measured again by `python -m benchmarks.overhead.compiled --save`."


_COMPILED = ("bare again", "eager", "in graph")


def _list_pays(workloads: Mapping[str, Any]) -> Iterator[str]:
    """After how many samples the second compilation has taken less time than it saves."""
    for title, workload in workloads.items():
        eager, inside = (workload["ratios"][name][0] for name in ("eager", "in graph"))
        saved = 1e-3 * workload["bare_ms"] * (eager - inside)
        samples = workload["compile_s"]["in graph"] / saved if saved > 0 else 0
        words = f"after {samples:,.0f} samples" if samples else "never"
        yield f"By time alone it pays {words} ({title})."
    yield ""
