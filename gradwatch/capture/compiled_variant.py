"""A second compilation of a watched model's code, with statistics in its graph.

It lives beside the user's own, in a region of dynamo's cache that nobody else asks, runs at sampled
steps only, and goes with the watch.
"""

from __future__ import annotations

import copy
import itertools
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import CodeType, FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from gradwatch.capture import compiled_taps
from gradwatch.capture.calls import CallKey
from gradwatch.capture.compiled_comparison import are_identical
from gradwatch.capture.compiled_conditions import CompiledCall, find_obstacle, load_dynamo
from gradwatch.capture.compiled_graph import tap_graph
from gradwatch.capture.compiled_nodes import UnsuitedGraph
from gradwatch.capture.plan import Plan
from gradwatch.capture.tapped_graph import GraphRun, TappedGraph
from gradwatch.interruption import forget_frames, is_foreign
from gradwatch.records import Layer

_numbers = itertools.count()


class Taker(Protocol):
    """A sampled step that takes what the graph gives.

    Attributes:
        is_waiting: the graph was to run and has not.
    """

    is_waiting: bool

    def begin_call(self) -> None:
        """The graph is about to run."""

    def take(self, run: GraphRun) -> None:
        """The graph has run.

        Args:
            run: what it has given.
        """

    def refuse(self, reason: str) -> None:
        """The step runs without statistics.

        Args:
            reason: in a few words.
        """


class CompiledVariant:
    """The second compilation, made when a planned step first runs the model's compiled code.

    Attributes:
        refusal: why there is none; ``""``: there may be one.
    """

    def __init__(self) -> None:
        self.refusal = ""
        self._plan: Plan | None = None
        self._region = -1
        self._number = -1
        self._backend: Any = None
        self._call: CompiledCall | None = None
        self._codes: list[CodeType] = []
        self._n_graphs = 0
        self._root = 0
        self._taker: weakref.ref[Taker] | None = None

    # Choosing -------------------------------------------------------------------------------

    def is_usable(self, call: CompiledCall, plan: Plan, linked: Mapping[CallKey, Layer]) -> bool:
        """Whether a call in a step with this plan may run it.

        Args:
            call: as of ``compiled_conditions.read_call``.
            plan: of the step.
            linked: calls as earlier steps have described them.
        """
        if plan is not self._plan and plan == self._plan:
            self._plan = plan  # made again by a step that was followed
        if plan is not self._plan:
            self.clear()
            self._plan, self._number = plan, next(_numbers)
            self.refusal = find_obstacle(call, plan, linked)
        return self.is_open(call)

    def is_open(self, call: CompiledCall) -> bool:
        """Whether a call may run it, in a step that does.

        Args:
            call: as of ``compiled_conditions.read_call``.
        """
        return not self.refusal and self._call in (None, call)

    def refuse(self, reason: str) -> None:
        """Sampled steps with this plan run eagerly from now on.

        Args:
            reason: in a few words; the first one stays.
        """
        self.refusal = self.refusal or reason
        taker = self._find_taker()
        if taker is not None:
            taker.refuse(reason)

    def enter(self, call: CompiledCall, taker: Taker, root: nn.Module) -> Any:
        """The call is going to run with the backend that this answers.

        Args:
            call: as of ``compiled_conditions.read_call``; the first one of a plan is compiled, and
                others like it run.
            taker: of what the graph gives.
            root: the outermost watched module, without what compilation puts around it.
        """
        frames: Any = torch._C._dynamo.eval_frame
        if self._call is None:
            self._call, self._root = call, id(root)
            self._backend = self._make_backend(call.below)
            self._region = next(load_dynamo()._next_isolate_recompiles_id)
        frames.set_eval_frame_isolate_recompiles_id(self._region)  # dynamo takes it back
        self._taker = weakref.ref(taker)
        taker.begin_call()
        return self._backend

    def _find_taker(self) -> Taker | None:
        return None if self._taker is None else self._taker()

    # Compiling ------------------------------------------------------------------------------

    def _make_backend(self, below: Callable[..., Any]) -> Callable[..., Any]:
        """For dynamo, which keeps it: it keeps nobody."""
        owner = weakref.ref(self)

        def gradwatch_backend(module: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
            variant = owner()
            if variant is None:
                return module.forward
            compiled = variant._compile(below, module, inputs)
            return module.forward if compiled is None else compiled

        return gradwatch_backend

    def _compile(self, below: Any, module: GraphModule, inputs: list[Tensor]) -> Any:
        """The graph with statistics, compiled; ``None`` where it has to run as it is."""
        try:
            self._note_code()
            self._n_graphs += 1
            if self._n_graphs > 1:
                raise UnsuitedGraph("several graphs")
            assert self._plan is not None
            reached = compiled_taps.open_graph(self._number)
            graph = tap_graph(module, self._plan, self._number, self._root)
            bare = below(GraphModule(module, copy.deepcopy(module.graph)), inputs)
            with torch._functorch.config.patch(force_non_lazy_backward_lowering=True):
                tapped = below(graph.module, [_make_probe(graph), *inputs])
            return self._make_runner(graph, bare, tapped, reached)
        except Exception as error:
            if is_foreign(error):
                raise
            self.refuse(str(error) if isinstance(error, UnsuitedGraph) else type(error).__name__)
            forget_frames(error)
            return None

    def _note_code(self) -> None:
        """Whose cache is going to hold it: the code of the frame that is compiled."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            home = frame.f_globals.get("__name__")
            if frame.f_code.co_name == "_compile" and home == "torch._dynamo.convert_frame":
                self._codes.append(frame.f_locals["code"])
                return
            frame = frame.f_back
        raise UnsuitedGraph("a compilation of another kind")

    def _make_runner(self, graph: TappedGraph, bare: Any, tapped: Any, reached: set[int]) -> Any:
        """Runs the graph with statistics, once it is known to change nothing."""
        owner, n_extra = weakref.ref(self), 1 + len(graph.fired)
        waiting = [bare]

        def run(*args: Any) -> Any:
            variant = owner()
            for bare in waiting:
                if variant is None or not variant._compare(bare, graph, tapped, args):
                    return bare(*args)
            waiting.clear()
            probe = _make_probe(graph)
            results = tapped(probe, *args)
            outputs, (vector, *fired) = results[:-n_extra], results[-n_extra:]
            taker = None if variant is None else variant._find_taker()
            if taker is not None:
                taker.take(GraphRun(graph, reached, outputs, vector, fired, probe))
            return outputs

        return run

    def _compare(self, bare: Any, graph: TappedGraph, tapped: Any, args: Sequence[Any]) -> bool:
        """Whether training is the same with statistics; without, where anything goes wrong."""
        try:
            compute = partial(tapped, _make_probe(graph))
            if are_identical(bare, compute, args, 1 + len(graph.fired)):
                return True
            self.refuse("with statistics the compiler adds up in another order")
        except Exception as error:
            if is_foreign(error):
                raise
            self.refuse(type(error).__name__)
            forget_frames(error)
        return False

    # Ending ---------------------------------------------------------------------------------

    def end_step(self) -> None:
        """What runs from now on is no sampled step."""
        taker = self._find_taker()
        if taker is not None and taker.is_waiting:
            self.refuse("torch does not compile it")
        self._taker = None

    def clear(self) -> None:
        """Take the compiled code out of dynamo's cache."""
        for code in self._codes:
            _forget(code, self._region)
        compiled_taps.close_graph(self._number)
        self._codes.clear()
        self._backend = self._call = self._plan = self._taker = None
        self._n_graphs = 0


def _make_probe(graph: TappedGraph) -> Tensor:
    return torch.zeros(
        graph.probe_shape, dtype=torch.float32, device=graph.device, requires_grad=True
    )


def _forget(code: CodeType, region: int) -> None:
    from torch._dynamo.guards import DeletedGuardManagerWrapper

    frames: Any = torch._C._dynamo.eval_frame
    for entry in frames._get_cache_entries_for_region(code, region):
        manager = entry.guard_manager
        is_gone = isinstance(manager, DeletedGuardManagerWrapper)
        if not is_gone and manager.extra_state is not None:
            gone = DeletedGuardManagerWrapper("the watch has ended")
            manager.extra_state.invalidate(entry, gone)
