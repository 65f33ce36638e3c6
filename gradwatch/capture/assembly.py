"""From the values of a sampled step to a ``StepRecord``: merging, unscaling, naming."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np

from gradwatch.capture.calls import CallKey
from gradwatch.capture.found_cuts import FoundCut
from gradwatch.capture.kept_passes import add_losses, find_kept_passes, find_kept_roots
from gradwatch.capture.layout import IndexArray, Layout, MergedValues
from gradwatch.capture.own_statistics import OwnMeasures
from gradwatch.capture.parameters import describe_parameters
from gradwatch.capture.registry import CallRegistry
from gradwatch.capture.sample import Sample
from gradwatch.capture.statistics import (
    BIN_PREFIX,
    HISTOGRAM_BINS,
    PARAM_PREFIX,
    SAMPLE_SIZE,
    SCALED_SUFFIX,
)
from gradwatch.records import Array, Layer, LayerSet, Param, Rows, StepRecord
from gradwatch.schema.cut import Cut
from gradwatch.schema.statistics import Scope, find_statistic

LARGEST_NORM = float(np.finfo(np.float32).max)
"""Stands for the norm of finite numbers whose squares float32 cannot add up."""

_LOOK = attrgetter("fqn", "aliases", "was_trainable", "param.dtype", "param.shape")

Merge = Callable[[str], MergedValues]
"""Of a key under which values waited, the indices with a value, and the value of each."""


class Assembler:
    """Builds the records of one session; remembers the layers met so far.

    Args:
        own: the statistics that are not gradwatch's.

    Attributes:
        used: parameters that forward has used at some step.
    """

    def __init__(self, own: OwnMeasures | None = None) -> None:
        self._own = own or OwnMeasures()
        self.used: set[str] = set()
        self._registry = CallRegistry()
        self._modules: frozenset[int] = frozenset()
        self._notes: dict[str, None] = {}
        self._cuts: dict[tuple[str, str], Cut] = {}
        self._layer_set = LayerSet()
        self._layout: Layout | None = None
        self._param_facts: tuple[Any, ...] = ()
        self._params: tuple[Param, ...] = ()

    def begin(self, modules: dict[int, str]) -> None:
        """A step is about to be sampled; a changed set of modules begins a new layer set.

        Args:
            modules: fqn by ``id`` of each watched module, as they are now.
        """
        current = frozenset(modules)
        if current != self._modules:
            self._modules = current
            self._registry.forget()
            self.used = set()
            self._notes = {}
            self._cuts = {}

    @property
    def linked(self) -> Mapping[CallKey, Layer]:
        """Calls whose sources are known, as they are described."""
        return self._registry.linked

    def build(self, sample: Sample, interval: int) -> StepRecord | None:
        """The record, or ``None`` when the optimizer skipped this step.

        Args:
            sample: of the step; its values are waited for where they are still on their way.
            interval: longest wait between two sampled steps that was in force, optimizer steps.
        """
        layout = self._layout = Layout.choose(sample.transfer, self._layout)
        values = layout.finish(sample.transfer.read())
        whole = partial(layout.merge_whole, values=values)
        if whole("step.found_inf").get(0, 0.0) > 0:
            return None
        passes = find_kept_passes(sample.events, whole("pass.residue"))
        roots = frozenset(find_kept_roots(sample, passes))
        merge = partial(layout.merge, values=values, roots=roots)
        scale = whole("step.loss_scale").get(0, 1.0)
        rates = sample.learning_rate, *whole("step.learning_rate").values()
        layer_set, columns = self._name(sample, roots)
        step = {
            "passes": float(len(passes)),
            "loss_scale": scale,
            "nonfinite_passes": float(_count_broken_passes(sample, layout, values)),
            "raising_passes": float(len(sample.raising.intersection(passes))),
            "learning_rate": float(np.fmax.reduce(rates)),
            "interval": float(interval),
            "loss": add_losses(whole("pass.loss"), passes) / scale,
        }
        return StepRecord(
            sample.global_step,
            layer_set,
            _round(_fill_layers(layer_set, columns, merge, scale)),
            _round(_fill_params(sample, layer_set.rows, merge, scale)),
            _round(np.array([step.get(name, np.nan) for name in layer_set.rows.step])),
            _fill_histograms(layer_set, columns, merge),
        )

    def _name(self, sample: Sample, roots: frozenset[int]) -> tuple[LayerSet, IndexArray]:
        """The layer set, and by index of a call its column; -1 for one that does not count."""
        calls = [call for call in sample.calls if call.roots & roots]
        columns = np.full(len(sample.calls), -1)
        for index, column in self._registry.place(calls, sample.gates).items():
            columns[index] = column
        self.used |= {
            entry.fqn
            for entry in sample.watched
            if entry.fqn not in self.used and entry.is_read(sample.used_modules, sample.operands)
        }
        self._notes.update(dict.fromkeys(sample.notes))
        params = self._describe_parameters(sample)
        join_cuts(self._cuts, sample)
        current = LayerSet(
            self._registry.layers,
            params,
            tuple(self._notes),
            self._list_rows(),
            cuts=tuple(self._cuts.values()),
        )
        if current != self._layer_set:
            self._layer_set = current
        return self._layer_set, columns

    def _describe_parameters(self, sample: Sample) -> tuple[Param, ...]:
        """As they were described before, where nothing about them is otherwise."""
        settings = sample.settings
        looks = list(map(_LOOK, sample.watched))
        facts = looks, settings.optimized, set(self.used), settings.strangers
        if facts != self._param_facts:
            self._param_facts = facts
            self._params = describe_parameters(sample.watched, *facts[1:])
        return self._params

    def _list_rows(self) -> Rows:
        rows = Rows.list_current()
        if not self._own.statistics:
            return rows
        layer, param = self._own.list_rows("layer"), self._own.list_rows("param")
        return dataclasses.replace(rows, layer=rows.layer + layer, param=rows.param + param)


def join_cuts(known: dict[tuple[str, str], Cut], sample: Sample) -> None:
    """Add what a step has found, by names; what a place in the code was given adds up.

    Args:
        known: by function and source; changed in place.
        sample: of the step.
    """
    if not sample.cuts:
        return
    calls = {call.index: call.layer.fqn for call in sample.calls}
    params = {id(entry.param): entry.fqn for entry in sample.watched}
    for found in sample.cuts:
        key = found.function, found.source
        before = known.get(key) or _describe_cut(found)
        layers = {calls[call] for call in found.calls if call in calls} | found.names
        fed = {params[param] for param in found.params if param in params}
        if layers or fed:
            known[key] = dataclasses.replace(
                before,
                is_read=before.is_read and not found.goes_on,
                layers=tuple(sorted({*before.layers, *layers})),
                params=tuple(sorted({*before.params, *fed})),
            )


def _describe_cut(found: FoundCut) -> Cut:
    return Cut(
        found.function, found.source, found.line, found.caller,
        is_flat=found.is_flat, is_singular=found.is_singular,
        is_read=found.is_read and not found.goes_on,
    )  # fmt: skip


def _count_broken_passes(sample: Sample, layout: Layout, values: Array) -> int:
    """Passes with a NaN or Inf on their way back, whether they were used or not."""
    broken = np.flatnonzero(~np.isfinite(values)).tolist()
    roots = layout.list_roots(broken, partial(_scales, "layer"))
    return len({sample.root_passes[root] for root in roots})


def _round(values: Array) -> Array:
    """To what a log keeps, so that a run is judged alike while it runs and from its log."""
    with np.errstate(over="ignore", under="ignore"):
        rounded: Array = values.astype(np.float32).astype(np.float64)
    return rounded


def _scales(scope: Scope, statistic: str) -> bool:
    """Whether a number is proportional to the loss, so that a loss scale is divided out."""
    row = find_statistic(scope, statistic)
    return row is not None and row.scales_with_loss


def _fill_layers(layer_set: LayerSet, columns: IndexArray, merge: Merge, scale: float) -> Array:
    names = layer_set.rows.all_layer
    result = np.full((len(names), len(layer_set.layers)), np.nan)
    for row, statistic in enumerate(names):
        indices, values = merge(statistic)
        places = columns[indices]
        is_there = places >= 0
        factor = scale if _scales("layer", statistic) else 1.0
        result[row, places[is_there]] = values[is_there] / factor
    return result


def _fill_histograms(layer_set: LayerSet, columns: IndexArray, merge: Merge) -> dict[str, Array]:
    """Counts by bin of the activations that were counted this step, by layer key."""
    indices, first = merge(f"{BIN_PREFIX}0")
    if not len(indices):
        return {}
    rest = [merge(f"{BIN_PREFIX}{place}")[1] for place in range(1, HISTOGRAM_BINS)]
    counts = np.stack([first, *rest], axis=1)
    return {
        layer_set.layers[column].key: counts[number]
        for number, column in enumerate(columns[indices].tolist())
        if column >= 0
    }


def _fill_params(sample: Sample, rows: Rows, merge: Merge, scale: float) -> Array:
    result = np.full((len(rows.param), len(sample.watched)), np.nan)
    for row, statistic in enumerate(rows.param):
        factor = scale if _scales("param", statistic) else 1.0
        key = PARAM_PREFIX + statistic
        for name, divisor in ((key + SCALED_SUFFIX, factor), (key, 1.0)):
            indices, values = merge(name)
            result[row, indices] = values / divisor
    named = dict(zip(rows.param, result, strict=True))
    named["learning_rate"][:] = sample.settings.rates
    named["weight_decay"][:] = sample.settings.decays
    _correct(sample, named)
    return result


def _correct(sample: Sample, rows: dict[str, Array]) -> None:
    """Take the decay's share out of updates, sampling's doubt out of counts, and out of norms the
    squares that float32 has no room for: a gradient read whole, with every element finite, is."""
    rows["step_grad_l2_norm"][list(sample.emptied)] = np.nan
    for index in np.flatnonzero(np.isinf(rows["grad_l2_norm"])).tolist():
        is_whole = sample.watched[index].param.numel() <= SAMPLE_SIZE
        if is_whole and rows["nonfinite_count"][index] == 0:
            rows["grad_l2_norm"][index] = LARGEST_NORM
    grad, weight = rows["grad_l2_norm"], rows["weight_l2_norm"]
    used = np.where(np.isnan(rows["step_grad_l2_norm"]), grad, rows["step_grad_l2_norm"])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        decay = sample.settings.coupled * weight
        share = np.where(decay > 0, used / (used + decay), 1.0)
    share = np.where(np.isnan(share), 1.0, share)
    rows["update_l2_norm"] *= share
    rows["loss_change"] *= share
    broken = ~np.isfinite(grad) & ~np.isnan(rows["nonfinite_count"])
    count = np.maximum(np.round(rows["nonfinite_count"]), 1.0)
    seen = ~np.isnan(rows["nonfinite_count"])
    rows["nonfinite_count"][seen] = np.where(broken, count, 0.0)[seen]
