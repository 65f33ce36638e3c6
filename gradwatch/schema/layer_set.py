"""What the columns and rows of records mean: layers, parameters, names of statistics; as JSON.

A log says of itself which statistics it holds. A reader finds them by name, so that it reads the
logs of older and of newer versions alike.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.errors import UnreadableLog
from gradwatch.schema.cut import Cut
from gradwatch.schema.statistics import list_names

OUTSIDE = "(outside)"
"""What stands for a module in the name of an activation that is called between forward and loss:
``"(outside):tanh"``."""

HIDDEN_WAYS = "a reentrant checkpoint hides which layer feeds which"
"""Note of a layer set whose layers have no inputs for that reason."""

SCHEMA_VERSION = 3
"""1: all numbers as they are. 2: rows of equal numbers take one. 3: layer sets name their rows."""

GENERAL_STATISTICS = list_names("layer")
"""Measured for every layer."""

ACTIVATION_STATISTICS = list_names("activation")
"""Measured for layers with the role ``"activation"`` only; NaN elsewhere, and not stored."""

LAYER_STATISTICS = GENERAL_STATISTICS + ACTIVATION_STATISTICS
"""Rows of ``StepRecord.layer_values`` that gradwatch itself measures."""

PARAM_STATISTICS = list_names("param")
"""Rows of ``StepRecord.param_values`` that gradwatch itself measures."""

STEP_STATISTICS = list_names("step")
"""Entries of ``StepRecord.step_values`` that gradwatch itself measures."""


@dataclass(frozen=True)
class Rows:
    """Names of the statistics in a layer set's records, in the order in which they are stored.

    Attributes:
        step: entries of ``StepRecord.step_values``.
        layer: first rows of ``StepRecord.layer_values``.
        activation: rows behind them, stored for activations only.
        param: rows of ``StepRecord.param_values``.
    """

    step: tuple[str, ...] = STEP_STATISTICS
    layer: tuple[str, ...] = GENERAL_STATISTICS
    activation: tuple[str, ...] = ACTIVATION_STATISTICS
    param: tuple[str, ...] = PARAM_STATISTICS

    @classmethod
    def list_current(cls) -> Rows:
        """All statistics that are known now, with those that were registered."""
        return cls(
            list_names("step"), list_names("layer"), list_names("activation"), list_names("param")
        )

    @cached_property
    def all_layer(self) -> tuple[str, ...]:
        """Rows of ``StepRecord.layer_values``."""
        return self.layer + self.activation

    @cached_property
    def places(self) -> dict[str, dict[str, int]]:
        """By scope (``"step"``, ``"layer"``, ``"param"``), the row of each name."""
        names = {"step": self.step, "layer": self.all_layer, "param": self.param}
        return {
            scope: {name: row for row, name in enumerate(found)} for scope, found in names.items()
        }


ROWS_OF_SCHEMA_2 = Rows(
    step=("passes", "loss_scale", "nonfinite_passes", "learning_rate", "interval"),
    layer=("grad_output_l2_norm", "grad_input_l2_norm", "output_l2_norm", "grad_zero_fraction"),
    activation=(
        *("saturated_fraction", "derivative_mean", "zero_fraction"),
        *("dead_fraction", "unit_samples"),
    ),
    param=(
        *("grad_l2_norm", "weight_l2_norm", "update_l2_norm"),
        *("zero_fraction", "nonfinite_count"),
    ),
)
"""Of logs that do not name their rows: schema 1 and 2. It never changes."""


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
        source: line of the user's code that called it when it was first seen, such as
            ``"path/model.py:42"``; empty where it is not known.
        step_axis: dimension of the output of which a loop reads one time step after the other; -1:
            none is known.
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
    source: str = ""
    step_axis: int = -1

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
        replaced: no optimizer holds it, but one holds a tensor of its shape, or with one side
            resized, that the model has no longer.
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
    replaced: bool = False

    @property
    def layer(self) -> str:
        """Fqn of the layer that it is of: its owner, or what a parametrization of torch's is on."""
        return f".{self.module}".partition(".parametrizations.")[0].removeprefix(".")

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
    rows: Rows = field(default=Rows(), repr=False)
    cuts: tuple[Cut, ...] = ()  # calls in forward that let no gradient through

    def to_json(self) -> str:
        """Serialise, compactly and deterministically, in ASCII: a name may hold any character.

        Example:
            >>> LayerSet((Layer("fc"),)).to_json()[:40]
            '{"schema_version":3,"layers":[{"fqn":"fc'
        """
        content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> LayerSet:
        """Read back what ``to_json`` wrote.

        Args:
            text: JSON of this or an older schema version.

        Raises:
            UnreadableLog: not JSON of ours, or of a newer schema.

        Example:
            >>> LayerSet.from_json(LayerSet((Layer("fc"),)).to_json()).layers[0].fqn
            'fc'
        """
        try:
            content = json.loads(text)
            version = int(content["schema_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise _refuse(text, error) from error
        if version > SCHEMA_VERSION:
            raise UnreadableLog(
                f"Expected schema version {SCHEMA_VERSION} or older, got {version}. "
                "Read this run with the gradwatch that wrote it, or a newer one."
            )
        return _revive_layer_set(content, text)

    @cached_property
    def activations(self) -> npt.NDArray[np.int64]:
        """Indices of the layers with the role ``"activation"``."""
        chosen = [i for i, layer in enumerate(self.layers) if layer.role == "activation"]
        return np.array(chosen, dtype=np.int64)

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits that name this set, for the tag of its records."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:8]


def _revive_layer_set(content: dict[str, Any], text: str) -> LayerSet:
    try:
        rows = content.get("rows")
        return LayerSet(
            tuple(_revive(Layer, layer) for layer in content["layers"]),
            tuple(_revive(Param, param) for param in content["params"]),
            tuple(content.get("notes", ())),
            ROWS_OF_SCHEMA_2 if rows is None else _revive_rows(rows),
            tuple(_revive(Cut, cut) for cut in content.get("cuts", ())),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _refuse(text, error) from error


def _refuse(text: str, error: Exception) -> UnreadableLog:
    return UnreadableLog(
        f"Expected a layer set written by gradwatch, got {text[:60]!r} ({error}). "
        "Was this event file written by another program?"
    )


def _revive_rows(content: dict[str, list[str]]) -> Rows:
    rows = Rows(**{scope: tuple(map(str, names)) for scope, names in content.items()})
    for names in (rows.step, rows.all_layer, rows.param):
        if len(set(names)) < len(names):
            raise ValueError(f"a row is named twice among {', '.join(names)}")
    return rows


def _revive(cls: type[Any], content: dict[str, Any]) -> Any:
    known = {row.name for row in dataclasses.fields(cls)}
    values = {name: value for name, value in content.items() if name in known}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
