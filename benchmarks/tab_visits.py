"""The tab on small runs, on many, and over an hour: ``python -m benchmarks.tab_visits [--save]``.

Three measures. Six runs of the gallery, each opened several times: when the banner and the charts
stand on the screen. 2,000 runs in one directory: when the server has read them, and its memory. A
page that follows a training as long as an hour: as many records and polls as in an hour, only
faster, and the heap of the browser after a collection of garbage. Needs Playwright and Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.tab import (
    MARKS,
    PORT,
    family,
    open_tab,
    peak_megabytes,
    processor_seconds,
    serve,
    wait_until_read,
)
from gradwatch.log.writer import EventLog
from tests.pages.conftest import write_run
from tests.pages.states import HEALTHY, add_loss, write_session
from tests.pages.synthetic import make_layer_set, make_records

RESULTS = Path(__file__).parent / "results" / "tab_visits.json"
SAMPLES = ("healthy", "vanishing_activation", "exploding", "dead", "saturated", "disconnected")
RUNS = 2000
HOUR_SECONDS, POLL_SECONDS = 3600, 2
FAST_POLL_MILLISECONDS = 60
MOST_SECONDS = 900  # in which an hour's polls have to be over
BATCH = 100  # polls between two looks at the heap


def main() -> None:
    """Measure what is asked for, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    measures = {"samples": measure_samples, "many": measure_many, "hour": measure_hour}
    parser.add_argument("--only", nargs="*", default=list(measures), choices=list(measures))
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in options.only:
        with tempfile.TemporaryDirectory() as scratch:
            before = os.getloadavg()[0]
            figures = measures[name](Path(scratch))
        loads = [round(load, 1) for load in (before, os.getloadavg()[0])]
        result[name] = {**figures, "load_average": loads, "processor": find_processor()}
        print(json.dumps({name: result[name]}, indent=2), flush=True)
        if options.save:
            RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def find_processor() -> str:
    """As the kernel names it, and how many cores there are."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line for line in lines if line.startswith("model name")), ": unknown")
    return f"{model.partition(': ')[2]}, {os.cpu_count()} cores"


def measure_samples(logdir: Path, repeats: int = 3) -> dict[str, Any]:
    """Each run alone in a directory, opened from another tab of TensorBoard."""
    from scripts.gallery import train

    measured = {}
    for name in SAMPLES:
        train(name, logdir / name)
        with serve(logdir / name, "true") as (_, context):
            wait_until_read(context, time.perf_counter())
            seen = [open_tab(context) for _ in range(repeats)]
        marks = (*MARKS, "processor")
        medians = {mark: statistics.median(opening[mark] for opening in seen) for mark in marks}
        measured[name] = {f"{mark}_s": round(medians[mark], 2) for mark in marks}
    return {"runs": measured}


def measure_many(logdir: Path) -> dict[str, Any]:
    """Thousands of small runs in one directory, of which the page shows the newest."""
    for number in range(RUNS):
        write_run(logdir, f"run{number:04d}", 3, 5, activation="ReLU", gain=1.0)
    began = time.perf_counter()
    with serve(logdir, "true") as (server, context):
        ready = wait_until_read(context, began)
        seen = open_tab(context)
        members = family(server.pid)
        memory = sum(peak_megabytes(pid) for pid in members)
        processor = sum(processor_seconds(pid) for pid in members)
    marks = {f"{mark}_s": round(seen[mark], 2) for mark in (*MARKS, "processor")}
    return {
        "count": RUNS,
        "server_ready_s": round(ready, 1),
        "server_processor_s": round(processor, 1),
        "server_peak_mb": round(memory),
        **marks,
    }


def measure_hour(logdir: Path) -> dict[str, Any]:
    """A record and a redrawing for each poll of an hour; the heap after every hundred."""
    log = write_session(logdir, "live", **HEALTHY, histogram_every=10)
    heaps, polls = [], HOUR_SECONDS // POLL_SECONDS
    began = time.perf_counter()
    with serve(logdir, "false", "--reload_interval", "0.05") as (server, context):
        wait_until_read(context, began)
        page = context.new_page()
        page.route("**/page.js", hasten)
        page.goto(f"http://127.0.0.1:{PORT}/data/plugin_entry.html?name=gradwatch#run=live")
        page.locator(".pane[data-drawn]").wait_for()
        session = context.new_cdp_session(page)
        began = time.perf_counter()
        for batch in range(polls // BATCH):
            follow(page, log, 60 + batch * BATCH)
            heaps.append(read_heap(session))
            if time.perf_counter() - began > MOST_SECONDS:
                break
        server_mb = round(sum(peak_megabytes(pid) for pid in family(server.pid)))
    log.close()
    return {
        "redrawings": BATCH * len(heaps),
        "seconds": round(time.perf_counter() - began),
        "heap_mb_after_100": heaps[0],
        "heap_mb_at_end": heaps[-1],
        "heap_mb_largest": max(heaps),
        "server_peak_mb": server_mb,
    }


def hasten(route: Any) -> None:
    """The page as it is, but for the pause between two polls."""
    text = route.fetch().text()
    old = f"FOLLOW_MILLISECONDS = {1000 * POLL_SECONDS};"
    assert old in text
    route.fulfill(
        body=text.replace(old, f"FOLLOW_MILLISECONDS = {FAST_POLL_MILLISECONDS};"),
        content_type="text/javascript",
    )


def follow(page: Any, log: EventLog, first: int) -> None:
    """Records one after the other, each when the page has shown the one before."""
    layers = make_layer_set(12, "ReLU")
    last = "[...document.querySelectorAll('[data-card=profile] .chart')][0].layout.xaxis.range[1]"
    for record in make_records(layers, list(range(first, first + BATCH)), gain=1.02):
        log.write_record(add_loss(record, falls=True))
        page.wait_for_function(f"{last} >= {record.global_step}", polling=20, timeout=60_000)


def read_heap(session: Any) -> float:
    """Megabytes that are in use after a collection of garbage."""
    session.send("HeapProfiler.collectGarbage")
    return round(float(session.send("Runtime.getHeapUsage")["usedSize"]) / 1e6, 1)


if __name__ == "__main__":
    main()
