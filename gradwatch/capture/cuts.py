"""Calls in forward that let no gradient through: ``detach``, ``no_grad``, ``round``, ``argmax``.

Looked for at some sampled steps only, and at the one point where all calls are seen. Nothing is
computed and nothing is kept of a tensor but which calls and parameters it came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from gradwatch.capture.found_cuts import CutResults, FoundCut
from gradwatch.capture.graph import Edge, EdgeKey, collect_tensors, find_edge, identify
from gradwatch.capture.singular import is_singular
from gradwatch.capture.source_lines import SourceLine, find_source_line
from gradwatch.interruption import is_foreign

_ROUNDINGS = ("round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside")
FLAT = frozenset((*_ROUNDINGS, "bernoulli", "poisson", "normal"))
"""Functions that autograd knows and whose slope is zero almost everywhere."""

READING_NAMES = frozenset(
    ("item", "tolist", "numpy", "__float__", "__int__", "__index__", "__array__")
)
"""What makes plain numbers of a tensor."""

ARRAYS = frozenset(("tolist", "numpy", "__array__"))
"""What makes many of them."""

_ORDERS = ("gt", "ge", "lt", "le", "eq", "ne", "greater", "less")
_COMPARISONS = frozenset((*_ORDERS, "greater_equal", "less_equal", "not_equal"))

_CHECKS = frozenset(("isnan", "isinf", "isfinite", "equal", "allclose", "isclose", "grad", "size"))
"""What looks at a tensor and hands none of its values on."""

MAX_CUTS = 64
"""Places in the code that are remembered."""

MAX_WALK = 1024
"""Graph nodes between a tensor and the calls that it came from."""


class CutFinder:
    """Collects the cuts of one sampled step.

    Args:
        known: calls by the edges of their outputs; grows while forward runs.

    Attributes:
        found: by function and source.
    """

    def __init__(self, known: Mapping[EdgeKey, int]) -> None:
        self.found: dict[tuple[str, str], FoundCut] = {}
        self._known = known
        self._outputs: list[tuple[int, int]] = []  # weak reference of torch's, call
        self.results = CutResults()

    def list_calls(self) -> set[int]:
        """Indices of the calls of which something has lost its graph."""
        cuts = (cut for cut in self.found.values() if not cut.is_singular)
        return {call for cut in cuts for call in cut.calls}

    def list_inputs(self, args: Any, kwargs: dict[str, Any]) -> list[Tensor | Edge]:
        """What of a call's arguments learns: edges of what was computed, and leaves themselves.

        Args:
            args, kwargs: of the call, to a depth of three containers.
        """
        tensors = [
            tensor for tensor in collect_tensors((args, kwargs), depth=3) if tensor.requires_grad
        ]
        return [_find_beginning(tensor) for tensor in tensors]

    def look(
        self,
        func: Any,
        inputs: list[Tensor | Edge],
        result: Any,
        is_outside: bool = False,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Note a call if it was given what learns, and what it returned does not or may be Inf.

        Args:
            func: that was called.
            inputs: see ``list_inputs``.
            result: what it returned.
            is_outside: of forward, where most of what is cut is for a log or a metric.
            args, kwargs: that it was given.
        """
        name = _name_function(func)
        outputs = collect_tensors(result, depth=2)
        if is_outside and name in READING_NAMES:
            if name in ARRAYS:  # else a number that a log wants, and nobody can follow
                calls, params = find_origins(inputs, self._known)
                cut = self._note(name, find_source_line(), calls, params, goes_on=False)
                if cut is not None:
                    cut.is_read = True
            return
        learns = any(output.requires_grad for output in outputs)
        learns &= all(
            output.requires_grad or output.is_floating_point() for output in outputs
        )  # no indices
        is_flat = learns and name.strip("_") in FLAT
        if learns and is_singular(name, args, kwargs):
            cut = self._note(name, find_source_line(), *find_origins(inputs, self._known))
            if cut is not None:
                cut.is_singular = True
        if learns and not is_flat:
            return
        if is_flat or name in READING_NAMES or (outputs and not _is_check(name)):
            calls, params = find_origins(inputs, self._known)
            goes_on = is_flat or not is_outside
            cut = self._note(name, find_source_line(), calls, params, is_flat, goes_on)
            if cut is not None and not goes_on:
                self.results.keep(outputs, [cut])

    def follow_result(self, func: Any, values: Any, result: Any) -> None:
        """A call outside of forward may use what an earlier cut has returned.

        Args:
            func: that was called.
            values: its arguments.
            result: what it returned.
        """
        if _name_function(func) in ARRAYS:
            self.results.read(values)
        self.results.follow(values, result)

    def note_without_grad(self, fqn: str) -> None:
        """A module is called as a whole where gradients are switched off.

        Args:
            fqn: of the module.
        """
        place = find_source_line()
        if place is not None:
            cut = self._enter("torch.no_grad", place)
            if cut is not None:
                cut.names.add(fqn)

    def keep_output(self, tensors: Iterable[Tensor], call: int) -> None:
        """An outermost call has returned: whoever gets its memory next gets its values.

        Args:
            tensors: that it returned; only weak references to their memory are kept.
            call: its index.
        """
        for tensor in tensors:
            storage: Any = tensor.untyped_storage()
            self._outputs.append((storage._weak_ref(), call))

    def forget_outputs(self) -> None:
        """Give the references back, without a ``__del__``: what a signal raises in one is lost."""
        while self._outputs:
            torch.UntypedStorage._free_weak_ref(self._outputs.pop()[0])

    def look_at_inputs(self, values: Any) -> None:
        """An outermost call was given values of an earlier one that have lost their graph.

        Args:
            values: arguments of the call.
        """
        if self.results.use(values):
            return
        for tensor in collect_tensors(values):
            if not tensor.requires_grad and self._outputs:
                calls = self.find_owners(tensor)
                if calls:
                    self._note("detach", find_source_line(), calls, set())

    def look_around(self, inputs: Any, outputs: Mapping[Edge, Tensor]) -> None:
        """What an outermost call was given may have lost its graph since an earlier one.

        Args:
            inputs: arguments of the call.
            outputs: what it has returned with a graph, by edge.
        """
        self.look_at_inputs(inputs)
        for edge, tensor in outputs.items():
            calls, _ = find_origins([edge], self._known)
            for call in calls:
                self.keep_output([tensor], call)

    def find_owners(self, tensor: Tensor) -> set[int]:
        """Outermost calls in whose output's memory this tensor lies.

        Args:
            tensor: one without memory of its own lies in nobody's.

        Returns:
            Indices of the calls.
        """
        try:
            own = tensor.untyped_storage()._cdata
        except (RuntimeError, NotImplementedError) as error:
            if is_foreign(error):
                raise
            return set()
        return {call for storage, call in self._outputs if storage == own}

    def _note(
        self,
        name: str,
        place: SourceLine | None,
        calls: set[int],
        params: set[int],
        is_flat: bool = False,
        goes_on: bool = True,
    ) -> FoundCut | None:
        if place is None or not (calls or params):
            return None
        cut = self._enter(_choose_name(name, place), place, is_flat, goes_on)
        if cut is not None:
            cut.calls |= calls
            cut.params |= params
        return cut

    def _enter(
        self, function: str, place: SourceLine, is_flat: bool = False, goes_on: bool = True
    ) -> FoundCut | None:
        key = function, place.source
        if key not in self.found and len(self.found) >= MAX_CUTS:
            return None
        fresh = FoundCut(function, place.source, place.line, place.caller, is_flat, goes_on)
        return self.found.setdefault(key, fresh)


def _find_beginning(tensor: Tensor) -> Tensor | Edge:
    """A tensor's edge, or itself where it is a leaf; a view made without a graph has its base's."""
    edge = find_edge(tensor)
    if edge is None and tensor._base is not None:
        return find_edge(tensor._base) or tensor._base
    return edge or tensor


def find_origins(
    inputs: Iterable[Tensor | Edge], known: Mapping[EdgeKey, int]
) -> tuple[set[int], set[int]]:
    """Calls and parameters (by ``id``) that values came from, with no other call between.

    Args:
        inputs: as ``CutFinder.list_inputs`` gives them.
        known: index of the call by the edge of its output.

    Returns:
        Indices of the calls and ids of the parameters, as far as ``MAX_WALK`` nodes go.
    """
    pending: list[Edge] = []
    calls: set[int] = set()
    params: set[int] = set()
    for source in inputs:
        if isinstance(source, Tensor):
            params.add(id(source))
        else:
            pending.append(source)
    seen: set[Edge] = set()
    while pending and len(seen) < MAX_WALK:
        edge = pending.pop()
        if edge[0] is None or edge in seen:
            continue
        seen.add(edge)
        call = known.get(identify(edge))
        if call is not None:
            calls.add(call)
        elif hasattr(edge[0], "variable"):
            params.add(id(edge[0].variable))
        else:
            pending.extend(edge[0].next_functions)
    return calls, params


def _name_function(func: Any) -> str:
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__"):
        return str(getattr(getattr(func, "__self__", None), "__name__", name))
    return str(name)


def _is_check(name: str) -> bool:
    return name in _CHECKS or name.startswith(("new_", "is_")) or name.endswith("_like")


def _choose_name(name: str, place: SourceLine) -> str:
    """What a user would recognise in the line."""
    if place.in_function:
        return "autograd.Function"
    if place.through in ("sample", "sample_n"):
        return place.through
    if not torch.is_grad_enabled() and name not in ("detach", "data"):
        return "torch.no_grad"
    plain = name.strip("_")
    return "comparison" if plain in _COMPARISONS else plain
