"""What a run's layers do over a window of steps, in numbers that two runs can be compared by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gradwatch.evidence.gradient_flow import Reading, read_flow
from gradwatch.records import Array, StepRecord
from gradwatch.run_marks import RunHeader
from gradwatch.verdict.layer_summary import summarise_layers

_LEAST = 1e-45
"""Smallest float32 above zero: what a layer without any gradient counts as."""

_MOST_STEPS = 96
"""Steps that are read at most, evenly spread: means and medians need no more."""


@dataclass(frozen=True)
class Measure:
    """A number of a layer that tells how far it learns.

    Attributes:
        name: such as ``"update_ratio"``.
        title: in words.
        is_share: between 0 and 1 and bad when large; otherwise positive and bad when small.
        is_way: adds up over the training.
    """

    name: str
    title: str
    is_share: bool = False
    is_way: bool = False

    def scale(self, value: float) -> float:
        """On the axis where distances mean the same everywhere: a share, or decades.

        Args:
            value: in the measure's own unit; anything below the smallest float32 counts as that.
        """
        return value if self.is_share else float(np.log10(max(value, _LEAST)))


MEASURES = (
    Measure("update_ratio", "update per step", is_way=True),
    Measure("grad_ratio", "gradient"),
    Measure("loss_change", "share of the loss change", is_way=True),
    Measure("dead_fraction", "dead units", is_share=True),
    Measure("saturated_fraction", "saturated units", is_share=True),
)

_WEIGHTS = ("weight", "recurrent", "embedding")


@dataclass(frozen=True)
class LayerMeasures:
    """The numbers of one run.

    Attributes:
        layers: fully qualified names of all its layers.
        values: by measure and layer; only what was measured.
    """

    layers: frozenset[str]
    values: dict[str, dict[str, float]]


class ComparedRun(Protocol):
    """What a comparison reads of a run: ``log.reader.Run`` has it, and so may others."""

    @property
    def label(self) -> str:
        """Its name."""

    @property
    def header(self) -> RunHeader | None:
        """What it says of its model."""

    @property
    def damage(self) -> Sequence[str]:
        """What of it could not be read, in words."""

    @property
    def entries(self) -> Sequence[Any]:
        """One for each record, with its ``global_step``."""

    def records(self) -> Iterable[StepRecord]:
        """Its records, by step."""


def find_common_steps(runs: Sequence[ComparedRun]) -> tuple[int, ...]:
    """Steps that all runs sampled, at most 96 of them, evenly spread.

    Args:
        runs: of either side; without any, no step is common.

    Returns:
        Global steps, ascending.
    """
    steps = [{entry.global_step for entry in run.entries} for run in runs]
    common = sorted(set.intersection(*steps)) if steps else []
    places = np.unique(np.linspace(0, len(common) - 1, min(len(common), _MOST_STEPS)).round())
    return tuple(common[int(place)] for place in places)


def measure_layers(run: ComparedRun, steps: Sequence[int]) -> LayerMeasures:
    """Each layer's numbers over some steps of a run.

    How far a layer moved is the mean over all of them: a training that converges a little earlier
    has as far a way behind it. The others are medians of the later half: what came of it.

    Args:
        run: whose records are read once.
        steps: global steps that are looked at.
    """
    wanted = set(steps)
    records = [record for record in run.records() if record.global_step in wanted]
    rows: dict[str, dict[str, list[float]]] = {measure.name: {} for measure in MEASURES}
    for reading in read_flow(records):
        for name, numbers in _read_numbers(reading).items():
            for fqn, value in numbers.items():
                rows[name].setdefault(fqn, []).append(value)
    values = {
        measure.name: _summarise(
            rows[measure.name], np.mean if measure.is_way else _take_late_median
        )
        for measure in MEASURES
    }
    return LayerMeasures(
        frozenset(layer.key for row in records for layer in row.layer_set.layers), values
    )


def _read_numbers(reading: Reading) -> dict[str, dict[str, float]]:
    """All measures of all layers at one step."""
    layers = summarise_layers(reading, set())
    found = {
        measure.name: {layer.fqn: float(getattr(layer, measure.name)) for layer in layers}
        for measure in MEASURES
        if measure.name != "loss_change"
    }
    found["grad_ratio"] = {
        layer.fqn: layer.grad_ratio for layer in layers if layer.role in _WEIGHTS
    }
    return {**found, "loss_change": _read_loss_change(reading)}


def _summarise(
    layers: dict[str, list[float]], summarise: Callable[[list[float]], Any]
) -> dict[str, float]:
    """A layer counts when most of its values are numbers."""
    found: dict[str, float] = {}
    for fqn, values in layers.items():
        finite = [value for value in values if np.isfinite(value)]
        if 2 * len(finite) > len(values):
            found[fqn] = float(summarise(finite))
    return found


def _take_late_median(values: list[float]) -> float:
    return float(np.median(values[len(values) // 2 :]))


def _read_loss_change(reading: Reading) -> dict[str, float]:
    """Each module's share of the change of the loss, where the log has it."""
    values: Array = np.abs(np.nan_to_num(reading.record.param("loss_change")))
    total = float(values.sum())
    shares: dict[str, float] = {}
    for param, value in zip(reading.record.layer_set.params, values, strict=True):
        if total > 0:
            shares[param.module] = shares.get(param.module, 0.0) + float(value) / total
    return shares
