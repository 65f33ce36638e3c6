"""Runs in every way in which one can stand, for tests and for ``scripts.states``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gradwatch.log.writer import EventLog
from gradwatch.records import STEP_STATISTICS, StepRecord
from gradwatch.run_marks import OptimizerSettings, RunDescription
from gradwatch.thresholds import Thresholds
from tests.pages.synthetic import HOSTILE, make_layer_set, make_records, name_long, name_plain

ABOUT = RunDescription(
    "Classifier",
    49_152,
    49_152,
    optimizers=(OptimizerSettings("AdamW", (1e-3,), (0.01,)),),
    dtypes=("float32",),
    devices=("cuda:0",),
    gradwatch_version="0.1.0",
    torch_version="2.13.0",
    every_n_steps=10,
)
HEALTHY: dict[str, Any] = {"activation": "ReLU", "gain": 1.02}
SIZES = (3, 12, 100, 500)


def write_session(logdir: Path, name: str, n_layers: int = 12, **how: Any) -> EventLog:
    """A run with a start mark, still open."""
    naming = how.pop("naming", name_plain)
    layers = make_layer_set(n_layers, how.pop("activation", "Sigmoid"), naming)
    log = EventLog(logdir / name)
    log.begin(Thresholds(), ABOUT)
    falls = how.get("gain") == HEALTHY["gain"]
    for record in make_records(layers, list(range(how.pop("n_steps", 60))), **how):
        log.write_record(add_loss(record, falls))
    return log


def add_loss(record: StepRecord, falls: bool) -> StepRecord:
    """A loss that falls, or does not."""
    step = record.global_step
    loss = 2.3 * math.exp(-step / 25) + 0.1 if falls else 2.3 + 0.01 * math.sin(step)
    record.step_values[STEP_STATISTICS.index("loss")] = loss
    return record


def finish(log: EventLog, how: str = "detached", detail: str = "", step: int = 60) -> None:
    """The end mark, and the file closed."""
    log.end(how, detail, step)
    log.close()


def write_stopped(logdir: Path) -> None:
    """A run whose last record was written half an hour ago."""
    long_ago = time.time() - 1800
    with patch("time.time", return_value=long_ago):
        write_session(logdir, "stopped", **HEALTHY).close()


def write_damaged(logdir: Path) -> None:
    """A run that ended, and of whose log some bytes in the middle are lost."""
    finish(write_session(logdir, "damaged", **HEALTHY))
    path = next((logdir / "damaged").glob("*tfevents*"))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)


def _write_sized(word: str, size: int) -> Callable[[Path], None]:
    how = HEALTHY if word == "fine" else {}
    return lambda at: finish(write_session(at, f"{word}{size}", size, **how))


def _sink(step: int) -> float:
    """A gain that falls half-way."""
    return 1.0 if step < 30 else 0.05


WRITERS: dict[str, Callable[[Path], object]] = {
    "healthy": lambda at: finish(write_session(at, "healthy", histogram_every=20, **HEALTHY)),
    "noted": lambda at: finish(write_session(at, "noted", dead=0.5, **HEALTHY)),
    "early": lambda at: write_session(at, "early", n_steps=1, **HEALTHY).close(),
    "nothing": lambda at: write_session(at, "nothing", n_steps=0).close(),
    "crashed": lambda at: finish(
        write_session(at, "crashed", **HEALTHY), "exception", "RuntimeError"
    ),
    "failed": lambda at: finish(write_session(at, "failed", **HEALTHY), "failure", "KeyError: 'x'"),
    "ended": lambda at: finish(write_session(at, "ended", histogram_every=20)),
    "stopped": write_stopped,
    "damaged": write_damaged,
    "late": lambda at: finish(write_session(at, "late", gain=_sink)),
    "saturated": lambda at: finish(write_session(at, "saturated", gain=0.9, saturated=0.97)),
    "exploding": lambda at: finish(write_session(at, "exploding", gain=40.0)),
    "hostile": lambda at: finish(
        write_session(at, "hostile", 5, gain=0.02, naming=lambda index: f"{HOSTILE}{index}")
    ),
    "numbers": lambda at: finish(write_session(at, "numbers", 8, naming=str)),
    "long": lambda at: finish(write_session(at, "long", 24, naming=name_long)),
    **{f"{word}{size}": _write_sized(word, size) for word in ("layers", "fine") for size in SIZES},
}
"""State or size, and what writes a run of that name into a directory."""
