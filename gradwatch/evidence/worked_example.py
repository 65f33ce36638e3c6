"""A network of three calls, typed by hand: what the examples of evidence and verdict run on.

``fc0`` (Linear) -> ``act`` (an activation) -> ``fc1`` (Linear, the head), at one step of SGD. It
takes no torch and no training, and serves as well to try a rule of one's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import nan

import numpy as np

from gradwatch.evidence.gradient_flow import Reading, read_flow
from gradwatch.evidence.history import History
from gradwatch.records import Array, Layer, LayerSet, Param, StepRecord

GivenRows = Mapping[str, float | Sequence[float]]
"""By name of a statistic, one number for all places, or one for each in order."""

_RATE = 0.125
_GRADS = (0.0625, 2.0)

_LAYER: GivenRows = {
    "grad_output_l2_norm": (0.03125, 0.125, 1.0),
    "grad_input_l2_norm": (nan, 0.03125, 0.125),
    "output_l2_norm": (4.0, 2.0, 4.0),
    "grad_zero_fraction": 0.0,
    "saturated_fraction": (nan, 0.0, nan),
    "derivative_mean": (nan, 0.25, nan),
}

_PARAM: GivenRows = {
    "grad_l2_norm": _GRADS,
    "weight_l2_norm": (2.0, 1.0),
    "update_l2_norm": tuple(_RATE * grad for grad in _GRADS),
    "zero_fraction": 0.0,
    "nonfinite_count": 0.0,
    "step_grad_l2_norm": _GRADS,
    "loss_change": tuple(-_RATE * grad**2 for grad in _GRADS),
    "learning_rate": _RATE,
}

_STEP: Mapping[str, float] = {
    "passes": 1.0,
    "loss_scale": 1.0,
    "nonfinite_passes": 0.0,
    "raising_passes": 0.0,
    "learning_rate": _RATE,
    "interval": 1.0,
    "loss": 1.0,
}


def make_layer_set(activation: str = "Sigmoid") -> LayerSet:
    """The network: ``fc0`` and ``fc1`` with a weight of 4 x 4 and of 2 x 4.

    Args:
        activation: class of ``act``.

    Example:
        >>> [layer.type for layer in make_layer_set("ReLU").layers]
        ['Linear', 'ReLU', 'Linear']
    """
    layers = (
        Layer("fc0", 0, "weight", "Linear", output_numel=16),
        Layer("act", 0, "activation", activation, (0,), output_numel=16),
        Layer("fc1", 0, "weight", "Linear", (1,), is_head=True, output_numel=8),
    )
    params = Param("fc0.weight", "fc0", (4, 4)), Param("fc1.weight", "fc1", (2, 4))
    return LayerSet(layers, params)


def make_record(
    global_step: int = 0,
    layer: GivenRows | None = None,
    param: GivenRows | None = None,
    step: GivenRows | None = None,
    layer_set: LayerSet | None = None,
) -> StepRecord:
    """One step of SGD with a rate of 1/8, in which ``fc0`` gets 1/32 of the gradient.

    Args:
        global_step: of the record.
        layer: what differs, by layer statistic: of ``fc0``, ``act`` and ``fc1``.
        param: what differs, by parameter statistic: of ``fc0.weight`` and ``fc1.weight``.
        step: what differs, by statistic of the step.
        layer_set: another network; one of another size has only the numbers that are given.

    Example:
        >>> record = make_record(step={"loss": 0.5})
        >>> record.step("loss"), record.param("grad_l2_norm").tolist()
        (0.5, [0.0625, 2.0])
    """
    known = layer_set or make_layer_set()
    fits = (len(known.layers), len(known.params)) == (3, 2)
    rows = known.rows
    return StepRecord(
        global_step,
        known,
        _fill(rows.all_layer, {**(_LAYER if fits else {}), **(layer or {})}, len(known.layers)),
        _fill(rows.param, {**(_PARAM if fits else {}), **(param or {})}, len(known.params)),
        _fill(rows.step, {**_STEP, **(step or {})}, 1)[:, 0],
    )


def _fill(names: Sequence[str], rows: GivenRows, width: int) -> Array:
    values = np.full((len(names), width), np.nan)
    for name, row in rows.items():
        values[names.index(name)] = row
    return values


def make_reading(
    layer: GivenRows | None = None,
    param: GivenRows | None = None,
    step: GivenRows | None = None,
    layer_set: LayerSet | None = None,
) -> Reading:
    """The same with what follows from it; arguments as those of ``make_record``.

    Args:
        layer: what differs.
        param: what differs.
        step: what differs.
        layer_set: another network.

    Example:
        >>> make_reading().relative_gradient.tolist()
        [0.03125, 0.125, 1.0]
    """
    return read_flow([make_record(0, layer, param, step, layer_set)])[0]


def make_history(records: Iterable[StepRecord]) -> History:
    """The history of a run.

    Args:
        records: in order of training.

    Example:
        >>> history = make_history(make_record(number) for number in range(12))
        >>> history.count, history.last_step
        (12, 11)
    """
    history = History()
    for record in records:
        history.append(record)
    return history
