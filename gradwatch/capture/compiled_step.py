"""A sampled step whose layers are read inside compiled code."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradwatch.capture.attention import PART
from gradwatch.capture.calls import Call, CallKey, CallTable
from gradwatch.capture.device_values import REST
from gradwatch.capture.firing_history import FiringHistory
from gradwatch.capture.forward import ForwardTracker
from gradwatch.capture.frames import Protect
from gradwatch.capture.gradients import GradientReader
from gradwatch.capture.planned_step import PlannedStep
from gradwatch.capture.tapped_graph import GraphRun, TapRow


class CompiledForward(ForwardTracker):
    """Stands for what follows modules, where none is followed."""

    _is_open = True

    @property
    def is_armed(self) -> bool:
        """Whether the step goes on."""
        return self._is_open

    def disarm(self) -> None:
        """There is nothing to leave."""
        self._is_open = False
        super().disarm()


class CompiledStep(PlannedStep):
    """Takes what a graph with statistics gives; in the place of an ``Execution``.

    Args:
        table: takes the values.
        gradients: knows which backward counts.
        firing: which units fired lately.
        guard: calls a function of ours so that its exceptions never reach the training.
        begin: is called with the outermost module when forward has begun.
        root: that module; held weakly.
        has_begun: forward has begun, and what is around compiled code has been entered.

    Attributes:
        is_waiting: the graph was to run and has not, as where torch does not compile the call.
    """

    def __init__(
        self,
        table: CallTable,
        gradients: GradientReader,
        firing: FiringHistory,
        guard: Protect,
        begin: Callable[[nn.Module], None],
        root: weakref.ref[nn.Module],
        has_begun: bool = False,
    ) -> None:
        super().__init__()
        self.is_waiting = False
        self._is_refused = False
        self._table = table
        self._gradients = gradients
        self._firing = firing
        self._guard = guard
        self._begin = begin
        self._root = root
        self._has_begun = has_begun
        self._is_over = True
        self._passes = 0

    @property
    def is_complete(self) -> bool:
        """Whether all was as planned."""
        return not self.mismatch and not self.is_waiting and self._passes > 0

    @property
    def is_refused(self) -> bool:
        """The graph could not be read; the plan is as good as before."""
        return self._is_refused or self.is_waiting

    @property
    def root(self) -> nn.Module | None:
        """The module that forward begins with, while it is there."""
        return self._root()

    def refuse(self, reason: str) -> None:
        """The graph cannot be read.

        Args:
            reason: in a few words.
        """
        self._is_refused = True
        self.reject(reason)

    def begin_pass(self) -> None:
        """A forward begins after a backward."""
        self._is_over = True

    def begin_root(self, module: nn.Module) -> None:
        """Forward has begun.

        Args:
            module: that is watched.
        """
        if not self._is_over:
            self.reject("the outermost module")
        self._is_over = False
        self._passes += 1

    def begin_call(self) -> None:
        """The model's compiled code is about to run."""
        module = self.root
        if module is None:
            return
        self.is_waiting = True
        if self._has_begun:
            self._has_begun = False
            self.begin_root(module)
        else:
            self._begin(module)

    # Values ---------------------------------------------------------------------------------

    def take(self, run: GraphRun) -> None:
        """As of ``compiled_variant.Taker``.

        Args:
            run: of the graph.
        """
        self.is_waiting = False
        self._guard(self._take, run)

    @torch.no_grad()
    def _take(self, run: GraphRun) -> None:
        graph, root, ledger = run.graph, self._table.root, self._table.ledger
        calls = [self._find_call(slot.key, slot.attention) for slot in graph.slots]
        indices = [call.index for call in calls]
        for name, kind, start, stop, sites, divisors in graph.columns:
            places = [indices[site] for site in sites]
            roots = [root] * len(places)
            ledger.add_column(name, places, roots, run.vector[start:stop], divisors, kind)
        for (site, samples), units in zip(graph.fired, run.fired, strict=True):
            self._firing.observe(calls[site].key, units, samples)
        arrived: set[int] = set()
        for place, output in enumerate(run.outputs):
            if isinstance(output, Tensor) and output.grad_fn is not None:
                where = output.output_nr, graph.behind[place]
                reach = partial(_reach, weakref.ref(self._gradients), self._guard, root)
                output.grad_fn.register_prehook(partial(reach, arrived, *where))
        read = partial(self._read, graph.taps, run.reached, arrived, indices, root)
        run.probe.register_hook(partial(self._guard, read))

    def _find_call(self, key: CallKey | None, attention: str | None) -> Call:
        if attention is not None:
            return self._table.find_part(attention, PART, self._table.root)
        assert key is not None
        return self._table.find_described(key)

    def _read(
        self,
        taps: Sequence[TapRow],
        reached: set[int],
        arrived: set[int],
        indices: list[int],
        root: int,
        grad: Tensor,
    ) -> None:
        """What was read of the gradients has arrived."""
        if not self._gradients.reach(root):
            return
        grad = grad.detach()
        groups: dict[tuple[str, int, int], list[tuple[int, float]]] = {}
        for number in sorted(reached & arrived):
            tap = taps[number]
            norm = "grad_output_l2_norm" if tap.size else "grad_input_l2_norm"
            groups.setdefault((norm, 0, tap.kind), []).append((number, 1.0))
            if tap.size:
                rest = "grad_zero_fraction", 1, REST
                groups.setdefault(rest, []).append((number, float(tap.size)))
        for (name, column, kind), group in groups.items():
            numbers, divisors = zip(*group, strict=True)
            calls = [indices[taps[number].site] for number in numbers]
            values, roots = grad[list(numbers), column], [root] * len(calls)
            self._table.ledger.add_column(name, calls, roots, values, divisors, kind)


def _reach(
    gradients: weakref.ref[GradientReader],
    guard: Protect,
    root: int,
    arrived: set[int],
    number: int,
    behind: Iterable[int],
    grads: Any,
) -> None:
    """Backward has come to an output of the graph: if with a gradient, its taps will have some."""
    reader = gradients()
    if reader is not None and grads[number] is not None:
        arrived.update(behind)
        guard(reader.reach, root)
