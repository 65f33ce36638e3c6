"""The entries of a sampled step: one per call, in the order in which forward returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from gradwatch.capture.device_values import Ledger, RawValue
from gradwatch.capture.frames import Frame
from gradwatch.capture.graph import Edge, EdgeKey, find_sources, identify
from gradwatch.capture.source_lines import find_source_line
from gradwatch.records import Layer

CallKey = tuple[str, int]
"""``Layer.fqn`` and ``Layer.call``."""

MAX_CALLS = 256
"""Calls of one module in one pass that get an entry."""


@dataclass
class Call:
    """One entry: a module's or an activation's call, in every pass of the step.

    Attributes:
        index: position among the calls of this step.
        layer: what is fixed about it.
        roots: numbers of the outermost calls inside which it ran.
        sources: indices of the calls whose outputs it takes.
        is_part: something inside a module that is no link in the flow of the data.
    """

    index: int
    layer: Layer
    roots: set[int] = field(default_factory=set)
    sources: tuple[int, ...] = ()
    is_part: bool = False

    @cached_property
    def key(self) -> CallKey:
        """Stands for it from step to step."""
        return self.layer.fqn, self.layer.call


@dataclass(frozen=True)
class Part:
    """Something inside a module, whose entry is named ``"<fqn>:<name>"``.

    Attributes:
        name: such as ``"forget_gate_l0"``.
        call: number of its call, or of the part of a sequence.
        role: as of ``records.Layer``.
        kind: its type, such as ``"sigmoid"``.
        is_gate: its output multiplies something.
    """

    name: str
    call: int
    role: str
    kind: str
    is_gate: bool = False


Measured = Iterator[tuple[Part, str, RawValue]]
"""Values of a module's parts: which part, which statistic, the value."""


class CallTable:
    """All calls of one sampled step, and what was measured of them.

    Args:
        linked: calls that an earlier step has described, whose sources are known.

    Attributes:
        root: number of the outermost call that is running, or ran last.
    """

    def __init__(self, linked: Mapping[CallKey, Layer]) -> None:
        self.ledger = Ledger()
        self.calls: dict[CallKey, Call] = {}
        self.gates: set[int] = set()
        self.notes: dict[str, None] = {}
        self.root_passes: list[int] = []
        self.known: dict[EdgeKey, int] = {}
        self.axes: dict[EdgeKey, int] = {}
        self.pass_number = 0
        self.root = -1
        self._linked = linked
        self._counters: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        self._counter = self._counters[True]

    def begin_root(self, is_training: bool = True) -> None:
        """Another outermost call begins.

        Calls in evaluation mode are counted by themselves, so that an evaluation with a graph
        between two training calls does not change their numbers.

        Args:
            is_training: mode of the outermost module.
        """
        self._counter = self._counters[is_training]
        self.root_passes.append(self.pass_number)
        self.root += 1

    def begin_pass(self) -> None:
        """Another pass begins: its first call of each module is the first again."""
        self.pass_number += 1
        for counter in self._counters.values():
            counter.clear()
        self.known.clear()
        self.axes.clear()

    def count_calls(self, fqn: str) -> int:
        """Calls of this name in the running pass.

        Args:
            fqn: of a module, or of an activation inside it.
        """
        return self._counter[fqn]

    def add(
        self,
        frame: Frame,
        name: tuple[str, str, str],
        tensors: list[Tensor],
        starts: Iterable[Edge],
    ) -> Call | None:
        """The entry of one call, new or of an earlier pass; ``None`` beyond ``MAX_CALLS``.

        Args:
            frame: of the module inside which the call happened.
            name: fqn, role and type.
            tensors: its outputs.
            starts: where to begin to look for the calls that feed it.
        """
        frame.children += 1
        fqn = name[0]
        key = fqn, self._counter[fqn]
        self._counter[fqn] += 1
        if key[1] >= MAX_CALLS:
            self.notes[f"{fqn}: calls after the first {MAX_CALLS} of a pass have no entry"] = None
            return None
        call = self.calls.get(key)
        if call is None:
            call = Call(len(self.calls), self._linked.get(key) or _describe(key, name, tensors))
            if key not in self._linked:
                call.sources, passes = find_sources(starts, self.known)
                place = find_source_line()
                source = place.source if place is not None else ""
                call.layer = replace(call.layer, passes_float16=passes, source=source)
            self.calls[key] = call
        call.roots.add(self.root)
        return call

    def find_described(self, key: CallKey) -> Call:
        """The entry of a call that a record has described, new or of an earlier pass.

        Args:
            key: of the call.

        Raises:
            KeyError: no record has described it.
        """
        call = self.calls.get(key)
        if call is None:
            call = self.calls[key] = Call(len(self.calls), self._linked[key])
        call.roots.add(self.root)
        return call

    def note_step_axis(self, index: int, axis: int) -> Call | None:
        """A loop reads a call's output step by step.

        Args:
            index: of the call.
            axis: dimension of the time steps.

        Returns:
            The call; ``None`` where that was known, where it is not its module's first, or where
            the loop is that of a recurrent module.
        """
        if any(index in call.sources for call in self.calls.values() if _is_recurrent(call)):
            return None
        call = next(call for call in self.calls.values() if call.index == index)
        if call.layer.step_axis >= 0 or call.layer.call or call.key in self._linked:
            return None
        call.layer = replace(call.layer, step_axis=axis)
        return call

    @property
    def is_described(self) -> bool:
        """Whether an earlier step has described all calls so far."""
        return self.calls.keys() <= self._linked.keys()

    def link(self, edge: Edge, call: Call) -> None:
        """The call's output is at this edge; the call that gave it first keeps it.

        Args:
            edge: of the output in this pass's graph.
            call: that returned it.
        """
        self.known.setdefault(identify(edge), call.index)

    def note_axis(self, edge: Edge, axis: int | None) -> None:
        """The tensor at this edge counts units in this dimension, if it is known.

        Args:
            edge: of the tensor.
            axis: dimension, ``unit_axes.SINGLE``, or ``None`` where it is not known.
        """
        if axis is not None:
            self.axes[identify(edge)] = axis

    def note(self, statistic: str, call: Call, reading: RawValue) -> None:
        """Take in one value of a call that is running.

        Args:
            statistic: a key under which values are merged (``statistics.find_merge``).
            call: that was measured.
            reading: value on its device.
        """
        self.ledger.add(statistic, call.index, self.root, reading)

    def note_histogram(self, call: Call, counts: Tensor) -> None:
        """Take in the counts by bin of a call that is running.

        Args:
            call: that was measured.
            counts: elements by bin ``(64,)``, on the device.
        """
        places = [(f"units.{place}", call.index, self.root) for place in range(len(counts))]
        self.ledger.add_row(places, counts, [1.0] * len(places))

    def add_parts(self, fqn: str, measured: Measured, root: int) -> None:
        """Take in what was measured inside a module.

        Args:
            fqn: of the module.
            measured: read to its end.
            root: number of the outermost call in which the module ran.
        """
        for part, statistic, reading in measured:
            self.ledger.add(statistic, self.find_part(fqn, part, root).index, root, reading)

    def find_part(self, fqn: str, part: Part, root: int) -> Call:
        """The entry of something inside a module.

        Args:
            fqn: of the module.
            part: inside it; its entry is made where it is the first.
            root: number of the outermost call in which the module ran.
        """
        key = f"{fqn}:{part.name}".lstrip(":"), part.call
        call = self.calls.get(key)
        if call is None:
            layer = self._linked.get(key) or Layer(*key, part.role, part.kind)
            call = self.calls[key] = Call(len(self.calls), layer, is_part=True)
        if part.is_gate:
            self.gates.add(call.index)
        call.roots.add(root)
        return call


def _is_recurrent(call: Call) -> bool:
    return call.layer.role == "recurrent" and not call.is_part


def _describe(key: CallKey, name: tuple[str, str, str], tensors: list[Tensor]) -> Layer:
    largest = max(tensors, key=lambda tensor: tensor.numel())
    dtype = str(largest.dtype).removeprefix("torch.")
    return Layer(*key, *name[1:], dtype=dtype, output_numel=largest.numel())
