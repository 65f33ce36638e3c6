"""How long ``gradwatch check`` takes over the log of a long run of a deep model."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks.overhead.tools import count_sampled
from gradwatch.capture.schedule import Schedule
from gradwatch.log.writer import EventLog
from gradwatch.records import (
    LAYER_STATISTICS,
    PARAM_STATISTICS,
    STEP_STATISTICS,
    Layer,
    LayerSet,
    Param,
    StepRecord,
)

LAYERS, STEPS = 1_000, 100_000
REPETITIONS = 3
_FAULTS = (
    "nonfinite_count",
    "weight_decay",
    "stale_grad_l2_norm",
    "rank_grad_spread",
    "rank_step_grad_spread",
    "rank_weight_spread",
)
"""Statistics of parameters that are 0 in a healthy run of one rank without a weight decay."""


def measure_check(layers: int = LAYERS, steps: int = STEPS) -> tuple[float, int]:
    """Median seconds of ``gradwatch check`` beyond the start of the interpreter, and records."""
    with tempfile.TemporaryDirectory() as folder:
        records = write_long_log(folder, layers, steps)
        check = [
            _time([sys.executable, "-m", "gradwatch", "check", folder]) for _ in range(REPETITIONS)
        ]
    start = [_time([sys.executable, "-c", "pass"]) for _ in range(REPETITIONS)]
    return statistics.median(check) - statistics.median(start), records


def _time(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, capture_output=True)
    return time.perf_counter() - began


def write_long_log(folder: str, layers: int, steps: int) -> int:
    """The log of a run under the default schedule; answers its number of records."""
    layer_set, schedule = _make_layer_set(layers), Schedule()
    rng = np.random.default_rng(0)
    log = EventLog(folder)
    for step in filter(schedule.is_sampled, range(steps)):
        log.write_record(_make_record(step, layer_set, rng))
    log.close()
    return count_sampled(schedule, steps)


def _make_layer_set(layers: int) -> LayerSet:
    """Linear layers and activations by turns."""
    kinds = (("weight", "Linear"), ("activation", "Tanh"))
    return LayerSet(
        tuple(
            Layer(f"layers.{i}", 0, *kinds[i % 2], inputs=(i - 1,) if i else (), output_numel=4096)
            for i in range(layers)
        ),
        tuple(Param(f"layers.{i}.weight", f"layers.{i}", (64, 64)) for i in range(0, layers, 2)),
    )


def _make_record(step: int, layer_set: LayerSet, rng: np.random.Generator) -> StepRecord:
    """Healthy numbers: gradients that keep their size, fractions near zero."""
    shapes = (
        (len(LAYER_STATISTICS), len(layer_set.layers)),
        (
            len(PARAM_STATISTICS),
            len(layer_set.params),
        ),
    )
    layer_values, param_values = (rng.lognormal(-3, 0.1, shape) for shape in shapes)
    params = dict(zip(PARAM_STATISTICS, param_values, strict=True))
    params["weight_l2_norm"] *= 1e3
    params["step_grad_l2_norm"][:] = params["grad_l2_norm"]
    params["loss_change"] *= -1.0
    params["learning_rate"][:] = 0.01
    for name in _FAULTS:
        params[name][:] = 0.0
    loss = 2.0 / (1.0 + step / 1000)
    values = {"passes": 1.0, "loss_scale": 1.0, "learning_rate": 0.01, "loss": loss}
    values["interval"] = 50.0
    step_values = np.array([values.get(name, 0.0) for name in STEP_STATISTICS])
    return StepRecord(step, layer_set, layer_values, param_values, step_values)
