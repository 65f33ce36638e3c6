"""How saturated a call of an activation is: values that stay on its device."""

from __future__ import annotations

import torch
from torch import Tensor

from gradwatch.capture.device_values import PLAIN, RawValue
from gradwatch.capture.statistics import take_sample, widen
from gradwatch.schema.activations import SATURATION_SHARE, Activation
from gradwatch.schema.derivatives import Options


def measure_saturation(
    activation: Activation, x: Tensor | None, y: Tensor, options: Options
) -> tuple[RawValue, RawValue]:
    """Saturated fraction and mean |phi'| of one call of an activation, of a sample.

    Saturated is an element with |phi'| below ``SATURATION_SHARE`` of its maximum: for the sigmoid
    |z| > 4.36, for tanh |z| > 2.18.

    Args:
        activation: that was called.
        x: its input; ``None`` where the derivative follows from the output.
        y: its output, of any shape.
        options: the call's arguments by name.

    Example:
        >>> import torch
        >>> from gradwatch.schema.activations import ACTIVATIONS
        >>> y = torch.tensor([0.0, 0.5, 1.0, -1.0])
        >>> saturated, derivative = measure_saturation(ACTIVATIONS["tanh"], None, y, {})
        >>> saturated.value.item() / saturated.divisor, derivative.value.item() / derivative.divisor
        (0.5, 0.4375)
    """
    inputs, outputs = sample_activation(x, y)
    saturated, total = count_saturated(activation, inputs[None], outputs[None], options)
    size = outputs.numel()
    return RawValue(saturated[0], PLAIN, size), RawValue(total[0], PLAIN, size)


def sample_activation(x: Tensor | None, y: Tensor) -> tuple[Tensor, Tensor]:
    """The same elements of an activation's input and output, flat; the output twice without one.

    Args:
        x: input; ``None`` where it is not needed.
        y: output, of the same shape.

    Returns:
        Both ``(n,)`` with ``n`` at most ``SAMPLE_SIZE``; half precision as float32.
    """
    if x is not None and x.stride() != y.stride():
        x, y = x.contiguous(), y.contiguous()
    outputs = widen(take_sample(y).reshape(-1))
    return outputs if x is None else widen(take_sample(x).reshape(-1)), outputs


def count_saturated(
    activation: Activation, inputs: Tensor, outputs: Tensor, options: Options
) -> tuple[Tensor, Tensor]:
    """Of each row, the number of saturated elements and the sum of |phi'|.

    Args:
        activation: that was called.
        inputs, outputs: samples ``(n, size)`` of ``n`` calls with the same options.
        options: arguments of the calls by name.

    Returns:
        Each ``(n,)``, on the device.
    """
    derivative = activation.derivative(inputs, outputs, options)
    derivative = derivative.abs() if derivative.is_complex() else derivative
    limit = SATURATION_SHARE * activation.maximum
    return count_below(derivative, limit), derivative.sum(1)


def count_below(rows: Tensor, limit: float) -> Tensor:
    """Of each row, the elements below a limit.

    Args:
        rows: real ``(n, length)``, with a length that float32 can count.
        limit: NaN is not below it.

    Returns:
        Float32 ``(n,)``, on the device.
    """
    flags = torch.empty(rows.shape, dtype=torch.float32, device=rows.device)
    return torch.lt(rows, limit, out=flags).sum(1)
