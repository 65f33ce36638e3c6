"""From the values of a sampled step to a ``StepRecord``: merging, unscaling, naming."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Container, Mapping

import numpy as np

from gradwatch.capture.calls import CallKey
from gradwatch.capture.device_values import WHOLE_STEP, Transfer
from gradwatch.capture.kept_passes import add_losses, find_kept_passes, find_kept_roots
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
    find_merge,
)
from gradwatch.records import Array, Layer, LayerSet, Rows, StepRecord
from gradwatch.schema.cut import Cut
from gradwatch.schema.statistics import Scope, find_statistic

LARGEST_NORM = float(np.finfo(np.float32).max)
"""Stands for the norm of finite numbers whose squares float32 cannot add up."""

Merged = dict[str, dict[int, float]]
"""By statistic and index, one value each."""


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
        values = _mark_broken(sample.transfer.read())
        whole = _merge(sample.transfer, values, {WHOLE_STEP})
        if whole.get("step.found_inf", {}).get(0, 0.0) > 0:
            return None
        passes = find_kept_passes(sample.events, whole.get("pass.residue", {}))
        roots = find_kept_roots(sample, passes)
        merged = _merge(sample.transfer, values, roots | {WHOLE_STEP})
        scale = whole.get("step.loss_scale", {}).get(0, 1.0)
        rates = sample.learning_rate, *whole.get("step.learning_rate", {}).values()
        layer_set, columns = self._name(sample, roots)
        step = {
            "passes": float(len(passes)),
            "loss_scale": scale,
            "nonfinite_passes": float(_count_broken_passes(sample, values)),
            "learning_rate": float(np.fmax.reduce(rates)),
            "interval": float(interval),
            "loss": add_losses(whole.get("pass.loss", {}), passes) / scale,
        }
        return StepRecord(
            sample.global_step,
            layer_set,
            _round(_fill_layers(layer_set, columns, merged, scale)),
            _round(_fill_params(sample, layer_set.rows, merged, scale)),
            _round(np.array([step.get(name, np.nan) for name in layer_set.rows.step])),
            _fill_histograms(layer_set, columns, merged),
        )

    def _name(self, sample: Sample, roots: set[int]) -> tuple[LayerSet, dict[int, int]]:
        calls = [call for call in sample.calls if call.roots & roots]
        columns = self._registry.place(calls, sample.gates)
        self.used |= {
            entry.fqn
            for entry in sample.watched
            if entry.fqn not in self.used and entry.is_read(sample.used_modules, sample.operands)
        }
        self._notes.update(dict.fromkeys(sample.notes))
        params = describe_parameters(sample.watched, sample.optimized, self.used, sample.strangers)
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

    def _list_rows(self) -> Rows:
        rows = Rows.list_current()
        layer, param = self._own.list_rows("layer"), self._own.list_rows("param")
        return dataclasses.replace(rows, layer=rows.layer + layer, param=rows.param + param)


def join_cuts(known: dict[tuple[str, str], Cut], sample: Sample) -> None:
    """Add what a step has found, by names; what a place in the code was given adds up.

    Args:
        known: by function and source; changed in place.
        sample: of the step.
    """
    calls = {call.index: call.layer.fqn for call in sample.calls}
    params = {id(entry.param): entry.fqn for entry in sample.watched}
    for found in sample.cuts:
        key = found.function, found.source
        before = known.get(key) or Cut(*key, found.line, found.caller, is_flat=found.is_flat)
        layers = {calls[call] for call in found.calls if call in calls} | found.names
        fed = {params[param] for param in found.params if param in params}
        if layers or fed:
            known[key] = dataclasses.replace(
                before,
                layers=tuple(sorted({*before.layers, *layers})),
                params=tuple(sorted({*before.params, *fed})),
            )


def _count_broken_passes(sample: Sample, values: Array) -> int:
    """Passes with a NaN or Inf on their way back, whether they were used or not."""
    found = sample.transfer
    broken = np.flatnonzero(~np.isfinite(values)).tolist()
    roots = {found.roots[i] for i in broken if _scales("layer", found.statistics[i])}
    return len({sample.root_passes[root] for root in roots})


def _mark_broken(values: Array) -> Array:
    """What was measured and is NaN becomes infinite; NaN in a record means "not measured"."""
    return np.where(np.isnan(values), np.inf, values)


def _merge(found: Transfer, values: Array, roots: Container[int]) -> Merged:
    """One value per call: norms by root of summed squares, fractions by mean, else the latest."""
    merged: Merged = defaultdict(dict)
    several: dict[tuple[str, int], list[float]] = {}  # few calls have more than one value
    columns = found.statistics, found.indices, found.roots, values.tolist()
    for statistic, index, root, value in zip(*columns, strict=True):
        if root in roots:
            row = merged[statistic]
            if index in row:
                several.setdefault((statistic, index), [row[index]]).append(value)
            row[index] = value
    for (statistic, index), parts in several.items():
        merged[statistic][index] = _reduce(statistic, parts)
    return merged


def _reduce(statistic: str, values: list[float]) -> float:
    merge = find_merge(statistic)
    if merge == "sum":
        return float(np.sum(values))
    if merge == "l2":
        return float(np.linalg.norm(values))
    return float(np.mean(values)) if merge == "mean" else values[-1]


def _round(values: Array) -> Array:
    """To what a log keeps, so that a run is judged alike while it runs and from its log."""
    with np.errstate(over="ignore", under="ignore"):
        rounded: Array = values.astype(np.float32).astype(np.float64)
    return rounded


def _scales(scope: Scope, statistic: str) -> bool:
    """Whether a number is proportional to the loss, so that a loss scale is divided out."""
    row = find_statistic(scope, statistic)
    return row is not None and row.scales_with_loss


def _fill_layers(
    layer_set: LayerSet, columns: dict[int, int], merged: Merged, scale: float
) -> Array:
    names = layer_set.rows.all_layer
    result = np.full((len(names), len(layer_set.layers)), np.nan)
    for row, statistic in enumerate(names):
        found = merged.get(statistic, {})
        for index in found.keys() & columns.keys():
            result[row, columns[index]] = found[index]
        if _scales("layer", statistic):
            result[row] /= scale
    return result


def _fill_histograms(
    layer_set: LayerSet, columns: dict[int, int], merged: Merged
) -> dict[str, Array]:
    """Counts by bin of the activations that were counted this step, by layer key."""
    bins = [merged.get(f"{BIN_PREFIX}{place}", {}) for place in range(HISTOGRAM_BINS)]
    return {
        layer_set.layers[column].key: np.array([counts[index] for counts in bins])
        for index, column in columns.items()
        if index in bins[0]
    }


def _fill_params(sample: Sample, rows: Rows, merged: Merged, scale: float) -> Array:
    result = np.full((len(rows.param), len(sample.watched)), np.nan)
    for row, statistic in enumerate(rows.param):
        factor = scale if _scales("param", statistic) else 1.0
        key = PARAM_PREFIX + statistic
        for index, value in merged.get(key + SCALED_SUFFIX, {}).items():
            result[row, index] = value / factor
        for index, value in merged.get(key, {}).items():
            result[row, index] = value
    named = dict(zip(rows.param, result, strict=True))
    named["learning_rate"][:] = sample.rates
    named["weight_decay"][:] = sample.decays
    _correct(sample, named)
    return result


def _correct(sample: Sample, rows: dict[str, Array]) -> None:
    """Take the decay's share out of updates, sampling's doubt out of counts, and out of norms the
    squares that float32 has no room for: a gradient read whole, with every element finite, is."""
    is_whole = np.array([entry.param.numel() <= SAMPLE_SIZE for entry in sample.watched], bool)
    is_finite = is_whole & (rows["nonfinite_count"] == 0)
    rows["grad_l2_norm"][is_finite & np.isinf(rows["grad_l2_norm"])] = LARGEST_NORM
    grad, weight = rows["grad_l2_norm"], rows["weight_l2_norm"]
    used = np.where(np.isnan(rows["step_grad_l2_norm"]), grad, rows["step_grad_l2_norm"])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        decay = np.array(sample.coupled_decay) * weight
        share = np.where(decay > 0, used / (used + decay), 1.0)
    share = np.where(np.isnan(share), 1.0, share)
    rows["update_l2_norm"] *= share
    rows["loss_change"] *= share
    broken = ~np.isfinite(grad) & ~np.isnan(rows["nonfinite_count"])
    count = np.maximum(np.round(rows["nonfinite_count"]), 1.0)
    seen = ~np.isnan(rows["nonfinite_count"])
    rows["nonfinite_count"][seen] = np.where(broken, count, 0.0)[seen]
