"""Data-parallel ranks: one record for the job, the same on every rank.

Each sampled step costs one collective of a small vector, on a process group of our own that talks
over the CPU: training's own collectives and streams are never touched. Ranks agree once on what
the vector means; a rank whose layers have changed says so in the vector, and all agree again.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from gradwatch.records import (
    LAYER_STATISTICS,
    PARAM_STATISTICS,
    STEP_STATISTICS,
    Array,
    Layer,
    LayerSet,
    StepRecord,
)

GREETING_TIMEOUT = timedelta(seconds=20)
"""Ranks that are not watched by then are given up, and each rank reports for itself."""

COLLECTIVE_TIMEOUT = timedelta(seconds=60)
"""A rank that has died does not hold the others longer than this."""

_JOINED = frozenset(("output_l2_norm", "grad_l2_norm", "weight_l2_norm", "update_l2_norm"))
_AVERAGED_LOSS = frozenset(("grad_output_l2_norm", "grad_input_l2_norm"))
_SUMMED = frozenset(("unit_samples", "nonfinite_passes", "nonfinite_count"))

_greetings = itertools.count()


def unwrap(model: nn.Module) -> tuple[nn.Module, bool]:
    """The model inside a parallel wrapper, and whether there was one whose ranks work together."""
    inner = getattr(model, "_orig_mod", model)
    if isinstance(inner, nn.parallel.DistributedDataParallel):
        return inner.module, True
    return (inner.module, False) if isinstance(inner, nn.DataParallel) else (model, False)


class RankMerger:
    """Merges the records of all ranks.

    Attributes:
        is_wanted: the model belongs to a job whose ranks work together.
        agreed_wait: steps until the next sample, as rank 0 proposed with the latest record.
    """

    def __init__(self) -> None:
        self.is_wanted = False
        self.agreed_wait = 0
        self._group: Any = None
        self._was_tried = False
        self._layout: LayerSet | None = None
        self._own_digest = ""
        self._differs = False

    @property
    def is_connected(self) -> bool:
        """Whether records are merged."""
        return self._group is not None

    def connect(self) -> bool:
        """Find the other ranks, once; answers whether records are merged."""
        if self._was_tried or not self.is_wanted:
            return self._group is not None
        self._was_tried = True
        is_job = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if is_job and dist.is_gloo_available() and _greet():
            self._group = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
        return self._group is not None

    def abandon(self) -> None:
        """Merge no more."""
        self._was_tried, self._group = True, None

    def merge(
        self, record: StepRecord | None, parts: Sequence[int], wait: int = 0
    ) -> StepRecord | None:
        """The record of all ranks; ``None`` when one of them has skipped the step.

        Args:
            record: of this rank.
            parts: for each parameter, among how many ranks it is divided.
            wait: shortest one until the next sample, in steps; rank 0's is agreed on.
        """
        if self._layout is None or self._differs:
            self._agree(record)
        assert self._layout is not None
        codec = Codec(self._layout, parts)
        changed = record is not None and record.layer_set.digest != self._own_digest
        proposal = wait if dist.get_rank(self._group) == 0 else 0
        head = np.array([float(record is not None), float(changed), float(proposal)])
        body = codec.encode(record)
        vector = torch.from_numpy(np.concatenate((head, body)))
        dist.all_reduce(vector, group=self._group)
        world = dist.get_world_size(self._group)
        present, self._differs = float(vector[0]), bool(vector[1] > 0)
        self.agreed_wait = int(vector[2])
        if record is None or present < world:
            return None
        return codec.decode(vector[3:].numpy(), record, world)

    def _agree(self, record: StepRecord | None) -> None:
        own = LayerSet() if record is None else record.layer_set
        found: list[Any] = [None] * dist.get_world_size(self._group)
        dist.all_gather_object(found, own.to_json(), group=self._group)
        self._layout = join_layer_sets([LayerSet.from_json(one) for one in found])
        self._own_digest = own.digest


def _greet() -> bool:
    """Whether every rank is watched: rank 0 counts, and tells the others what it found."""
    rank, world = dist.get_rank(), dist.get_world_size()
    name = f"gradwatch/{next(_greetings)}"
    store = dist.distributed_c10d._get_default_store()
    store.set(f"{name}/{rank}", "1")
    try:
        if rank == 0:
            store.wait([f"{name}/{one}" for one in range(world)], GREETING_TIMEOUT)
            store.set(f"{name}/all", "1")
        else:
            store.wait([f"{name}/all"], 2 * GREETING_TIMEOUT)
    except RuntimeError:  # somebody did not come
        return False
    return True


def join_layer_sets(sets: Sequence[LayerSet]) -> LayerSet:
    """One set with the layers of all: the first one's, then what others have besides."""
    whole = next((one for one in sets if one.layers), sets[0])
    layers: list[Layer] = list(whole.layers)
    positions = {layer.key: index for index, layer in enumerate(layers)}
    for one in sets:
        for layer in one.layers:
            if layer.key not in positions:
                keys = (one.layers[source].key for source in layer.inputs)
                inputs = tuple(sorted(positions[key] for key in keys if key in positions))
                positions[layer.key] = len(layers)
                layers.append(dataclasses.replace(layer, inputs=inputs))
    notes = dict.fromkeys(note for one in sets for note in one.notes)
    used = {param.fqn for one in sets for param in one.params if param.used}
    params = tuple(dataclasses.replace(one, used=one.fqn in used) for one in whole.params)
    return LayerSet(tuple(layers), params, tuple(notes))


class Codec:
    """A record as numbers that can be summed over ranks, and back.

    Norms travel as squares. Each rank's loss is the mean over its own part of the batch, so the
    gradient of the whole loss at an activation is a rank's divided by their number. Parameters'
    gradients are the same on every rank already, unless each holds only a part.
    """

    def __init__(self, layout: LayerSet, parts: Sequence[int]) -> None:
        self._layout = layout
        n_layers, n_params = len(layout.layers), len(layout.params)
        counts = np.ones(n_params)
        counts[: len(parts)] = parts[:n_params]
        is_part = counts > 1
        rules = [
            *(np.full(n_layers, _find_rule(name), dtype="U6") for name in LAYER_STATISTICS),
            *(np.where(is_part, _find_rule(name), "mean") for name in PARAM_STATISTICS),
            *(np.array([_find_rule(name)]) for name in STEP_STATISTICS),
        ]
        self._rules = np.concatenate(rules)
        self._parts = np.concatenate(
            (
                np.ones(len(LAYER_STATISTICS) * n_layers),
                np.tile(counts, len(PARAM_STATISTICS)),
                np.ones(len(STEP_STATISTICS)),
            )
        )
        self._shapes = (len(LAYER_STATISTICS), n_layers), (len(PARAM_STATISTICS), n_params)

    def encode(self, record: StepRecord | None) -> Array:
        """Presence and summable value of every number."""
        values = np.full(len(self._rules), np.nan) if record is None else self._flatten(record)
        present = ~np.isnan(values)
        is_square = np.isin(self._rules, ("joined", "loss"))
        summable = np.where(is_square, np.square(values), values)
        return np.concatenate((present.astype(np.float64), np.where(present, summable, 0.0)))

    def decode(self, vector: Array, record: StepRecord, world: int) -> StepRecord:
        """The merged record."""
        counts, sums = np.split(vector, 2)
        has_copies = (self._parts > 1) & (self._rules != "mean")
        sums = np.where(has_copies, sums * self._parts / world, sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(self._rules == "mean", sums / counts, sums)
        values = np.where(self._rules == "joined", np.sqrt(sums), values)
        values = np.where(self._rules == "loss", np.sqrt(sums) / world, values)
        values[counts == 0] = np.nan
        sizes = np.cumsum([np.prod(shape) for shape in self._shapes]).tolist()
        layers, params, step = np.split(values, sizes)
        return StepRecord(
            record.global_step,
            self._layout,
            layers.reshape(self._shapes[0]),
            params.reshape(self._shapes[1]),
            step,
            record.histograms,
        )

    def _flatten(self, record: StepRecord) -> Array:
        """Numbers in the agreed order; NaN where this rank has none."""
        layers, params = (np.full(shape, np.nan) for shape in self._shapes)
        found = {layer.key: index for index, layer in enumerate(record.layer_set.layers)}
        for column, layer in enumerate(self._layout.layers):
            if layer.key in found:
                layers[:, column] = record.layer_values[:, found[layer.key]]
        named = {param.fqn: index for index, param in enumerate(record.layer_set.params)}
        for column, param in enumerate(self._layout.params):
            if param.fqn in named:
                params[:, column] = record.param_values[:, named[param.fqn]]
        return np.concatenate((layers.ravel(), params.ravel(), record.step_values))


def _find_rule(statistic: str) -> str:
    if statistic in _AVERAGED_LOSS:
        return "loss"
    if statistic in _JOINED:
        return "joined"
    return "sum" if statistic in _SUMMED else "mean"
