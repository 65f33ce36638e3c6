"""How long the tab and the report take on a large run: ``python -m benchmarks.tab [--save]``.

A run of 500 layers x 10,000 recorded steps (made records, 184 MB) is served by TensorBoard
with each of its loaders and opened in Chromium several times. Times are the page's own marks,
counted from the moment at which the tab's frame starts to load. Needs Playwright and Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradwatch.log.writer import EventLog
from tests.pages.conftest import FLAGS, SERVE
from tests.pages.synthetic import make_layer_set, make_records

RESULTS = Path(__file__).parent / "results" / "tab.json"
MARKS = ("banner", "charts")
PATIENCE_SECONDS = 300
PORT = 6123


def main() -> None:
    """Write the run unless it is there, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--layers", type=int, default=500)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--logdir", type=Path, help="holds the run already, or is to keep it")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        logdir = options.logdir or Path(scratch)
        if not any(logdir.glob("large/*tfevents*")):
            write_log(logdir / "large", options.layers, options.steps)
        result: dict[str, Any] = {"layers": options.layers, "steps": options.steps}
        result["load_average"] = [round(load, 1) for load in os.getloadavg()]
        for loader in ("true", "false"):
            result[f"load_fast={loader}"] = measure_tab(logdir, loader, options.repeats)
        result["report"] = measure_report(logdir, Path(scratch) / "report.html")
    print(json.dumps(result, indent=2))
    if options.save:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def write_log(folder: Path, layers: int, steps: int) -> None:
    """An unhealthy run with histograms at every tenth step."""
    log = EventLog(folder)
    for record in make_records(make_layer_set(layers), list(range(steps)), histogram_every=10):
        log.write_record(record)
    log.close()


def measure_tab(logdir: Path, loader: str, repeats: int) -> dict[str, Any]:
    """Seconds until the server has read all, its memory, and the marks of each opening."""
    began = time.perf_counter()
    with serve(logdir, loader) as (server, page):
        ready = wait_until_read(page, began)
        seen = [open_tab(page) for _ in range(repeats)]
        memory = sum(peak_megabytes(pid) for pid in family(server.pid))
        processor = sum(processor_seconds(pid) for pid in family(server.pid))
    times = {mark: [opening[mark] for opening in seen] for mark in (*MARKS, "processor")}
    return {
        "server_ready_s": round(ready, 1),
        "server_processor_s": round(processor, 1),
        "server_peak_mb": round(memory),
        **{f"{mark}_median_s": round(statistics.median(times[mark]), 2) for mark in MARKS},
        **{f"{mark}_worst_s": round(max(times[mark]), 2) for mark in MARKS},
        "browser_processor_s": round(statistics.median(times["processor"]), 2),
    }


@contextmanager
def serve(
    logdir: Path, loader: str, *options: str
) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """TensorBoard, and a browser's context to open it in."""
    from playwright.sync_api import sync_playwright

    place = ["--logdir", str(logdir), "--port", str(PORT), f"--load_fast={loader}", *options]
    server = subprocess.Popen([sys.executable, "-c", SERVE, *place], stderr=subprocess.DEVNULL)
    chromium = os.environ.get("GRADWATCH_CHROMIUM", "/usr/bin/chromium")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            yield server, browser.new_context(viewport={"width": 1280, "height": 1400})
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_until_read(context: Any, began: float) -> float:
    """Seconds until the plugin has judged every recorded step that TensorBoard keeps."""
    address = f"http://127.0.0.1:{PORT}/data/plugin/gradwatch/runs"
    last, quiet = "", 0
    while time.perf_counter() - began < PATIENCE_SECONDS:
        try:
            answer = context.request.get(address).json()
        except Exception:  # not up yet
            time.sleep(0.2)
            continue
        text = json.dumps(answer["runs"])
        quiet = quiet + 1 if text == last and answer["settled"] and '"records"' in text else 0
        if quiet == 0:
            last, stood = text, time.perf_counter() - began
        if quiet >= 8:  # four seconds without news
            return stood
        time.sleep(0.5)
    raise TimeoutError(f"{address} did not come to rest within {PATIENCE_SECONDS} s")


def open_tab(context: Any) -> dict[str, float]:
    """Press the tab in an open TensorBoard; seconds from the start of its frame to each mark.

    ``processor`` is what the browser's process has computed in between, on any number of cores:
    the part of the time that a busy machine does not stretch.
    """
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{PORT}/#text")
    name = page.locator("text=/GradWatch/i").first
    name.wait_for(timeout=1000 * PATIENCE_SECONDS)
    page.wait_for_timeout(2000)  # TensorBoard's own start is over
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    before = process_seconds(session)
    name.click()
    frame = page.frame_locator("iframe[src*=gradwatch]")
    frame.locator(".pane[data-drawn]").wait_for(timeout=1000 * PATIENCE_SECONDS)
    seen = {"processor": process_seconds(session) - before}
    page.wait_for_timeout(500)
    read = "(_, name) => performance.getEntriesByName(name)[0].startTime / 1000"
    body = frame.locator("body")
    seen.update({mark: float(body.evaluate(read, f"gradwatch-{mark}")) for mark in MARKS})
    page.close()
    return seen


def process_seconds(session: Any) -> float:
    """Processor time of the page's process so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "ProcessTime"))


def measure_report(logdir: Path, path: Path) -> dict[str, Any]:
    """Seconds and peak memory of ``gradwatch report``, and the size of its file."""
    code = (
        "import resource, sys; from gradwatch.cli import main; main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    began = time.perf_counter()
    command = [sys.executable, "-c", code, "report", str(logdir), "-o", str(path)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mb": int(out.split()[-1]),
        "megabytes": round(path.stat().st_size / 1e6, 2),
    }


def family(pid: int) -> list[int]:
    """A process and its children: the fast loader is a process of its own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(int(child) for child in children)]


def peak_megabytes(pid: int) -> float:
    """The largest resident memory so far."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def processor_seconds(pid: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
