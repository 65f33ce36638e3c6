"""A captured graph with statistics in it: what it gives besides its own outputs."""

from __future__ import annotations

import copy
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from gradwatch.capture import compiled_taps as taps
from gradwatch.capture import statistics
from gradwatch.capture.compiled_changes import avoid_changes
from gradwatch.capture.compiled_nodes import read_example
from gradwatch.capture.compiled_sites import Site, find_sites
from gradwatch.capture.plan import Plan, Slot
from gradwatch.capture.unit_axes import count_unit_samples

PROBE = "gradwatch_probe"
"""Name of the input whose gradient is what was read of gradients."""


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


@dataclass
class TappedGraph:
    """A graph that gives its outputs, the vector of all values, and the units that fired.

    Attributes:
        module: takes the probe before its own inputs.
        slots: of the plan, of each call.
        columns: of the vector.
        fired: of each further output.
        outputs, inputs: number of the call of each tap; those of outputs come first.
        sizes: elements that zeros are counted of, of each tap of an output.
        device: of the probe.
    """

    module: GraphModule
    slots: list[Slot]
    columns: list[VectorPart] = field(default_factory=list)
    fired: list[Fired] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def probe_shape(self) -> tuple[int, int]:
        """Of the probe: a row for each tap."""
        return len(self.outputs) + len(self.inputs), taps.N_OF_GRADIENT


def tap_graph(module: GraphModule, plan: Plan, number: int, root: int) -> TappedGraph:
    """Put statistics into a copy of a graph.

    Args:
        module: that dynamo has captured; stays as it is.
        plan: whose calls it has to hold.
        number: of the graph, for ``compiled_taps.tap``.
        root: ``id`` of the outermost watched module.

    Raises:
        UnsuitedGraph: it is not the plan's, or what cannot be read.
    """
    result = GraphModule(module, copy.deepcopy(module.graph))
    sites = find_sites(plan.passes[0], result.graph, root)
    avoid_changes(result.graph)
    tapped = TappedGraph(result, [site.slot for site in sites])
    editor = _Editor(tapped, sites, number)
    editor.add_readings()
    editor.add_taps()
    result.graph.lint()
    result.recompile()
    return tapped


class _Editor:
    """Adds nodes to a graph; what is read of a call stands right behind it."""

    def __init__(self, tapped: TappedGraph, sites: Sequence[Site], number: int) -> None:
        self._tapped = tapped
        self._graph = tapped.module.graph
        self._sites = sites
        self._number = number
        self._end = next(node for node in self._graph.nodes if node.op == "output")
        self._mode: Any = nullcontext()
        for site in sites:
            example = read_example(site.output)
            assert example is not None
            self._mode = getattr(example, "fake_mode", None) or nullcontext()
            tapped.device = example.device

    # Forward --------------------------------------------------------------------------------

    def add_readings(self) -> None:
        """Values of forward, and units that fired, as further outputs."""
        found: dict[tuple[str, int], list[tuple[int, float, Node]]] = defaultdict(list)
        fired: list[Node] = []
        is_double = False
        for number, site in enumerate(self._sites):
            readings, nodes = self._measure(site)
            for (statistic, reading), node in zip(readings, nodes, strict=True):
                found[statistic, reading.kind].append((number, reading.divisor, node))
                is_double |= reading.value.dtype is torch.float64
            if site.slot.axis is not None:
                fired.append(
                    self._call_after(site.output, taps.find_fired, site.output, site.slot.axis)
                )
                y = read_example(site.output)
                assert y is not None
                samples = count_unit_samples(y, site.slot.axis)
                self._tapped.fired.append(Fired(number, samples))
        with self._graph.inserting_before(self._end):
            values = list(self._list_columns(found))
            vector = self._graph.call_function(taps.join, (values, is_double))
        self._end.args = ((*self._end.args[0], vector, *fired),)

    def _list_columns(
        self, found: dict[tuple[str, int], list[tuple[int, float, Node]]]
    ) -> Iterator[Node]:
        start = 0
        for (statistic, kind), values in found.items():
            sites, divisors, nodes = zip(*values, strict=True)
            stop = start + len(values)
            column = VectorPart(statistic, kind, start, stop, list(sites), list(divisors))
            self._tapped.columns.append(column)
            start = stop
            yield from nodes

    def _measure(self, site: Site) -> tuple[taps.Readings, list[Node]]:
        """Names of what is read of a call, with fake values, and the nodes that read it."""
        slot, describe, measure = site.slot, taps.list_output_readings, taps.measure_output
        args: tuple[Any, ...] = (site.output,)
        describe_any: Callable[..., taps.Readings] = describe
        measure_any: Callable[..., tuple[Tensor, ...]] = measure
        if site.attention is not None:
            args = site.attention
            describe_any, measure_any = taps.list_attention_readings, taps.measure_attention
        elif slot.activation is not None:
            args = site.given, site.output, slot.activation.name, slot.settings
            describe_any, measure_any = taps.list_activation_readings, taps.measure_activation
        with self._mode:
            examples = [read_example(arg) if isinstance(arg, Node) else arg for arg in args]
            readings = describe_any(*examples)
        node = self._call_after(site.output, measure_any, *args)
        with self._graph.inserting_after(node):
            parts = [
                self._graph.call_function(operator.getitem, (node, place))
                for place in range(len(readings))
            ]
        return readings, parts

    def _call_after(self, place: Node, function: Any, *args: Any) -> Node:
        with self._graph.inserting_after(place):
            return self._graph.call_function(function, args)

    # Backward -------------------------------------------------------------------------------

    def add_taps(self) -> None:
        """Taps at outputs, then at inputs, and the probe that each has a row of."""
        first = next(iter(self._graph.nodes))
        with self._graph.inserting_before(first):
            probe = self._graph.placeholder(PROBE)
        start = next(node for node in self._graph.nodes if node.op != "placeholder")
        with self._graph.inserting_before(start):
            self._rows = self._graph.call_function(torch.unbind, (probe, 0))
        self._count = 0
        replaced: dict[Any, Node] = {
            site.output: self._tap_output(number) for number, site in self._calls()
        }
        for number, site in self._calls():
            for given, use in site.uses:
                self._tap_input(number, use, replaced.get(given, given))

    def _calls(self) -> Iterator[tuple[int, Site]]:
        return ((i, site) for i, site in enumerate(self._sites) if site.attention is None)

    def _tap_output(self, number: int) -> Node:
        site = self._sites[number]
        readers = taps.measure_output, taps.measure_activation, taps.measure_attention
        users = [
            user for user in site.output.users if user.target not in (*readers, taps.find_fired)
        ]
        with self._graph.inserting_after(site.output):
            node = self._make_tap(site.output)
        for user in users:
            user.replace_input_with(site.output, node)
        example = read_example(site.output)
        assert example is not None
        self._tapped.outputs.append(number)
        self._tapped.sizes.append(_count_sampled(example))
        return node

    def _tap_input(self, number: int, use: Node, given: Any) -> None:
        with self._graph.inserting_before(use):
            node = self._make_tap(given)
        use.replace_input_with(given, node)
        self._tapped.inputs.append(number)

    def _make_tap(self, value: Node) -> Node:
        """To be called where nodes are inserted: the probe's row comes before the tap."""
        place = self._count
        self._count += 1
        row = self._graph.call_function(operator.getitem, (self._rows, place))
        with self._graph.inserting_after(row):
            return self._graph.call_function(taps.tap, (value, row, self._number, place))


def _count_sampled(example: Tensor) -> int:
    size = example.numel()
    if size <= statistics.SAMPLE_SIZE:
        return size
    stride: int = statistics.choose_stride(size)
    return ((size - statistics.RUN_LENGTH) // stride + 1) * statistics.RUN_LENGTH
