"""Hand-made records: networks whose gains, updates and outputs are given, not trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from gradwatch.evidence.gradient_flow import Reading, read_flow
from gradwatch.evidence.history import History
from gradwatch.records import (
    LAYER_STATISTICS,
    PARAM_STATISTICS,
    STEP_STATISTICS,
    Layer,
    LayerSet,
    Param,
    StepRecord,
)

WIDTH = 64
BATCH = 16
NUMEL = WIDTH * BATCH
WEIGHT_NORM = WIDTH**0.5  # LeCun's scale for a square matrix

ROLES = {
    "Linear": "weight",
    "Embedding": "embedding",
    "RNNCell": "recurrent",
    "LayerNorm": "norm",
    "Add": "container",
}
SPREADS = ("rank_grad_spread", "rank_step_grad_spread", "rank_weight_spread")
MAX_DERIVATIVE = {"Sigmoid": 0.25}
RECTIFYING = ("ReLU",)


class Network:
    """A network written down layer by layer; each layer follows the one before by default."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.params: list[Param] = []

    def add(self, fqn: str, kind: str, inputs: Iterable[int] | None = None, **facts) -> int:
        """Append a call of a module; answers its index."""
        before = (len(self.layers) - 1,) if self.layers else ()
        role = ROLES.get(kind, "activation")
        call = sum(layer.fqn == fqn for layer in self.layers)
        sources = before if inputs is None else tuple(inputs)
        facts = {"output_numel": NUMEL, **facts}
        self.layers.append(Layer(fqn, call, role, kind, sources, **facts))
        if role in ("weight", "embedding", "recurrent") and call == 0:
            shape = (WIDTH, WIDTH)
            param_role = "embedding" if role == "embedding" else "weight"
            self.params.append(Param(f"{fqn}.weight", fqn, shape, param_role))
        return len(self.layers) - 1

    def add_param(self, fqn: str, **facts) -> None:
        module = fqn.rpartition(".")[0]
        self.params.append(Param(fqn, module, (WIDTH, WIDTH), **facts))

    def build(self) -> LayerSet:
        return LayerSet(tuple(self.layers), tuple(self.params))


def build_chain(n_weights: int, activation: str = "Sigmoid", dtype: str = "float32") -> LayerSet:
    """``fc0``, ``act0``, ``fc1``, ... up to the head, which has no activation behind it."""
    net = Network()
    for number in range(n_weights - 1):
        net.add(f"fc{number}", "Linear", dtype=dtype)
        net.add(f"act{number}", activation, dtype=dtype)
    net.add(f"fc{n_weights - 1}", "Linear", dtype=dtype, is_head=True)
    return net.build()


def make_record(
    layer_set: LayerSet,
    global_step: int = 0,
    gains: Mapping[str, float] | None = None,
    loss_gradient: float = 1.0,
    learning_rate: float = 0.1,
    update_ratio: float | None = None,
    loss: float = np.nan,
) -> StepRecord:
    """A step of SGD in which each layer multiplies the gradient by a given gain.

    Args:
        gains: by fqn, by type or by role, in this order of precedence; 1 where nothing is given.
        loss_gradient: gradient at the outputs.
        update_ratio: of every weight; by default learning rate times gradient over weight.
        loss: of the step; with it go the loss changes, where each update goes down its gradient.
    """
    factors = [_find_gain(layer, gains or {}) for layer in layer_set.layers]
    grad = _walk_back(layer_set, factors, loss_gradient)
    layer_values = np.full((len(LAYER_STATISTICS), len(layer_set.layers)), np.nan)
    put = dict(zip(LAYER_STATISTICS, layer_values, strict=True))
    put["grad_output_l2_norm"][:] = grad
    put["grad_input_l2_norm"][:] = grad * factors
    put["output_l2_norm"][:] = NUMEL**0.5
    put["grad_zero_fraction"][:] = grad == 0
    for index, layer in enumerate(layer_set.layers):
        if layer.role == "activation":
            _describe_activation(put, index, layer)
    param_values = _make_param_values(layer_set, grad, learning_rate)
    if update_ratio is not None:
        update = PARAM_STATISTICS.index("update_l2_norm")
        param_values[update] = update_ratio * WEIGHT_NORM
    if np.isfinite(loss):
        rows = dict(zip(PARAM_STATISTICS, param_values, strict=True))
        rows["loss_change"][:] = -rows["grad_l2_norm"] * rows["update_l2_norm"]
    steps = {"loss": loss, "passes": 1, "loss_scale": 1, "nonfinite_passes": 0, "interval": 1}
    steps["learning_rate"] = learning_rate
    step_values = np.array([steps.get(name, np.nan) for name in STEP_STATISTICS], dtype=np.float64)
    return StepRecord(global_step, layer_set, layer_values, param_values, step_values)


def _find_gain(layer: Layer, gains: Mapping[str, float]) -> float:
    named = (gains[name] for name in (layer.fqn, layer.type, layer.role) if name in gains)
    return next(named, 1.0)


def _walk_back(layer_set: LayerSet, factors: list[float], loss_gradient: float) -> np.ndarray:
    """Gradients of several consumers add up in squares, as independent ones do."""
    arriving = np.zeros(len(factors))
    fed = {source for layer in layer_set.layers for source in layer.inputs}
    for index in range(len(factors) - 1, -1, -1):
        if index not in fed:
            arriving[index] = loss_gradient
        for source in layer_set.layers[index].inputs:
            arriving[source] = np.hypot(arriving[source], arriving[index] * factors[index])
    return arriving


def _describe_activation(put: Mapping[str, np.ndarray], index: int, layer: Layer) -> None:
    put["saturated_fraction"][index] = 0.0
    put["derivative_mean"][index] = 0.9 * MAX_DERIVATIVE.get(layer.type, 1.0)
    if layer.type in RECTIFYING:
        put["zero_fraction"][index] = 0.5
        put["dead_fraction"][index] = 0.0
        put["unit_samples"][index] = 1000.0


def _make_param_values(layer_set: LayerSet, grad: np.ndarray, learning_rate: float) -> np.ndarray:
    places = {layer.fqn: index for index, layer in reversed(list(enumerate(layer_set.layers)))}
    own = [
        grad[places[param.module]] if param.module in places else 1.0 for param in layer_set.params
    ]
    values = np.zeros((len(PARAM_STATISTICS), len(layer_set.params)))
    put = dict(zip(PARAM_STATISTICS, values, strict=True))
    put["grad_l2_norm"][:] = put["step_grad_l2_norm"][:] = own
    put["learning_rate"][:] = learning_rate
    for absent in ("stale_grad_l2_norm", *SPREADS):
        put[absent][:] = np.nan
    put["zero_fraction"][:] = np.equal(own, 0)
    put["weight_l2_norm"][:] = WEIGHT_NORM
    put["update_l2_norm"][:] = learning_rate * np.array(own)
    return values


def change(record: StepRecord, statistic: str, values: Mapping[str, float] | float) -> StepRecord:
    """The record with one layer statistic changed, by fqn or everywhere."""
    names = [layer.fqn for layer in record.layer_set.layers]
    rows = _put(record.layer_values, LAYER_STATISTICS.index(statistic), names, values)
    return replace(record, layer_values=rows)


def change_param(
    record: StepRecord, statistic: str, values: Mapping[str, float] | float
) -> StepRecord:
    """The record with one parameter statistic changed, by fqn or everywhere."""
    names = [param.fqn for param in record.layer_set.params]
    rows = _put(record.param_values, PARAM_STATISTICS.index(statistic), names, values)
    return replace(record, param_values=rows)


def change_step(record: StepRecord, **values: float) -> StepRecord:
    """The record with other numbers of the whole step."""
    names = record.layer_set.rows.step
    known = {**dict(zip(names, record.step_values, strict=True)), **values}
    return replace(record, step_values=np.array([known[name] for name in names]))


def _put(rows: np.ndarray, row: int, names: list[str], values: Mapping[str, float] | float):
    changed = rows.copy()
    given = values if isinstance(values, Mapping) else dict.fromkeys(names, values)
    for name, value in given.items():
        for index in [place for place, other in enumerate(names) if other == name]:
            changed[row, index] = value
    return changed


def unroll(steps: int, kind: str = "RNNCell") -> LayerSet:
    """A cell called in a loop, then a head on the last state."""
    net = Network()
    for _ in range(steps):
        net.add("cell", kind)
    net.add("head", "Linear", is_head=True)
    return net.build()


def give(layer_set: LayerSet, grads: list[float]) -> StepRecord:
    """A record with the gradients of the first layers given."""
    record = make_record(layer_set)
    record.layer("grad_output_l2_norm")[: len(grads)] = grads
    record.layer("grad_zero_fraction")[: len(grads)] = np.equal(grads, 0)
    return record


def repeat(record: StepRecord, times: int, every: int = 1, start: int = 0) -> list[StepRecord]:
    """The same numbers at one sampled step after the other."""
    return [replace(record, global_step=start + every * index) for index in range(times)]


def read(record: StepRecord) -> Reading:
    return read_flow([record])[0]


def fill_history(records: Iterable[StepRecord]) -> History:
    history = History()
    for record in records:
        history.append(record)
    return history
