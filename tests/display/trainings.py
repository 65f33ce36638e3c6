"""Records as an unhealthy and a healthy training leave them, without a training."""

from __future__ import annotations

import numpy as np

from gradwatch.records import (
    LAYER_STATISTICS,
    PARAM_STATISTICS,
    STEP_STATISTICS,
    Layer,
    LayerSet,
    Param,
    StepRecord,
)

DEPTH = 12
N_RECORDS = 30


def make_training(phi_gain: float = 1.0, n_records: int = N_RECORDS) -> list[StepRecord]:
    """A chain of Linear and Sigmoid under SGD whose activations pass on ``phi_gain`` each."""
    layer_set = _make_chain()
    grads = np.array([phi_gain ** (DEPTH - 1 - (i + 1) // 2) for i in range(2 * DEPTH - 1)])
    return [_make_step(step, layer_set, grads, phi_gain) for step in range(n_records)]


def _make_chain() -> LayerSet:
    layers = []
    for index in range(2 * DEPTH - 1):
        fqn = f"fc{index // 2 + 1}" if index % 2 == 0 else f"act{index // 2 + 1}"
        is_weight = index % 2 == 0
        layers.append(
            Layer(
                fqn,
                role="weight" if is_weight else "activation",
                type="Linear" if is_weight else "Sigmoid",
                inputs=(index - 1,) if index else (),
                is_head=index == 2 * DEPTH - 2,
                output_numel=64 * 64,
            )
        )
    params = tuple(
        Param(f"fc{i + 1}.weight", module=f"fc{i + 1}", shape=(64, 64)) for i in range(DEPTH)
    )
    return LayerSet(tuple(layers), params)


def _make_step(step: int, layer_set: LayerSet, grads: np.ndarray, phi_gain: float) -> StepRecord:
    layer_values = np.full((len(LAYER_STATISTICS), len(grads)), np.nan)
    rows = {name: layer_values[place] for place, name in enumerate(LAYER_STATISTICS)}
    is_activation = np.array([layer.role == "activation" for layer in layer_set.layers])
    rows["grad_output_l2_norm"][:] = grads
    rows["grad_input_l2_norm"][1:] = grads[:-1]
    rows["output_l2_norm"][:] = 30.0
    rows["grad_zero_fraction"][:] = 0.0
    rows["saturated_fraction"][is_activation] = 0.02
    rows["derivative_mean"][is_activation] = min(phi_gain, 1.0)
    param_values = np.zeros((len(PARAM_STATISTICS), DEPTH))
    rows = {name: param_values[place] for place, name in enumerate(PARAM_STATISTICS)}
    rows["grad_l2_norm"][:] = grads[::2]
    rows["weight_l2_norm"][:] = 8.0
    rows["update_l2_norm"][:] = 0.01 * grads[::2]
    rows["step_grad_l2_norm"][:] = grads[::2]
    rows["loss_change"][:] = -0.01 * grads[::2] ** 2
    step_values = np.ones(len(STEP_STATISTICS))
    return StepRecord(step, layer_set, layer_values, param_values, step_values)
