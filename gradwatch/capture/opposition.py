"""Outputs that are saturated at the wrong end: which of them the loss pulls back."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from gradwatch.capture.calls import Call, CallTable
from gradwatch.capture.device_values import PLAIN, RawValue
from gradwatch.capture.gradients import GradientReader
from gradwatch.capture.graph import Edge
from gradwatch.capture.saturation import sample_activation
from gradwatch.records import Layer
from gradwatch.schema.activations import SATURATION_SHARE, Activation
from gradwatch.schema.derivatives import Options


def is_asked(layer: Layer, activation: Activation) -> bool:
    """Whether a call may be saturated at the wrong end: a squashing of the network's outputs.

    Args:
        layer: of the call, as an earlier step has described it.
        activation: that is called.
    """
    is_plain = activation.is_elementwise and activation.resolve is None
    return layer.is_head and activation.flat == "both" and is_plain


def watch_opposition(
    gradients: GradientReader,
    table: CallTable,
    call: Call,
    edge: Edge,
    given: tuple[Activation, Tensor, Options],
) -> None:
    """Compare an output with the gradient that arrives at it.

    Args:
        gradients: read there.
        table: takes the value.
        call: of an activation.
        edge: of its output.
        given: activation, output and the call's arguments by name.
    """
    activation, y, options = given
    kept = y.detach()
    take = partial(_take, table, call, table.root, (activation, kept, options), kept._version)
    gradients.tell(edge, take)


def _take(
    table: CallTable,
    call: Call,
    root: int,
    given: tuple[Activation, Tensor, Options],
    version: int,
    grad: Tensor,
) -> None:
    activation, y, options = given
    if y._version == version and not y.is_complex():  # else somebody has changed it in place
        opposed = measure_opposed(activation, y, grad, options)
        table.ledger.add("opposed_fraction", call.index, root, opposed)


def measure_opposed(activation: Activation, y: Tensor, grad: Tensor, options: Options) -> RawValue:
    """Share of elements that are saturated, and that descent would bring back to the slope.

    Args:
        activation: that is asked, see ``is_asked``.
        y: its output.
        grad: at its output, of the same shape.
        options: the call's arguments by name.

    Example:
        >>> import torch
        >>> from gradwatch.schema.activations import ACTIVATIONS
        >>> y, grad = torch.tensor([0.0, 0.0, 1.0, 0.5]), torch.tensor([-1.0, 1.0, 0.2, 1.0])
        >>> opposed = measure_opposed(ACTIVATIONS["sigmoid"], y, grad, {})
        >>> opposed.value.item() / opposed.divisor
        0.5
    """
    assert activation.curve is not None
    middle = float(activation.curve(np.zeros(1))[0])
    pulls, values = sample_activation(grad, y)
    slope = activation.derivative(values, values, options)
    is_saturated = slope < SATURATION_SHARE * activation.maximum
    opposed = is_saturated & (pulls * (values - middle) > 0)
    return RawValue(opposed.sum(dtype=values.dtype), PLAIN, values.numel())
