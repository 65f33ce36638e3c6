"""Statistics inside a captured graph: taps that let values and gradients through unchanged.

A tap is an identity. What it makes of the gradient comes back as the gradient of a probe, an input
of the graph of which nobody else knows: nothing is changed in place, and the compiler sees nothing
but a function. Every function here is traced, and must not read values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradwatch.capture import attention, saturation, statistics
from gradwatch.capture.device_values import PLAIN, REST, ROOT, RawValue
from gradwatch.capture.plan import CallSettings
from gradwatch.schema.activations import ACTIVATIONS, SATURATION_SHARE

NamedReading = tuple[str, RawValue]
"""Name of a statistic, and its value."""

Readings = list[NamedReading]

N_OF_GRADIENT = 2
"""Values that a tap makes of a gradient: what its norm is made of, and its elements that are not
zero."""


class _Tap(torch.autograd.Function):
    """Identity; what is read of the gradient is the gradient of the probe."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, _: Tensor, reached: set[int], number: int) -> Tensor:
        ctx.place = reached, number
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        reached, number = ctx.place
        reached.add(number)
        return grads[0], reduce_gradient(grads[0]), None, None


_reached: dict[int, set[int]] = {}
"""By graph, the taps whose backward was traced or has run: no others have a gradient."""


def tap(y: Tensor, probe: Tensor, graph: int, number: int) -> Tensor:
    """Let a value through, and read the gradient that comes back.

    Args:
        y: of any shape.
        probe: ``(N_OF_GRADIENT,)``, whose gradient takes what is read.
        graph: number of the graph.
        number: of the tap.
    """
    apply: Callable[..., Tensor] = _Tap.apply
    return apply(y, probe, _reached[graph], number)


def open_graph(graph: int) -> set[int]:
    """Begin a graph; answers the set of taps that are reached in backward, which grows.

    Args:
        graph: number of it.
    """
    return _reached.setdefault(graph, set())


def close_graph(graph: int) -> None:
    """A graph is used no more.

    Args:
        graph: number of it.
    """
    _reached.pop(graph, None)


def reduce_gradient(grad: Tensor) -> Tensor:
    """What is read of a gradient: ``(N_OF_GRADIENT,)``.

    Args:
        grad: of any shape, not empty.
    """
    flat = statistics.flatten_dense(grad)
    norm = _measure_norm(flat).value
    nonzero = torch.count_nonzero(statistics.take_sample(flat))
    return torch.stack([norm, nonzero.to(norm.dtype)])


def find_norm_kind(values: Tensor) -> int:
    """What the host makes of the norm that is read of a tensor, as of ``RawValue``.

    Args:
        values: not empty.
    """
    return ROOT if values.numel() > 1 else PLAIN  # the square of one may overflow


def _measure_norm(flat: Tensor) -> RawValue:
    values, kind = statistics.widen(flat), find_norm_kind(flat)
    return RawValue(values.abs().sum() if kind == PLAIN else _add_up(values * values), kind)


def _add_up(values: Tensor) -> Tensor:
    """The sum in blocks, since a compiler may add elements up one after the other.

    With n of them float32 is then wrong by about the root of n roundings at most, not by n.
    """
    size = len(values)
    block: int = 2 ** (size.bit_length() // 2)
    whole = size // block * block
    if block < _MIN_BLOCK:
        return values.sum()
    total = values[:whole].view(-1, block).sum(1).sum()
    return total if whole == size else total + values[whole:].sum()


_MIN_BLOCK = 16
"""Elements that are added up one after the other without a loss."""


@torch.no_grad()
def list_output_readings(y: Tensor) -> Readings:
    """Of a module's output.

    Args:
        y: not empty.
    """
    return [("output_l2_norm", _measure_norm(statistics.flatten_dense(y)))]


@torch.no_grad()
def list_activation_readings(x: Tensor, y: Tensor, name: str, settings: CallSettings) -> Readings:
    """Of an activation's call, as ``CallMeasures.put_activation`` reads them.

    Args:
        x, y: its input and output.
        name: of the activation.
        settings: the call's arguments by name.
    """
    activation, options, readings = ACTIVATIONS[name], dict(settings), list_output_readings(y)
    if not activation.is_elementwise:
        dim = options.get("dim", -1)
        dim = -1 if dim is None else dim
        if y.shape[dim] == 1:
            flat = RawValue(y.new_zeros(()))
            return [*readings, ("saturated_fraction", flat), ("derivative_mean", flat)]
        y = y.amax(dim)
    inputs, outputs = saturation.sample_activation(x if activation.needs_input else None, y)
    derivative, size = activation.derivative(inputs, outputs, options), outputs.numel()
    saturated = torch.count_nonzero(derivative < SATURATION_SHARE * activation.maximum)
    readings.append(("saturated_fraction", RawValue(saturated, PLAIN, size)))
    readings.append(("derivative_mean", RawValue(_add_up(derivative), PLAIN, size)))
    if activation.can_die:
        readings.append(("zero_fraction", RawValue(torch.count_nonzero(outputs), REST, size)))
    return readings


@torch.no_grad()
def list_attention_readings(
    is_multi_head: bool, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Readings:
    """Of a fused attention, as ``attention.measure_scores`` reads them.

    Args:
        is_multi_head: it projects by itself, as ``multi_head_attention_forward``.
        args, kwargs: that it is called with.

    Returns:
        ``[]`` where these do not say what its softmax is taken of.
    """
    sampler = attention.sample_multi_head if is_multi_head else attention.sample_attention
    scores = sampler(*args, **kwargs)
    if isinstance(scores, str):
        return []
    return [(name, reading) for _, name, reading in attention.measure_scores(scores)]


def measure_output(y: Tensor) -> tuple[Tensor, ...]:
    """Values of ``list_output_readings``.

    Args:
        y: as there.
    """
    return _take_values(list_output_readings(y))


def measure_activation(
    x: Tensor, y: Tensor, name: str, settings: CallSettings
) -> tuple[Tensor, ...]:
    """Values of ``list_activation_readings``.

    Args:
        x, y, name, settings: as there.
    """
    return _take_values(list_activation_readings(x, y, name, settings))


def measure_attention(
    is_multi_head: bool, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Tensor, ...]:
    """Values of ``list_attention_readings``.

    Args:
        is_multi_head, args, kwargs: as there.
    """
    return _take_values(list_attention_readings(is_multi_head, args, kwargs))


def _take_values(readings: Readings) -> tuple[Tensor, ...]:
    return tuple(reading.value.detach() for _, reading in readings)


class Reader(NamedTuple):
    """Reads some of a call's tensors.

    Attributes:
        describe: gives names and values.
        measure: gives the values alone, as a graph can call it.
    """

    describe: Callable[..., Readings]
    measure: Callable[..., tuple[Tensor, ...]]


OUTPUT_READER = Reader(list_output_readings, measure_output)
ACTIVATION_READER = Reader(list_activation_readings, measure_activation)
ATTENTION_READER = Reader(list_attention_readings, measure_attention)


@torch.no_grad()
def find_fired(y: Tensor, axis: int) -> Tensor:
    """Which units of a rectifier fired: bool ``(units,)``.

    Args:
        y: its output.
        axis: dimension that counts units; negative where all of it is one.
    """
    return statistics.find_fired_units(y, axis)


def join(values: Sequence[Tensor], is_double: bool) -> Tensor:
    """All values as one vector.

    Args:
        values: of no dimensions.
        is_double: in float64; else in float32.
    """
    dtype = torch.float64 if is_double else torch.float32
    return torch.stack([value.to(dtype) for value in values])
