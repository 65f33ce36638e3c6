"""A second compilation of a watched model's code, with statistics in its graph.

It lives beside the user's own, in a region of dynamo's cache that nobody else asks, runs at sampled
steps only, and goes with the watch.
"""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from gradwatch.capture import compiled_taps
from gradwatch.capture.calls import CallKey
from gradwatch.capture.compiled_graph import TappedGraph, tap_graph
from gradwatch.capture.compiled_sites import UnsuitedGraph
from gradwatch.capture.opposition import is_asked
from gradwatch.capture.plan import Plan
from gradwatch.interruption import forget_frames, is_foreign
from gradwatch.records import Layer

_numbers = itertools.count()


class Taker(Protocol):
    """A sampled step that takes what the graph gives."""

    def take(
        self,
        graph: TappedGraph,
        reached: set[int],
        outputs: Sequence[Any],
        vector: Tensor,
        fired: Sequence[Tensor],
        probe: Tensor,
    ) -> None:
        """The graph has run.

        Args:
            graph: that has run.
            reached: taps that have a gradient, once backward has run.
            outputs: its own.
            vector: all values of forward.
            fired: units of each rectifier.
            probe: whose gradient is what is read of gradients.
        """

    def refuse(self, reason: str) -> None:
        """The step runs without statistics.

        Args:
            reason: in a few words.
        """


def _load_dynamo() -> Any:
    """What of dynamo this needs; ``None`` where this torch does not have it."""
    dynamo: Any = sys.modules.get("torch._dynamo.eval_frame")
    c_module: Any = getattr(torch._C._dynamo, "eval_frame", None)
    names = "set_eval_frame_isolate_recompiles_id", "_get_cache_entries_for_region"
    if dynamo is None or not all(hasattr(c_module, name) for name in names):
        return None
    if not hasattr(dynamo, "_next_isolate_recompiles_id"):
        return None
    return dynamo


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
        self._below: Any = None
        self._codes: list[CodeType] = []
        self._n_graphs = 0
        self._function = self._root = 0
        self._taker: weakref.ref[Any] | None = None

    # Choosing -------------------------------------------------------------------------------

    def is_usable(self, plan: Plan, linked: Mapping[CallKey, Layer]) -> bool:
        """Whether a step with this plan may run it.

        Args:
            plan: of the step.
            linked: calls as earlier steps have described them.
        """
        if plan is not self._plan:
            self.clear()
            self._plan, self._number = plan, next(_numbers)
            self.refusal = find_obstacle(plan, linked)
        return not self.refusal and _load_dynamo() is not None

    def refuse(self, reason: str) -> None:
        """Sampled steps with this plan run eagerly from now on.

        Args:
            reason: in a few words; the first one stays.
        """
        self.refusal = self.refusal or reason
        taker = None if self._taker is None else self._taker()
        if taker is not None:
            taker.refuse(reason)

    def choose(self, frame: FrameType, function: Any, taker: Taker, root: nn.Module) -> Any:
        """A call of the model's compiled code is about to run: with which backend.

        Args:
            frame: of dynamo, that asks for its stance.
            function: that is called; always the same one.
            taker: of what the graph gives.
            root: the outermost watched module, without what compilation puts around it.

        Returns:
            ``None`` where the call has to run as without this.
        """
        dynamo, caller = _load_dynamo(), frame.f_back
        is_known = frame.f_code.co_name == "_callback_from_stance" and caller is not None
        if (
            dynamo is None
            or not is_known
            or caller is None
            or caller.f_code.co_name != "compile_wrapper"
        ):
            return None
        self._function = self._function or id(function)
        if self._function != id(function):
            return None
        below = dynamo.innermost_backend(frame.f_locals["callback"])
        if self._below is not None and below is not self._below:
            return None
        if getattr(below, "config", {}).get("triton.cudagraphs"):
            self.refuse("CUDA graphs")
            return None
        self._root = id(root)
        if self._backend is None:
            self._below, self._backend = below, self._make_backend(below)
            self._region = next(dynamo._next_isolate_recompiles_id)
        torch._C._dynamo.eval_frame.set_eval_frame_isolate_recompiles_id(self._region)
        self._taker = weakref.ref(taker)
        return self._backend

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
            probe = _make_probe(graph)
            with torch._functorch.config.patch(force_non_lazy_backward_lowering=True):
                return self._make_runner(graph, below(graph.module, [probe, *inputs]), reached)
        except Exception as error:
            if is_foreign(error):
                raise
            is_known = isinstance(error, UnsuitedGraph)
            self.refuse(str(error) if is_known else f"{type(error).__name__}: {error}")
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

    def _make_runner(self, graph: TappedGraph, compiled: Any, reached: set[int]) -> Any:
        owner, n_extra = weakref.ref(self), 1 + len(graph.fired)

        def run(*args: Any) -> Any:
            probe = _make_probe(graph)
            results = compiled(probe, *args)
            outputs, (vector, *fired) = results[:-n_extra], results[-n_extra:]
            variant = owner()
            taker = None
            if variant is not None and variant._taker is not None:
                taker = variant._taker()
            if taker is not None:
                taker.take(graph, reached, outputs, vector, fired, probe)
            return outputs

        return run

    # Ending ---------------------------------------------------------------------------------

    def end_step(self) -> None:
        """What runs from now on is no sampled step."""
        self._taker = None

    def clear(self) -> None:
        """Take the compiled code out of dynamo's cache."""
        for code in self._codes:
            _forget(code, self._region)
        compiled_taps.close_graph(self._number)
        self._codes.clear()
        self._backend = self._below = self._plan = self._taker = None
        self._n_graphs = self._function = 0


def _make_probe(graph: TappedGraph) -> Tensor:
    return torch.zeros(
        graph.probe_shape, dtype=torch.float32, device=graph.device, requires_grad=True
    )


def _forget(code: CodeType, region: int) -> None:
    from torch._dynamo.guards import DeletedGuardManagerWrapper

    frames: Any = torch._C._dynamo.eval_frame
    for entry in frames._get_cache_entries_for_region(code, region):
        manager = entry.guard_manager
        if not isinstance(manager, DeletedGuardManagerWrapper):
            gone = DeletedGuardManagerWrapper("the watch has ended")
            manager.extra_state.invalidate(entry, gone)


def find_obstacle(plan: Plan, linked: Mapping[CallKey, Layer]) -> str:
    """Why a plan's statistics cannot be read inside a graph; ``""``: they can.

    Args:
        plan: of a step.
        linked: calls as earlier steps have described them.
    """
    if len(plan.passes) != 1 or sum(slot.root is not None for slot in plan.passes[0]) != 1:
        return "several outermost calls"
    if plan.needs_mode:
        return "functions that the graph does not lead to"
    if any(slot.role == "recurrent" for slot in plan.passes[0]):
        return "recurrent layers"
    for slot in plan.passes[0]:
        layer = None if slot.key is None else linked.get(slot.key)
        if layer is not None and layer.step_axis >= 0:
            return "a loop over time"
        if layer is not None and slot.activation and is_asked(layer, slot.activation):
            return "outputs that an activation squashes"
    return ""
