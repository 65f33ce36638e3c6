"""What one sampled step looked like: plain numbers per layer and per parameter, no torch.

A ``LayerSet`` describes what does not change from step to step (names, kinds, the data flow
between layers); a ``StepRecord`` holds one row of numbers per statistic, aligned with it.
The two tuples ``LAYER_STATISTICS`` and ``PARAM_STATISTICS`` are the schema: the position in the
tuple is the row of the array. NaN means "not measured".
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.errors import UnreadableLog
from gradwatch.schema.packing import pack_rows, unpack_rows

SCHEMA_VERSION = 2

Array = npt.NDArray[np.float64]

GENERAL_STATISTICS: tuple[str, ...] = (
    "grad_output_l2_norm",  # ||dL/d(output)|| of this call, over all its elements
    "grad_input_l2_norm",  # ||dL/d(input)||, this call's own contribution; NaN where there is none
    "output_l2_norm",  # ||output||
    "grad_zero_fraction",  # share of exact zeros in dL/d(output), of a strided sample
)
"""Measured for every layer."""

ACTIVATION_STATISTICS: tuple[str, ...] = (
    "saturated_fraction",  # share of elements with |phi'| < 5 % of its maximum
    "derivative_mean",  # mean |phi'| over the elements
    "zero_fraction",  # share of outputs that are exactly 0 (ReLU family)
    "dead_fraction",  # share of units that fired for no sample of the window (ReLU family)
    "unit_samples",  # samples that each unit of that window has seen
)
"""Measured for layers with the role ``"activation"`` only; NaN elsewhere, and not stored."""

LAYER_STATISTICS = GENERAL_STATISTICS + ACTIVATION_STATISTICS
"""Rows of ``StepRecord.layer_values``."""

PARAM_STATISTICS: tuple[str, ...] = (
    "grad_l2_norm",  # ||g||; NaN where the gradient is None, which is not the same as 0
    "weight_l2_norm",  # ||w|| before the step
    "update_l2_norm",  # ||dw|| of the step just made, without weight decay's part
    "zero_fraction",  # share of exact zeros in g, of a strided sample
    "nonfinite_count",  # elements of g that are NaN or Inf
    "step_grad_l2_norm",  # ||g|| as the optimizer gets it: clipped, unscaled, or put there by hand
    "loss_change",  # g . dw: first-order change of the loss by this parameter's own update
)
"""Rows of ``StepRecord.param_values``."""

HISTOGRAM_EDGES: tuple[float, ...] = tuple(-8 + edge / 4 for edge in range(65))
"""Edges of the 64 bins of a pre-activation histogram; what lies outside counts to the last bin."""

STEP_STATISTICS: tuple[str, ...] = (
    "passes",  # backward passes that were merged into this record (accumulation)
    "loss_scale",  # factor of a GradScaler that was divided out; 1 without
    "nonfinite_passes",  # passes with a NaN or Inf in an activation's gradient
    "learning_rate",  # largest learning rate in the optimizers' groups; NaN when unknown
    "interval",  # sampling interval in force, optimizer steps
    "loss",  # value that backward was called on, summed over the step's passes; NaN when unknown
)
"""Entries of ``StepRecord.step_values``."""


@dataclass(frozen=True)
class Layer:
    """One call of a module or of an activation, in the order in which forward reached them.

    Attributes:
        fqn: fully qualified name of the module; for an activation called as a function the name of
            the module that called it, ``":"``, and the function (``"block.0:tanh"``).
        call: 0 for the first call of this name in a pass, 1 for the next.
        role: ``"weight"`` (owns a parameter matrix), ``"norm"``, ``"activation"``, ``"recurrent"``,
            ``"embedding"``, ``"container"`` or ``"other"``.
        type: class or function name, such as ``"Linear"`` or ``"sigmoid"``.
        inputs: indices of the layers whose outputs reach this one's input.
        is_gate: an activation whose output multiplies something else; being sure is its job.
        is_head: no weight comes after it on any path to the loss.
        dtype: of the output, such as ``"float32"``.
        output_numel: elements of the output.
        passes_float16: values between the inputs' outputs and this layer's input are float16.
    """

    fqn: str
    call: int = 0
    role: str = "other"
    type: str = ""
    inputs: tuple[int, ...] = ()
    is_gate: bool = False
    is_head: bool = False
    dtype: str = "float32"
    output_numel: int = 0
    passes_float16: bool = False

    @property
    def key(self) -> str:
        """Name that stays the same from one layer set to the next."""
        return f"{self.fqn}#{self.call}" if self.call else self.fqn


@dataclass(frozen=True)
class Param:
    """One parameter tensor.

    Attributes:
        fqn: name as in ``model.named_parameters()``; the first one for tied weights.
        module: fqn of the module that owns it.
        shape: of the whole parameter, also when it is sharded.
        role: ``"weight"`` (two dimensions or more), ``"bias"``, ``"norm"``, ``"embedding"`` or
            ``"scalar"``.
        dtype: such as ``"float32"``.
        trainable: requires a gradient when this set began.
        optimized: an optimizer that we know holds it; all are when none was given.
        optimizer: number of that optimizer among those of the watch; 0 when none was given.
        used: the module that owns it took part in forward.
        aliases: further names of a tied parameter.
    """

    fqn: str
    module: str = ""
    shape: tuple[int, ...] = ()
    role: str = "weight"
    dtype: str = "float32"
    trainable: bool = True
    optimized: bool = True
    optimizer: int = 0
    used: bool = True
    aliases: tuple[str, ...] = ()

    @property
    def numel(self) -> int:
        """Number of elements of the whole parameter."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class LayerSet:
    """Everything about the layers that stays the same over many steps."""

    layers: tuple[Layer, ...] = ()
    params: tuple[Param, ...] = ()
    notes: tuple[str, ...] = ()  # what could not be seen, in words, such as "attention inside ..."

    def to_json(self) -> str:
        """Serialise, compactly and deterministically, in ASCII: a name may hold any character."""
        content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> LayerSet:
        """Read back what ``to_json`` wrote.

        Raises:
            UnreadableLog: not JSON of ours, or of a newer schema.
        """
        try:
            content = json.loads(text)
            version = content["schema_version"]
            layers = tuple(_revive(Layer, one) for one in content["layers"])
            params = tuple(_revive(Param, one) for one in content["params"])
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableLog(
                f"Expected a layer set written by gradwatch, got {text[:60]!r} ({error}). "
                "Was this event file written by another program?"
            ) from error
        if version > SCHEMA_VERSION:
            raise UnreadableLog(
                f"Expected schema version {SCHEMA_VERSION} or older, got {version}. "
                "Read this run with the gradwatch that wrote it, or a newer one."
            )
        return cls(layers, params, tuple(content.get("notes", ())))

    @cached_property
    def activations(self) -> npt.NDArray[np.int64]:
        """Indices of the layers with the role ``"activation"``."""
        chosen = [i for i, layer in enumerate(self.layers) if layer.role == "activation"]
        return np.array(chosen, dtype=np.int64)

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits that name this set, for the tag of its records."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:8]


def _revive(cls: type[Any], content: dict[str, Any]) -> Any:
    known = {one.name for one in dataclasses.fields(cls)}
    values = {name: value for name, value in content.items() if name in known}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass(frozen=True)
class StepRecord:
    """One sampled optimizer step.

    Attributes:
        global_step: number of optimizer steps made before this one.
        layer_set: what the columns mean.
        layer_values: float64 ``(len(LAYER_STATISTICS), len(layer_set.layers))``.
        param_values: float64 ``(len(PARAM_STATISTICS), len(layer_set.params))``.
        step_values: float64 ``(len(STEP_STATISTICS),)``.
        histograms: pre-activation counts of some activations on some steps, by layer key
            (``HISTOGRAM_EDGES`` in ``gradwatch.records``); empty on most steps.
    """

    global_step: int
    layer_set: LayerSet
    layer_values: Array
    param_values: Array
    step_values: Array
    histograms: dict[str, Array] = field(default_factory=dict)

    def layer(self, statistic: str) -> Array:
        """One statistic of all layers, ``(n_layers,)``."""
        row: Array = self.layer_values[LAYER_STATISTICS.index(statistic)]
        return row

    def param(self, statistic: str) -> Array:
        """One statistic of all parameters, ``(n_params,)``."""
        row: Array = self.param_values[PARAM_STATISTICS.index(statistic)]
        return row

    def step(self, statistic: str) -> float:
        """One number of the whole step."""
        return float(self.step_values[STEP_STATISTICS.index(statistic)])

    def layer_records(self) -> Iterator[LayerRecord]:
        """The same numbers layer by layer, for reading and printing."""
        for index, layer in enumerate(self.layer_set.layers):
            values = dict(zip(LAYER_STATISTICS, self.layer_values[:, index].tolist(), strict=True))
            yield LayerRecord(layer, values)

    def to_vector(self) -> npt.NDArray[np.float32]:
        """All numbers as one float32 vector: step, layers, activations, parameters; packed."""
        n_general = len(GENERAL_STATISTICS)
        special = self.layer_values[n_general:, self.layer_set.activations]
        return pack_rows(
            self.step_values, (*self.layer_values[:n_general], *special, *self.param_values)
        )

    @classmethod
    def from_vector(
        cls, global_step: int, layer_set: LayerSet, vector: npt.NDArray[np.float32]
    ) -> StepRecord:
        """Read back what ``to_vector`` wrote.

        Raises:
            UnreadableLog: the vector's length does not belong to the layer set.
        """
        n_layers, n_params = len(layer_set.layers), len(layer_set.params)
        chosen = layer_set.activations
        n_general, n_special = len(GENERAL_STATISTICS), len(ACTIVATION_STATISTICS)
        counts = (n_general, n_special, len(PARAM_STATISTICS))
        widths = (n_layers, len(chosen), n_params)
        vector = unpack_rows(vector, len(STEP_STATISTICS), np.repeat(widths, counts).tolist())
        sizes = (len(STEP_STATISTICS), *np.multiply(widths, counts).tolist())
        if vector.shape != (sum(sizes),):
            raise UnreadableLog(
                f"Expected a record of {sum(sizes)} numbers at step {global_step}, got shape "
                f"{vector.shape}. The event file is damaged; run the training again."
            )
        step, general, special, param = np.split(
            vector.astype(np.float64), np.cumsum(sizes)[:-1].tolist()
        )
        layer_values = np.full((n_general + n_special, n_layers), np.nan)
        layer_values[:n_general] = general.reshape(n_general, n_layers)
        layer_values[n_general:, chosen] = special.reshape(n_special, len(chosen))
        return cls(
            global_step,
            layer_set,
            layer_values,
            param.reshape(len(PARAM_STATISTICS), n_params),
            step,
        )


@dataclass(frozen=True)
class LayerRecord:
    """One layer of one sampled step, by the names of ``LAYER_STATISTICS``."""

    layer: Layer
    values: dict[str, float]
