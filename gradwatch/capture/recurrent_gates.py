"""Gates of recurrent layers: how far each one is saturated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradwatch.capture import saturation, statistics
from gradwatch.capture.calls import Measured, Part
from gradwatch.capture.device_values import RawValue
from gradwatch.capture.recurrence import GATES, Unrolled, Weights
from gradwatch.schema.activations import ACTIVATIONS

MAX_SEQUENCES = 8
"""Sequences of a batch that are computed again; norms are scaled up to the whole batch."""

FIRED = "fired"
"""Not a number of the record: which units fired, ``(units,)`` bool, and for how many samples."""

_FUNCTIONS: dict[str, tuple[str, bool]] = {
    "input_gate": ("sigmoid", True),
    "forget_gate": ("sigmoid", True),
    "cell": ("tanh", False),
    "output_gate": ("sigmoid", True),
    "cell_state": ("tanh", False),
    "reset_gate": ("sigmoid", True),
    "update_gate": ("sigmoid", True),
    "candidate": ("tanh", False),
}


def find_cell_type(module: nn.Module) -> str:
    """``"lstm"``, ``"gru"``, ``"tanh"`` or ``"relu"``.

    Args:
        module: an ``nn.RNNBase`` or an ``nn.RNNCellBase``.
    """
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return "lstm"
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return "gru"
    return str(getattr(module, "nonlinearity", "tanh"))


def list_gates(kind: str, suffix: str = "") -> list[Part]:
    """The entries of one layer's gates.

    Args:
        kind: as of ``find_cell_type``.
        suffix: of the names, such as ``"_l1_reverse"``.

    Example:
        >>> [part.name for part in list_gates("gru", "_l0")]
        ['reset_gate_l0', 'update_gate_l0', 'candidate_l0']
    """
    return [_make_part(kind, gate, suffix) for gate in GATES[kind]]


def _make_part(kind: str, gate: str, suffix: str) -> Part:
    function, is_gate = _FUNCTIONS.get(gate, (kind, False))
    return Part(gate + suffix, 0, "activation", function, is_gate)


def measure_gates(layer: Unrolled, suffix: str = "", valid: Tensor | None = None) -> Measured:
    """Saturation of each gate; ``valid`` are the steps that exist, in the flattened ``(T, B)``.

    Args:
        layer: with its gates filled.
        suffix: of the names of its parts.
        valid: positions in the flattened ``(T, B)``, int64; ``None``: all exist.
    """
    for gate, values in layer.gates.items():
        part = _make_part(layer.kind, gate, suffix)
        y = values if valid is None else values.flatten(0, 1)[valid]
        activation = ACTIVATIONS[part.kind]
        saturated, derivative = saturation.measure_saturation(activation, None, y, {})
        yield part, "saturated_fraction", saturated
        yield part, "derivative_mean", derivative
        if activation.can_die:
            yield part, "zero_fraction", statistics.measure_zero_fraction(y)
            fired = statistics.find_fired_units(y, y.dim() - 1)
            yield part, FIRED, RawValue(fired, divisor=y.numel() // max(y.shape[-1], 1))


def choose_rows(batch_size: int, is_sorted: bool = False) -> slice:
    """At most ``MAX_SEQUENCES`` of a batch: spread over it, or its first (longest) ones.

    Args:
        batch_size: sequences in the batch.
        is_sorted: by falling length, as in a packed sequence.

    Example:
        >>> choose_rows(64), choose_rows(64, is_sorted=True)
        (slice(0, 64, 8), slice(0, 8, 1))
    """
    stride = 1 if is_sorted else max(batch_size // MAX_SEQUENCES, 1)
    return slice(0, min(stride * MAX_SEQUENCES, batch_size), stride)


def convert(found: list[Any], dtype: torch.dtype) -> Weights:
    """Two weights, and two biases where there are any, in one dtype.

    Args:
        found: weights, then biases, of one layer in one direction.
        dtype: of the result.
    """
    w_ih, w_hh, b_ih, b_hh = (
        None if weight is None else weight.detach().to(dtype) for weight in (*found, None, None)[:4]
    )
    assert w_ih is not None
    assert w_hh is not None
    return w_ih, w_hh, b_ih, b_hh
