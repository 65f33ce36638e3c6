"""Records as no training makes them, for hypothesis: any numbers, any layers, any data flow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from gradwatch.evidence.time_steps import TIME
from gradwatch.records import (
    LAYER_STATISTICS,
    PARAM_STATISTICS,
    STEP_STATISTICS,
    Layer,
    LayerSet,
    Param,
    StepRecord,
)
from gradwatch.thresholds import Thresholds

NUMBERS = np.array(
    [np.nan, np.nan, np.inf, 0.0, 5e-324, 1e-25, 1e-6, 0.3, 0.95, 1.0, 7.0, 1e12, 1e300]
)
"""Norms and counts: never negative, but anything else."""

SHARES = np.array([np.nan, 0.0, 1e-9, 0.3, 0.65, 0.95, 0.995, 1.0])

SAMPLES = np.array([0.0, 1.0, 10.0, 1e6])
"""Counted wherever ``dead_fraction`` is measured."""

ROLES = ("weight", "norm", "activation", "recurrent", "embedding", "container", "other")
TYPES = ("Linear", "Sigmoid", "tanh", "ReLU", "clamp_min", "softmax", "LSTM", "")
DTYPES = ("float32", "float16", "bfloat16")
NAMES = ("", "fc", "fc1", "net.0", "net.1", "net.1:relu", "rnn:time", "слой", "\ud800")
PARAM_ROLES = ("weight", "bias", "norm", "embedding", "scalar")
SHAPES = ((), (0,), (3,), (4, 3), (2, 3, 3, 3))


@st.composite
def layer_sets(draw: st.DrawFn) -> LayerSet:
    """Up to eight calls, in any order of data flow, and up to six parameters, in use or not."""
    n_layers, n_params = draw(st.integers(0, 8)), draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_buckets = int(rng.choice((0, 0, Thresholds().recurrent_calls)))
    bucket = Layer(f"rnn{TIME}", role="recurrent", type="RNN", output_numel=64)
    layers = [replace(bucket, call=index) for index in range(n_buckets)]
    for index in range(n_buckets, n_buckets + n_layers):
        fqn = str(rng.choice(NAMES))
        call = sum(layer.fqn == fqn for layer in layers)
        inputs = tuple(
            i for i in range(n_buckets + n_layers) if rng.random() < (0.5 if i < index else 0.02)
        )
        facts = {
            "role": str(rng.choice(ROLES)),
            "type": str(rng.choice(TYPES)),
            "is_gate": bool(rng.random() < 0.2),
            "is_head": bool(rng.random() < 0.2),
            "dtype": str(rng.choice(DTYPES)),
            "output_numel": int(rng.choice((0, 1, 640))),
        }
        layers.append(Layer(fqn, call, inputs=inputs, **facts))
    params = tuple(_draw_param(rng, index) for index in range(n_params))
    return LayerSet(tuple(layers), params)


def _draw_param(rng: np.random.Generator, index: int) -> Param:
    module = str(rng.choice(NAMES))
    trainable, optimized, used = (bool(flag) for flag in rng.random(3) < 0.8)
    return Param(
        f"{module}.w{index}",
        module,
        SHAPES[rng.integers(len(SHAPES))],
        str(rng.choice(PARAM_ROLES)),
        str(rng.choice(DTYPES)),
        trainable,
        optimized,
        used,
    )


def fill(layer_set: LayerSet, global_step: int, rng: np.random.Generator) -> StepRecord:
    """Any numbers at all."""
    layer_values = [
        rng.choice(_choose_range(statistic), len(layer_set.layers))
        for statistic in LAYER_STATISTICS
    ]
    param_values = [
        rng.choice(_choose_range(statistic), len(layer_set.params))
        for statistic in PARAM_STATISTICS
    ]
    step_values = rng.choice(NUMBERS, len(STEP_STATISTICS))
    return StepRecord(
        global_step, layer_set, np.array(layer_values), np.array(param_values), step_values
    )


def _choose_range(statistic: str) -> np.ndarray:
    if statistic == "unit_samples":
        return SAMPLES
    return SHARES if statistic.endswith(("_fraction", "derivative_mean")) else NUMBERS


@st.composite
def runs(draw: st.DrawFn) -> list[StepRecord]:
    """Up to a dozen records; layer sets change on the way, numbers stay for some steps."""
    sets = draw(st.lists(layer_sets(), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    every = draw(st.sampled_from((1, 50)))
    records: list[StepRecord] = []
    for _ in range(draw(st.integers(1, 3))):
        record = fill(sets[rng.integers(len(sets))], 0, rng)
        for _ in range(rng.integers(1, 7)):
            records.append(replace(record, global_step=every * len(records)))
    return records
