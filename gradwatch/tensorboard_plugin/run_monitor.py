"""Keeps all runs judged, in a thread of its own, so that no request waits for a long reading."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from gradwatch.display import assets
from gradwatch.tensorboard_plugin.runs import RunReader, Tags, WatchedRun, sign

MAX_RUNS = 500  # judged and listed, the newest; more would not fit a page
MAX_DRAWN = 12  # runs whose columns stay in memory
STARTUP_SECONDS = 20.0  # how long to look for a first run after TensorBoard's start
PAUSE_SECONDS = 0.5

logger = logging.getLogger("gradwatch")


class RunMonitor:
    """The runs of one TensorBoard, brought up to date in the background.

    Args:
        reader: reads from TensorBoard's data provider.
    """

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self._runs: dict[str, WatchedRun] = {}
        self._recent: list[str] = []
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._thread: threading.Thread | None = None
        self._again = False
        self._revision = 1
        self._left_out = 0
        self._settled = threading.Event()

    def poke(self, patience_seconds: float = 0.0) -> None:
        """Look for new data in the background; returns at once.

        Args:
            patience_seconds: how long to look on while there is no run at all.
        """
        with self._lock:
            self._again = True
            if self._thread is None or not self._thread.is_alive():
                self._settled.clear()
                self._thread = threading.Thread(
                    target=self._work, args=(patience_seconds,), name="gradwatch", daemon=True
                )
                self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until the background is done, so long at most; whether it is.

        Args:
            seconds: at most.
        """
        return self._settled.wait(seconds)

    def count_unhealthy(self) -> int:
        """Runs with findings, as far as they have been read."""
        return sum(bool(run.brief.get("findings")) for run in tuple(self._runs.values()))

    def list_news(self, since: int = 0) -> dict[str, Any]:
        """What changed after a revision: briefs by name; ``severity`` is ``"reading"`` at first.

        Args:
            since: the revision that the page has; 0 for all.
        """
        with self._lock:
            listed = sorted(self._runs.items())
            changed = [
                {**(run.brief or {"severity": "reading"}), "run": name, "revision": run.revision}
                for name, run in listed
                if run.revision > since or not run.brief
            ]
            revision, left_out = self._revision, self._left_out
        names = [name for name, _ in listed]
        return {"runs": changed, "names": names, "revision": revision, "left_out": left_out}

    def draw(self, name: str) -> bytes:
        """The figures of a run, gzipped JSON.

        Args:
            name: of the run.

        Raises:
            KeyError: no such run.
        """
        run = self._runs[name]
        snapshot = run.snapshot
        if snapshot is None or not (snapshot.columns or "error" in snapshot.brief):
            with self._reading:
                self._reader.read(run, self._reader.list_runs().get(name, {}))
            snapshot = run.snapshot
        self._remember(name)
        return snapshot.draw() if snapshot else b""

    def knows(self, name: str) -> bool:
        """Whether there is such a run.

        Args:
            name: of a run, as a request gives it.
        """
        return name in self._runs

    def _work(self, patience_seconds: float) -> None:
        deadline = time.monotonic() + patience_seconds
        while True:
            with self._lock:
                self._again = False
            self._refresh()
            if not self._runs and time.monotonic() < deadline:
                time.sleep(PAUSE_SECONDS)
                continue
            with self._lock:
                if not self._again:
                    self._thread = None
                    self._settled.set()
                    return

    def _refresh(self) -> None:
        try:
            listed = self._reader.list_runs()
            newest = sorted(listed.items(), key=lambda named: -_find_newest(named[1]))
            kept = dict(newest[:MAX_RUNS])
            self._left_out = len(listed) - len(kept)
            self._runs = {name: self._runs.get(name) or WatchedRun(name) for name in kept}
            for name, tags in kept.items():
                self._read_one(self._runs[name], tags)
            self._draw_ahead()
        except Exception:  # the data server may be starting, stopping or cut off
            logger.exception("gradwatch could not read the runs; it tries again at the next reload")

    def _read_one(self, run: WatchedRun, tags: Tags) -> None:
        if run.signature == sign(tags):
            return
        with self._reading:
            self._reader.read(run, tags)
        with self._lock:
            self._revision += 1
            run.revision = self._revision
        self._remember(run.name)

    def _draw_ahead(self) -> None:
        """Have ready what the page asks for first: plotly.js, and figures of one unhealthy run."""
        assets.read_plotly()
        shots = [run.snapshot for run in self._runs.values() if run.snapshot]
        drawable = [shot for shot in shots if shot.columns]
        unhealthy = [shot for shot in drawable if shot.brief.get("findings")]
        for shot in [*unhealthy, *drawable][:1]:
            shot.draw()

    def _remember(self, name: str) -> None:
        """Keep the columns of the runs used last."""
        with self._lock:
            self._recent = [*(other for other in self._recent if other != name), name]
            gone, self._recent = self._recent[:-MAX_DRAWN], self._recent[-MAX_DRAWN:]
        for forgotten in gone:
            if forgotten in self._runs:
                self._runs[forgotten].forget()


def _find_newest(tags: Tags) -> float:
    """Wall time of the newest datum of a run."""
    return max((float(tag.max_wall_time) for tag in tags.values()), default=0.0)
