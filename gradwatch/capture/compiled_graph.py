"""Puts statistics into a captured graph, as further outputs and as taps of gradients."""

from __future__ import annotations

import copy
import operator
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from gradwatch.capture import compiled_taps as taps
from gradwatch.capture import statistics
from gradwatch.capture.compiled_changes import avoid_changes
from gradwatch.capture.compiled_nodes import (
    UnsuitedGraph,
    expect_example,
    list_before,
    read_example,
)
from gradwatch.capture.compiled_sites import Site, find_sites
from gradwatch.capture.plan import Plan
from gradwatch.capture.tapped_graph import Fired, TappedGraph, TapRow, VectorPart
from gradwatch.capture.unit_axes import count_unit_samples

PROBE = "gradwatch_probe"
"""Name of the input whose gradient is what was read of gradients."""


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
            if site.attention is None:
                example = expect_example(site.outputs[0])
                self._mode = getattr(example, "fake_mode", None) or nullcontext()
                tapped.device = example.device

    # Forward --------------------------------------------------------------------------------

    def add_readings(self) -> None:
        """Values of forward, and units that fired, as further outputs."""
        found: dict[tuple[str, int], list[tuple[int, float, Node]]] = defaultdict(list)
        fired: list[Node] = []
        is_double = False
        for number, site in enumerate(self._sites):
            for (statistic, reading), node in self._measure(site):
                found[statistic, reading.kind].append((number, reading.divisor, node))
                is_double |= reading.value.dtype is torch.float64
            axis, output = site.slot.axis, site.outputs[0]
            if axis is not None:
                fired.append(self._call_after(output, taps.find_fired, output, axis))
                samples = count_unit_samples(expect_example(output), axis)
                self._tapped.fired.append(Fired(number, samples))
        with self._graph.inserting_before(self._end):
            values = list(self._list_columns(found))
            vector = self._graph.call_function(taps.join, (values, is_double))
        self._n_own = len(self._end.args[0])
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

    def _measure(self, site: Site) -> Iterator[tuple[taps.NamedReading, Node]]:
        """Names of what is read of a call, with fake values, and the nodes that read it."""
        slot, output = site.slot, site.outputs[0]
        if site.attention is not None:
            yield from self._read(output, taps.ATTENTION_READER, *site.attention)
        elif slot.activation is not None:
            facts = slot.activation.name, site.settings
            yield from self._read(output, taps.ACTIVATION_READER, site.given, output, *facts)
        else:
            for node in site.outputs:
                yield from self._read(node, taps.OUTPUT_READER, node)

    def _read(
        self, place: Node, reader: taps.Reader, *args: Any
    ) -> Iterator[tuple[taps.NamedReading, Node]]:
        with self._mode:
            readings = reader.describe(*map_arg(args, read_example))
        if not readings:
            raise UnsuitedGraph("an attention whose softmax is not known")
        node = self._call_after(place, reader.measure, *args)
        with self._graph.inserting_after(node):
            for number, reading in enumerate(readings):
                yield reading, self._graph.call_function(operator.getitem, (node, number))

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
        replaced: dict[Any, Node] = {}
        for number, site in self._calls():
            for output in site.outputs:
                node = self._tap_output(number, output)
                replaced.setdefault(output, node)  # of two calls, the first is the last to see it
        for number, site in self._calls():
            for given, use in site.uses:
                self._tap_input(number, use, given, replaced.get(given, given))
        self._tapped.behind = [self._list_behind(output) for output in self._list_own_outputs()]

    def _list_own_outputs(self) -> Sequence[Any]:
        outputs: Sequence[Any] = self._end.args[0]
        return outputs[: self._n_own]

    def _list_behind(self, output: Any) -> frozenset[int]:
        """Taps that an output depends on."""
        nodes = list_before(output) if isinstance(output, Node) else ()
        return frozenset(int(node.args[3]) for node in nodes if node.target is taps.tap)  # type: ignore[arg-type]

    def _calls(self) -> Iterator[tuple[int, Site]]:
        return ((i, site) for i, site in enumerate(self._sites) if site.attention is None)

    def _tap_output(self, number: int, output: Node) -> Node:
        users = [user for user in output.users if user.target not in _READERS]
        example = expect_example(output)
        tap = TapRow(number, taps.find_norm_kind(example), _count_sampled(example))
        with self._graph.inserting_after(output):
            node = self._make_tap(output, tap)
        for user in users:
            user.replace_input_with(output, node)
        return node

    def _tap_input(self, number: int, use: Node, given: Node, value: Node) -> None:
        with self._graph.inserting_before(use):
            node = self._make_tap(
                value, TapRow(number, taps.find_norm_kind(expect_example(given)), 0)
            )
        use.replace_input_with(value, node)

    def _make_tap(self, value: Node, tap: TapRow) -> Node:
        """To be called where nodes are inserted: the probe's row comes before the tap."""
        place = len(self._tapped.taps)
        self._tapped.taps.append(tap)
        row = self._graph.call_function(operator.getitem, (self._rows, place))
        with self._graph.inserting_after(row):
            return self._graph.call_function(taps.tap, (value, row, self._number, place))


_READERS = (
    *(
        reader.measure
        for reader in (taps.OUTPUT_READER, taps.ACTIVATION_READER, taps.ATTENTION_READER)
    ),
    taps.find_fired,
)
"""Functions of ours that take an output as it is."""


def _count_sampled(example: Tensor) -> int:
    size = example.numel()
    if size <= statistics.SAMPLE_SIZE:
        return size
    stride: int = statistics.choose_stride(size)
    return ((size - statistics.RUN_LENGTH) // stride + 1) * statistics.RUN_LENGTH
