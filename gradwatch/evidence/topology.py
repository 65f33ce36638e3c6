"""A layer set as arrays: who feeds whom, which parameters belong to which calls."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.evidence.own_calls import find_inner_layers, find_own_calls
from gradwatch.records import Layer, LayerSet, Param
from gradwatch.schema.activations import Flat, find_activation, has_set_ends
from gradwatch.schema.layer_set import OUTSIDE

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

HALF_ULPS = {"bfloat16": 2.0**-9, "float16": 2.0**-12}
"""Half a unit in the last place of half precision, relative to the number."""


def is_flat(layer: Layer, *where: Flat) -> bool:
    """Whether a layer is an elementwise activation that is flat in one of these ways.

    Args:
        layer: of any role.
        where: see ``schema.activations.Flat``; ``"zero"`` is the ReLU family.

    Example:
        >>> is_flat(Layer("act", type="ReLU"), "zero"), is_flat(Layer("act", type="ReLU"), "both")
        (True, False)
    """
    row = find_activation(layer.type)
    return row is not None and row.is_elementwise and row.flat in where


@dataclass(frozen=True, eq=False)
class Topology:
    """What the rules need to know about a layer set, computed once.

    Attributes:
        layer_set: what it describes.
        consumers: for each layer, the layers that its output reaches.
        calls: for each parameter, the layers that are calls of its module.
        is_reference: layers whose gradient may stand for "full": no activations or containers
            behind the last weight, where a sure sigmoid or softmax makes it meaninglessly large.
        is_judged: parameters whose standing still would do harm: trainable weights in use.
        lecun_norm: for each parameter, the norm that LeCun's initialisation would give it.
        inner_layers: for a bare parameter, whose module is never called by itself, the
            activations inside the module that holds it.
    """

    layer_set: LayerSet
    consumers: tuple[tuple[int, ...], ...]
    calls: tuple[tuple[int, ...], ...]
    is_reference: Mask
    is_judged: Mask
    lecun_norm: npt.NDArray[np.float64]
    inner_layers: dict[int, tuple[int, ...]]

    @cached_property
    def _called(self) -> tuple[Indices, Indices, Indices]:
        """Calls of each module that has a parameter, module by module; where each module begins;
        and the number of each parameter's module, ``-1`` for a bare one."""
        modules = tuple(dict.fromkeys(calls for calls in self.calls if calls))
        numbers = {calls: number for number, calls in enumerate(modules)}
        starts = np.cumsum([0, *map(len, modules)])[:-1]
        flat = [call for calls in modules for call in calls]
        owner = [numbers.get(calls, -1) for calls in self.calls]
        found = flat, starts, owner
        return tuple(np.array(part, dtype=np.int64) for part in found)  # type: ignore[return-value]

    @cached_property
    def param_layers(self) -> tuple[str, ...]:
        """Name of each parameter's layer; its own where its module is never called by itself."""
        return tuple(
            param.module if calls and param.module else param.fqn
            for param, calls in zip(self.params, self.calls, strict=True)
        )

    @cached_property
    def types(self) -> dict[str, str]:
        """Type of each layer by its name."""
        return {layer.fqn: layer.type for layer in self.layers}

    @cached_property
    def links_back(self) -> tuple[tuple[int, int], ...]:
        """Each layer's inputs before it, and the layer: from the loss back."""
        backward = range(len(self.layers) - 1, -1, -1)
        return tuple((s, i) for i in backward for s in self.layers[i].inputs if s < i)

    @cached_property
    def has_joins(self) -> bool:
        """Whether some layer takes in more than one other: skips, branches, towers."""
        return any(len(layer.inputs) > 1 for layer in self.layers)

    @cached_property
    def is_bare(self) -> Mask:
        """Parameters whose module is never called by itself."""
        return np.array([not calls for calls in self.calls], dtype=bool)

    @cached_property
    def is_held(self) -> Mask:
        """Trainable parameters that an optimizer holds."""
        held = [param.trainable and param.optimized for param in self.params]
        return np.array(held, dtype=bool)

    @cached_property
    def is_head(self) -> Mask:
        """Layers with no weight behind them."""
        return np.array([layer.is_head for layer in self.layers], dtype=bool)

    @cached_property
    def output_numel(self) -> npt.NDArray[np.float64]:
        """Elements of each layer's output."""
        return np.array([max(layer.output_numel, 1) for layer in self.layers], dtype=np.float64)

    @cached_property
    def saturable(self) -> tuple[int, ...]:
        """Hidden activations that can saturate; gates and heads are right to be sure."""
        return tuple(i for i in self._find_hidden("both") if not has_set_ends(self.layers[i].type))

    @cached_property
    def one_sided(self) -> tuple[int, ...]:
        """Hidden activations that are flat on one side only, or beyond ends that were set: some
        elements there are as normal as a ReLU's zeros, all of them are not."""
        clamps = (i for i in self._find_hidden("both") if has_set_ends(self.layers[i].type))
        return (*self._find_hidden("one"), *clamps)

    @cached_property
    def is_output(self) -> Mask:
        """Activations with no weight behind them: on the network's outputs, or in the loss."""
        return np.array(
            [layer.is_head and layer.role == "activation" for layer in self.layers], dtype=bool
        )

    @cached_property
    def is_outside(self) -> Mask:
        """Activations that are called between forward and the loss, and belong to the loss."""
        return np.array([layer.fqn.startswith(OUTSIDE) for layer in self.layers], dtype=bool)

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """Activations of the network's outputs that can saturate."""
        rows = [find_activation(layer.type) for layer in self.layers]
        found = np.flatnonzero(self.is_output).tolist()
        return tuple(i for i in found if (row := rows[i]) and row.flat == "both")

    @cached_property
    def is_hidden(self) -> Mask:
        """Activations inside the network, which are no gates and on no output."""
        acts = [layer.role == "activation" for layer in self.layers]
        inner = [not layer.is_gate and not layer.is_head for layer in self.layers]
        return np.logical_and(acts, inner)

    def _find_hidden(self, flat: Flat) -> tuple[int, ...]:
        hidden = np.flatnonzero(self.is_hidden).tolist()
        return tuple(index for index in hidden if is_flat(self.layers[index], flat))

    @cached_property
    def half_ulps(self) -> npt.NDArray[np.float64]:
        """Half a unit in the last place of each parameter, against its size; 0 in full precision.

        Where the elements that change at all change by so much, an update of ``lost_share`` of it
        is that of elements with ``lost_share ** 2`` of the weight's energy.
        """
        ulps = [HALF_ULPS.get(param.dtype, 0.0) for param in self.params]
        return np.array(ulps, dtype=np.float64)

    @cached_property
    def has_half(self) -> bool:
        """Whether some parameter is in half precision."""
        return bool(self.half_ulps.any())

    @cached_property
    def float16(self) -> tuple[int, ...]:
        """Layers whose output is in float16: bfloat16 has float32's range."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.dtype == "float16")

    def reduce_calls(
        self, reduce: np.ufunc, values: npt.NDArray[Any], missing: Any
    ) -> npt.NDArray[Any]:
        """A layer quantity over the calls of each parameter's module.

        Args:
            reduce: makes one number of those of several calls, such as ``np.maximum``.
            values: ``(n_records, n_layers)``.
            missing: stands for a parameter whose module is never called by itself.

        Returns:
            ``(n_records, n_params)``.

        Example:
            >>> from gradwatch.evidence.worked_example import make_reading
            >>> values = np.array([[10.0, 11.0, 12.0]])
            >>> make_reading().topology.reduce_calls(np.maximum, values, np.nan).tolist()
            [[10.0, 12.0]]
        """
        calls, starts, owner = self._called
        found = values[:, calls]
        if len(starts) < len(calls):
            found = reduce.reduceat(found, starts, axis=1)
        padding = np.full((len(values), 1), missing, dtype=found.dtype)
        result: npt.NDArray[Any] = np.concatenate([found, padding], axis=1)[:, owner]
        return result

    def spread_to_calls(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The largest of each module's parameters, at all its calls; 0 elsewhere.

        Args:
            values: ``(n_records, n_params)``, not NaN and not below 0.

        Returns:
            ``(n_records, n_layers)``.

        Example:
            >>> from gradwatch.evidence.worked_example import make_reading
            >>> make_reading().topology.spread_to_calls(np.array([[3.0, 4.0]])).tolist()
            [[3.0, 0.0, 4.0]]
        """
        calls, starts, owner = self._called
        largest = np.zeros((len(values), len(starts)))
        np.maximum.at(largest.T, owner[owner >= 0], values[:, owner >= 0].T)
        result = np.zeros((len(values), len(self.layers)))
        sizes = np.diff(np.append(starts, len(calls)))
        result[:, calls] = np.repeat(largest, sizes, axis=1)
        return result

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Of the layer set."""
        return self.layer_set.layers

    @property
    def params(self) -> tuple[Param, ...]:
        """Of the layer set."""
        return self.layer_set.params


_known: OrderedDict[str, Topology] = OrderedDict()
_KEPT = 16


def map_topology(layer_set: LayerSet) -> Topology:
    """The topology of a layer set; the latest ``_KEPT`` are kept.

    Args:
        layer_set: of a record.

    Example:
        >>> from gradwatch.evidence.worked_example import make_layer_set
        >>> topology = map_topology(make_layer_set())
        >>> topology.consumers, topology.calls, topology.saturable
        (((1,), (2,), ()), ((0,), (2,)), (1,))
    """
    found = _known.get(layer_set.digest)
    if found is None:
        found = _known[layer_set.digest] = _build(layer_set)
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    return found


def _build(layer_set: LayerSet) -> Topology:
    consumers: list[list[int]] = [[] for _ in layer_set.layers]
    for index, layer in enumerate(layer_set.layers):
        for source in layer.inputs:
            consumers[source].append(index)
    owned = find_own_calls(layer_set)
    return Topology(
        layer_set,
        tuple(map(tuple, consumers)),
        owned,
        _find_references(layer_set.layers),
        np.array([_is_judged(param) for param in layer_set.params], dtype=bool),
        np.array([_measure_lecun_norm(param) for param in layer_set.params], dtype=np.float64),
        find_inner_layers(layer_set, owned),
    )


def _find_references(layers: tuple[Layer, ...]) -> Mask:
    has_weights = any(layer.role in ("weight", "recurrent", "embedding") for layer in layers)
    behind = ("activation", "container", "other")
    chosen = [not (has_weights and layer.is_head and layer.role in behind) for layer in layers]
    return np.array(chosen, dtype=bool)


def _is_judged(param: Param) -> bool:
    matters = param.role in ("weight", "embedding")
    return matters and param.trainable and param.optimized


def _measure_lecun_norm(param: Param) -> float:
    """Weights of variance 1/fan_in have a norm of the root of their number of outputs."""
    return float(np.sqrt(param.shape[0])) if len(param.shape) >= 2 else 0.0
