"""Which layers of a layer set make which rows of the pictures, and what counts for each row."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradwatch.records import Layer, LayerSet

SHARES = ("activation", "weight", "norm", "other")
"""Whose share of a row's gain; ``other`` is pooling, dropout and the like."""

_ROW_ROLES = ("weight", "recurrent", "embedding")


@dataclass(frozen=True)
class RowPlan:
    """Which layers of a layer set make which rows.

    Attributes:
        rows: indices of the layers that own a weight (of all but containers when none does).
        owner: for each layer the row that its gain counts for, -1 for none.
        share: for each layer the index into ``SHARES``.
        activations: indices of the activations.
        weights: for each row the index of its largest weight parameter, -1 for none.
        param_rows: for each parameter the first row of its module, -1 for none.
        same_rows: for each row the first one of the same module.
    """

    rows: tuple[int, ...]
    owner: npt.NDArray[np.int64]
    share: npt.NDArray[np.int64]
    activations: tuple[int, ...]
    weights: npt.NDArray[np.int64]
    param_rows: npt.NDArray[np.int64]
    same_rows: npt.NDArray[np.int64]
    layers: tuple[Layer, ...]

    @property
    def row_keys(self) -> list[str]:
        """Names of the rows."""
        return [self.layers[i].key for i in self.rows]

    @property
    def activation_keys(self) -> list[str]:
        """Names of the activations."""
        return [self.layers[i].key for i in self.activations]


_known_plans: deque[tuple[LayerSet, RowPlan]] = deque(maxlen=64)


def plan_rows(layer_set: LayerSet) -> RowPlan:
    """Choose the rows of a layer set and what counts for each.

    Remembered by identity: hashing thousands of layers for each record would cost more.

    Args:
        layer_set: of a record.
    """
    for known, plan in tuple(_known_plans):
        if known is layer_set:
            return plan
    plan = _plan(layer_set)
    _known_plans.append((layer_set, plan))
    return plan


def _plan(layer_set: LayerSet) -> RowPlan:
    layers = layer_set.layers
    rows = [i for i, layer in enumerate(layers) if layer.role in _ROW_ROLES]
    rows = rows or [i for i, layer in enumerate(layers) if layer.role != "container"]
    owner = _owners(layers, rows)
    share = np.array([_share(layer) for layer in layers], dtype=np.int64)
    activations = tuple(i for i, layer in enumerate(layers) if layer.role == "activation")
    modules: dict[str, int] = {}
    same = [modules.setdefault(layers[i].fqn, row) for row, i in enumerate(rows)]
    params = [modules.get(param.module, -1) for param in layer_set.params]
    return RowPlan(
        rows=tuple(rows),
        owner=owner,
        share=share,
        activations=activations,
        weights=_weights(layer_set, rows),
        param_rows=np.array(params, dtype=np.int64),
        same_rows=np.array(same, dtype=np.int64),
        layers=layers,
    )


def _share(layer: Layer) -> int:
    role = "weight" if layer.role in _ROW_ROLES else layer.role
    return SHARES.index(role) if role in SHARES else SHARES.index("other")


def _owners(layers: Sequence[Layer], rows: Sequence[int]) -> npt.NDArray[np.int64]:
    """An activation's gain counts for the weight layer before it, along the data's way."""
    owner = np.full(len(layers), -1, dtype=np.int64)
    place = {index: row for row, index in enumerate(rows)}
    for index, layer in enumerate(layers):
        before = [owner[i] for i in layer.inputs if 0 <= i < index and owner[i] >= 0]
        if index in place:
            owner[index] = place[index]
        elif layer.role != "container":
            owner[index] = max(before) if before else (owner[:index].max() if index else -1)
    return owner


def _weights(layer_set: LayerSet, rows: Sequence[int]) -> npt.NDArray[np.int64]:
    largest: dict[str, int] = {}
    for index, param in enumerate(layer_set.params):
        rival = largest.get(param.module)
        if rival is None or param.numel > layer_set.params[rival].numel:
            largest[param.module] = index
    return np.array([largest.get(layer_set.layers[i].fqn, -1) for i in rows], dtype=np.int64)
