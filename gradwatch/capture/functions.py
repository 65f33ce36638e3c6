"""Activations at the one point where modules and functions meet: the torch function mode.

``nn.Sigmoid`` calls ``torch.sigmoid`` as a user's ``forward`` may; both are seen here, once each.
The mode is entered when forward enters the outermost watched module and left when it returns, so
it never interleaves with a context of the user's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gradwatch.capture.attention import Scores, find_attention
from gradwatch.capture.attention_rows import find_node
from gradwatch.capture.cuts import CutFinder
from gradwatch.capture.gates import GateFinder
from gradwatch.capture.graph import Edge, Node, collect_tensors, find_input_edges
from gradwatch.capture.torch_callables import list_callables
from gradwatch.capture.user_frames import DEPTH_OF_MODULES, find_caller, stand_in
from gradwatch.interruption import is_foreign
from gradwatch.schema.activations import ACTIVATIONS, Activation
from gradwatch.schema.derivatives import Options

_HOMES: tuple[Any, ...] = (F, torch, Tensor, torch.special)


def _map_functions() -> dict[Any, Activation]:
    return {
        function: activation
        for activation in ACTIVATIONS.values()
        for name in activation.functions
        for function in list_callables(_HOMES, name, f"{name}_")
    }


FUNCTIONS: dict[Any, Activation] = _map_functions()
"""Every spelling of every activation, such as ``Tensor.tanh_``."""

READINGS = list_callables((Tensor,), "item", "tolist", "numpy", "__float__")
"""What takes values out of a tensor; questions about its shape do not use it."""


def find_call(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Activation | None, Options]:
    """The activation that a call amounts to, if it is one, and the call's arguments by name.

    Args:
        func: one of ``FUNCTIONS``.
        args, kwargs: of the call.

    Returns:
        ``None`` for a call that is no activation, such as a clamp to -1 and 1; its arguments.

    Example:
        >>> import torch
        >>> activation, _ = find_call(torch.nn.functional.hardtanh, (torch.zeros(1), 0.0, 6.0), {})
        >>> activation.name
        'relu6'
    """
    spelled = FUNCTIONS[func]
    options = {**dict(zip(spelled.options, args[1:], strict=False)), **kwargs}
    if spelled.resolve is None:
        return spelled, options
    return ACTIVATIONS.get(spelled.resolve(options)), options


class FunctionObserver(Protocol):
    """Whoever wants to know of the calls.

    Attributes:
        operands: data pointers of what forward's operations have read; added to, or ``None``
            where nobody asks.
    """

    operands: set[int] | None

    @property
    def is_seeing(self) -> bool:
        """Whether forward runs, or what stands between it and its backward."""

    @property
    def is_outside(self) -> bool:
        """Whether it is the latter."""

    @property
    def cuts(self) -> CutFinder | None:
        """Looks for calls that let no gradient through, or ``None``."""

    def record_activation(
        self,
        activation: Activation,
        x: Tensor,
        inputs: frozenset[Edge],
        y: Tensor,
        options: dict[str, Any],
    ) -> int | None:
        """Take one call in; answer its index among the calls of this step.

        Args:
            activation: that was called.
            x: its input, or a copy where it works in place and its derivative needs the input.
            inputs: edges of the input.
            y: its output.
            options: the call's arguments by name.

        Returns:
            ``None`` where the call gets no entry.
        """

    def mark_gate(self, index: int) -> None:
        """The call with this index turned out to be a gate.

        Args:
            index: as ``record_activation`` has answered it.
        """

    def record_attention(self, scores: Scores | str, node: Node | None) -> None:
        """Take in a sample of what a fused attention was given, or why there is none.

        Args:
            scores: the sample, or a remark in words.
            node: of the graph that keeps it all; ``None`` where there is none.
        """


class FunctionMode(TorchFunctionMode):
    """Sees every torch function that forward calls, and passes it on unchanged.

    Args:
        observer: is called with activations, attentions and gates.
        guard: calls a function of ours so that its exceptions never reach the training.
    """

    def __init__(self, observer: FunctionObserver, guard: Callable[..., Any]) -> None:
        super().__init__()
        self._observer = observer
        self._guard = guard
        self._gates = GateFinder(observer.mark_gate)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.backward and type(args[0]) is Tensor:
            return _run_backward(*args, **kwargs)
        depth = DEPTH_OF_MODULES if "_stacklevel" in kwargs else 1
        run = stand_in(find_caller(sys._getframe(1)), depth)
        if not self._observer.is_seeing:
            return run(func, args, kwargs)
        cuts, is_outside = self._observer.cuts, self._observer.is_outside
        if cuts is None:
            return self._call(run, func, args, kwargs)
        inputs = self._guard(cuts.list_inputs, args, kwargs)
        result = self._call(run, func, args, kwargs)
        if inputs:
            self._guard(cuts.look, func, inputs, result, is_outside, args, kwargs)
        if is_outside:
            self._guard(cuts.follow_result, func, (args, kwargs), result)
        return result

    def _call(
        self, run: Callable[..., Any], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if func in FUNCTIONS:
            activation, options = find_call(func, args, kwargs)
            if activation is not None:
                return self._call_activation(activation, options, run, func, args, kwargs)
        sample = find_attention(func)
        result = run(func, args, kwargs)
        if sample is not None:
            self._guard(self._record_attention, sample, func, args, kwargs, result)
        operands = self._observer.operands
        if operands is not None and _reads_values(func, result):
            self._guard(_note_operands, operands, args, kwargs)
        if self._gates.is_asked(func):
            self._guard(self._gates.follow, func, args, result)
        return result

    def _record_attention(
        self, sample: Callable[..., Scores | str], func: Any, args: Any, kwargs: Any, result: Any
    ) -> None:
        if torch.is_grad_enabled():
            node = find_node(func, args, kwargs, result)
            self._observer.record_attention(sample(*args, **kwargs), node)

    def _call_activation(
        self,
        activation: Activation,
        options: Options,
        run: Callable[..., Any],
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        in_place = options.get("inplace", False) or _is_in_place(func)
        x = args[0] if args else kwargs.get("input")
        before = self._guard(_read_input, activation, x, in_place)
        result = run(func, args, kwargs)
        if before is not None and isinstance(result, Tensor):
            self._guard(self._record, activation, before, result, options)
        return result

    def _record(
        self,
        activation: Activation,
        before: tuple[Tensor, frozenset[Edge]],
        y: Tensor,
        options: Options,
    ) -> None:
        index = self._observer.record_activation(activation, *before, y, options)
        if index is not None:
            self._gates.begin(y, index, activation.is_log)


def _run_backward(
    loss: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """What ``Tensor.backward`` does next: somebody's wrapper around it must not run twice."""
    torch.autograd.backward(loss, gradient, retain_graph, create_graph, inputs=inputs)


def _reads_values(func: Any, result: Any) -> bool:
    return isinstance(result, (Tensor, tuple, list)) or func in READINGS


def _note_operands(operands: set[int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for value in (*args, *kwargs.values()) if kwargs else args:
        for tensor in collect_tensors(value, depth=1):
            try:
                operands.add(tensor.data_ptr())
            except (RuntimeError, ValueError) as error:  # a tensor without memory of its own
                if is_foreign(error):
                    raise


def _read_input(
    activation: Activation, x: Any, in_place: bool
) -> tuple[Tensor, frozenset[Edge]] | None:
    if not isinstance(x, Tensor) or not torch.is_grad_enabled():
        return None
    keep = activation.needs_input and in_place
    return (x.detach().clone() if keep else x), find_input_edges(x)


def _is_in_place(func: Any) -> bool:
    name: str = getattr(func, "__name__", "")
    return name.endswith("_") and not name.endswith("__")
