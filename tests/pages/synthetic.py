"""Records as real runs make them, without training: any number of layers and steps, seeded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from gradwatch.display.figures.units import EDGES
from gradwatch.records import (
    LAYER_STATISTICS,
    PARAM_STATISTICS,
    STEP_STATISTICS,
    Layer,
    LayerSet,
    Param,
    StepRecord,
)

Naming = Callable[[int], str]

HOSTILE = '<img src=x onerror="window.hacked=1"><b>\'"&`../..\\ λ'
"""A ModuleDict key can hold anything but a dot."""


def name_plain(index: int) -> str:
    """``fc1``, ``fc2``, ..."""
    return f"fc{index + 1}"


def name_long(index: int) -> str:
    """80 characters that differ in the middle, as in a model wrapped several times."""
    before, after = (
        "model.encoder.backbone.transformer.blocks",
        "feed_forward.projection.linear.inner",
    )
    return f"{before}.{index:03d}.{after}"


def make_layer_set(
    n_layers: int, activation: str = "Sigmoid", name: Naming = name_plain
) -> LayerSet:
    """A chain of ``Linear`` and an activation after each but the last."""
    layers: list[Layer] = []
    for index in range(n_layers):
        before = (len(layers) - 1,) if layers else ()
        last = index == n_layers - 1
        layers.append(
            Layer(name(index), 0, "weight", "Linear", before, is_head=last, output_numel=4096)
        )
        if not last:
            fqn = f"{name(index)}:{activation.lower()}"
            place = (len(layers) - 1,)
            layers.append(Layer(fqn, 0, "activation", activation, place, output_numel=4096))
    params = tuple(Param(f"{name(i)}.weight", name(i), (64, 64)) for i in range(n_layers))
    return LayerSet(tuple(layers), params)


def make_records(
    layer_set: LayerSet,
    steps: list[int],
    *,
    gain: float | Callable[[int], float] = 0.22,
    saturated: float = 0.0,
    dead: float = 0.0,
    seed: int = 0,
    histogram_every: int = 0,
) -> Iterator[StepRecord]:
    """Records in which every activation multiplies the gradient by ``gain`` (of the step)."""
    rng = np.random.default_rng(seed)
    for count, step in enumerate(steps):
        here = gain(step) if callable(gain) else gain
        values = _layer_values(layer_set, here, saturated, dead, rng)
        record = StepRecord(
            step, layer_set, values, _params(layer_set, values, rng), _step_values()
        )
        if histogram_every and count % histogram_every == 0:
            record.histograms.update(_histograms(layer_set, rng))
        yield record


def _layer_values(
    layer_set: LayerSet, gain: float, saturated: float, dead: float, rng: np.random.Generator
) -> np.ndarray:
    n = len(layer_set.layers)
    values = dict.fromkeys(LAYER_STATISTICS, np.full(n, np.nan))
    is_act = np.array([layer.role == "activation" for layer in layer_set.layers])
    rectifies = np.array([layer.type.lower() == "relu" for layer in layer_set.layers])
    steps = np.where(is_act, np.log(gain), np.log(0.98)) + rng.normal(0, 0.05, n)
    arriving = np.append(np.cumsum(steps[::-1])[::-1][1:], 0.0)  # log of the gradient at the output
    values["grad_output_l2_norm"] = np.exp(np.maximum(arriving, -180))
    values["grad_input_l2_norm"] = np.exp(np.maximum(arriving + steps, -180))
    values["grad_input_l2_norm"][0] = np.nan
    values["output_l2_norm"] = np.full(n, 30.0)
    noise = rng.uniform(0, 0.01, n)
    values["saturated_fraction"] = np.where(
        is_act, np.where(rectifies, 0.5, np.clip(saturated + noise, 0, 1)), np.nan
    )
    values["derivative_mean"] = np.where(is_act, 0.22, np.nan)
    values["zero_fraction"] = np.where(rectifies, 0.5 + noise, np.nan)
    values["dead_fraction"] = np.where(rectifies, dead, np.nan)
    values["grad_zero_fraction"] = np.zeros(n)
    return np.stack([values[name] for name in LAYER_STATISTICS])


def _params(layer_set: LayerSet, layer_values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Weights of plain gradient descent: gradient and update follow the layer's own gradient."""
    arriving = layer_values[LAYER_STATISTICS.index("grad_output_l2_norm")]
    index = {layer.fqn: place for place, layer in enumerate(layer_set.layers)}
    own = arriving[[index[param.module] for param in layer_set.params]]
    n = len(own)
    values = dict.fromkeys(PARAM_STATISTICS, np.full(n, np.nan))
    values["zero_fraction"] = values["nonfinite_count"] = np.zeros(n)
    values["grad_l2_norm"] = values["step_grad_l2_norm"] = 10 * own
    values["weight_l2_norm"] = np.full(n, 5.0)
    values["update_l2_norm"] = 5e-3 * own * np.exp(rng.normal(0, 0.1, n))
    values["loss_change"] = -values["grad_l2_norm"] * values["update_l2_norm"]
    return np.stack([values[name] for name in PARAM_STATISTICS])


def _step_values() -> np.ndarray:
    known = {
        "passes": 1.0,
        "nonfinite_passes": 0.0,
        "raising_passes": 0.0,
        "loss_scale": 1.0,
        "learning_rate": 1e-3,
        "interval": 1.0,
    }
    return np.array([known.get(name, np.nan) for name in STEP_STATISTICS])


def _histograms(layer_set: LayerSet, rng: np.random.Generator) -> dict[str, np.ndarray]:
    keys = [layer.key for layer in layer_set.layers if layer.role == "activation"][:8]
    drawn = {key: rng.normal(0.3 * place, 1.0, 4096) for place, key in enumerate(keys)}
    low, high = EDGES[0], EDGES[-1]
    return {
        key: np.histogram(np.clip(z, low, high), bins=EDGES)[0].astype(float)
        for key, z in drawn.items()
    }
