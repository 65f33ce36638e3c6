"""A graph with statistics in it: where each value of it belongs, and what a run has given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule

from gradwatch.capture.compiled_taps import N_OF_GRADIENT
from gradwatch.capture.plan import Slot


class VectorPart(NamedTuple):
    """Values of one statistic, side by side in the vector of all.

    Attributes:
        statistic: a key under which values wait.
        kind: as of ``device_values.RawValue``.
        start, stop: places in the vector.
        sites: number of the call of each.
        divisors: of each.
    """

    statistic: str
    kind: int
    start: int
    stop: int
    sites: list[int]
    divisors: list[float]


class Fired(NamedTuple):
    """A rectifier whose units are counted.

    Attributes:
        site: number of its call.
        samples: behind each unit.
    """

    site: int
    samples: int


class TapRow(NamedTuple):
    """A place at which a gradient is read.

    Attributes:
        site: number of its call.
        kind: as of ``device_values.RawValue``, of what the gradient's norm is made of.
        size: elements that zeros are counted of; 0 at an input, where none are.
    """

    site: int
    kind: int
    size: int


@dataclass
class TappedGraph:
    """A graph that gives its outputs, the vector of all values, and the units that fired.

    Attributes:
        module: takes the probe before its own inputs.
        slots: of the plan, of each call.
        columns: of the vector.
        fired: of each further output.
        taps: in the order of the probe's rows; those of outputs come first.
        behind: of each of its own outputs, the taps that it depends on.
        device: of the probe.
    """

    module: GraphModule
    slots: list[Slot]
    columns: list[VectorPart] = field(default_factory=list)
    fired: list[Fired] = field(default_factory=list)
    taps: list[TapRow] = field(default_factory=list)
    behind: list[frozenset[int]] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def probe_shape(self) -> tuple[int, int]:
        """Of the probe: a row for each tap."""
        return len(self.taps), N_OF_GRADIENT


class GraphRun(NamedTuple):
    """What one run of a graph with statistics has given.

    Attributes:
        graph: that has run.
        reached: taps whose backward was traced or has run, once it has; it grows.
        outputs: the graph's own.
        vector: all values of forward.
        fired: units of each rectifier.
        probe: whose gradient is what is read of gradients.
    """

    graph: TappedGraph
    reached: set[int]
    outputs: Sequence[Any]
    vector: Tensor
    fired: Sequence[Tensor]
    probe: Tensor
