"""Recurrent layers by hand: gates, and the gradient that arrives at each hidden state.

A fused kernel gives neither. Given the weights and the gradient at the outputs, both follow: every
local derivative is computed for all time steps at once, and only the product with the recurrent
weights runs step by step. Equations as in the PyTorch documentation of ``RNN``, ``LSTM``, ``GRU``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
"""``weight_ih (G*H, I)``, ``weight_hh (G*H, H)``, ``bias_ih (G*H,)``, ``bias_hh (G*H,)``."""

GATES: dict[str, tuple[str, ...]] = {
    "lstm": ("input_gate", "forget_gate", "cell", "output_gate", "cell_state"),
    "gru": ("reset_gate", "update_gate", "candidate"),
    "tanh": ("hidden",),
    "relu": ("hidden",),
}
"""What is inside each kind of cell; ``cell_state`` is the squashed one."""


@dataclass
class Unrolled:
    """One layer in one direction, unrolled over ``T`` time steps of ``B`` sequences.

    Attributes:
        weights: of the layer in this direction.
        hidden: states with the initial one first, ``(T + 1, B, H)``.
        gates: by name what came out of each gate, ``(T, B, H)``.
        kind: ``"lstm"``, ``"gru"``, ``"tanh"`` or ``"relu"``.
        cell: cell states of an LSTM with the initial one first, ``(T + 1, B, H)``.
        recurrent: what the candidate of a GRU gets from the hidden state, ``(T, B, H)``.
    """

    kind: str
    weights: Weights
    hidden: Tensor
    gates: dict[str, Tensor] = field(default_factory=dict)
    cell: Tensor | None = None
    recurrent: Tensor | None = None

    def backpropagate(
        self, external: Tensor, external_cell: Tensor | None = None, needs_inputs: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Total gradient at each hidden state, and at each input where that is wanted.

        Args:
            external: gradient that reaches each hidden state from outside, ``(T, B, H)``.
            external_cell: the same for the cell states.
            needs_inputs: the gradient at the inputs is wanted.

        Returns:
            ``(T, B, H)`` and ``(T, B, I)``.
        """
        if self.kind == "lstm":
            total, into_gates = _backpropagate_lstm(self, external, external_cell)
        elif self.kind == "gru":
            total, into_gates = _backpropagate_gru(self, external)
        else:
            total, into_gates = _backpropagate_plain(self, external)
        return total, into_gates @ self.weights[0] if needs_inputs else None


def unroll(
    kind: str, x: Tensor, h: Tensor, c: Tensor | None, weights: Weights, hidden: Tensor | None
) -> Unrolled:
    """Run one layer over the inputs ``(T, B, I)`` from the state ``h`` (and ``c``), ``(B, H)``.

    The hidden states ``(T, B, H)`` come from torch's own kernel where they are not known;
    everything else follows from them at once.

    Args:
        kind: ``"lstm"``, ``"gru"``, ``"tanh"`` or ``"relu"``.
        x: inputs ``(T, B, I)``.
        h: initial hidden state ``(B, H)``.
        c: initial cell state of an LSTM ``(B, H)``, else ``None``.
        weights: of the layer in this direction.
        hidden: states ``(T, B, H)`` where they are known.

    Source: equations in the documentation of ``torch.nn.LSTM``, ``GRU`` and ``RNN``.
    """
    if hidden is None:
        hidden = _run_kernel(kind, x, h, c, weights)
    result = Unrolled(kind, weights, torch.cat((h.unsqueeze(0), hidden)))
    _fill_gates(result, x, c)
    return result


def _run_kernel(kind: str, x: Tensor, h: Tensor, c: Tensor | None, weights: Weights) -> Tensor:
    flat = [weight for weight in weights if weight is not None]
    state = h.unsqueeze(0) if c is None else (h.unsqueeze(0), c.unsqueeze(0))
    options = weights[2] is not None, 1, 0.0, False, False, False
    with torch.backends.cudnn.flags(enabled=False):  # it wants all weights in one chunk
        output: Tensor = _KERNELS[kind](x, state, flat, *options)[0]
    return output


_KERNELS: dict[str, Callable[..., Any]] = {
    "lstm": torch.lstm,
    "gru": torch.gru,
    "tanh": torch.rnn_tanh,
    "relu": torch.rnn_relu,
}


def _run_cell_states(c: Tensor, forget: Tensor, added: Tensor) -> Tensor:
    """Cell states with the initial one first."""
    states = [c]
    for kept, new in zip(forget.unbind(), added.unbind(), strict=True):
        states.append(torch.addcmul(new, kept, states[-1]))
    return torch.stack(states)


def _fill_gates(layer: Unrolled, x: Tensor, c: Tensor | None) -> None:
    if layer.kind in ("tanh", "relu"):
        layer.gates = {"hidden": layer.hidden[1:]}
        return
    w_ih, w_hh, b_ih, b_hh = layer.weights
    from_input = torch.nn.functional.linear(x, w_ih, b_ih)
    from_hidden = torch.nn.functional.linear(layer.hidden[:-1], w_hh, b_hh)
    if c is not None:
        parts = from_hidden.add_(from_input).chunk(4, -1)
        i, f, o = (parts[n].sigmoid() for n in (0, 1, 3))
        g = parts[2].tanh()
        layer.cell = _run_cell_states(c, f, i * g)
        gates = i, f, g, o, layer.cell[1:].tanh()
        layer.gates = dict(zip(GATES["lstm"], gates, strict=True))
        return
    (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, -1), from_hidden.chunk(3, -1)
    reset, update = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    layer.recurrent = hn
    candidate = (xn + reset * hn).tanh()
    layer.gates = dict(zip(GATES["gru"], (reset, update, candidate), strict=True))


def _backpropagate_plain(layer: Unrolled, external: Tensor) -> tuple[Tensor, Tensor]:
    y, w_hh = layer.hidden[1:], layer.weights[1]
    derivative = 1 - y * y if layer.kind == "tanh" else (y > 0).to(y.dtype)
    total, into_gates = external.clone(), torch.empty_like(external)
    totals, gates, local = total.unbind(), into_gates.unbind(), derivative.unbind()
    for t in range(len(totals) - 1, -1, -1):
        torch.mul(totals[t], local[t], out=gates[t])
        if t:
            totals[t - 1].addmm_(gates[t], w_hh)
    return total, into_gates


def _backpropagate_lstm(
    layer: Unrolled, external: Tensor, external_cell: Tensor | None
) -> tuple[Tensor, Tensor]:
    assert layer.cell is not None
    i, f, g, o, squashed = layer.gates.values()
    into_cell, forget = (o * (1 - squashed * squashed)).unbind(), f.unbind()
    into_output = (squashed * o * (1 - o)).unbind()
    from_cell = torch.stack((g * i * (1 - i), layer.cell[:-1] * f * (1 - f), i * (1 - g * g)), 2)
    total, into_gates = external.clone(), external.new_empty(*external.shape[:2], 4, i.shape[-1])
    totals, gates = total.unbind(), into_gates.flatten(2).unbind()
    inner, last, local = (
        into_gates[:, :, :3].unbind(),
        into_gates[:, :, 3].unbind(),
        from_cell.unbind(),
    )
    carried = torch.zeros_like(totals[0])
    for t in range(len(totals) - 1, -1, -1):
        if external_cell is not None:
            carried = carried + external_cell[t]
        carried = torch.addcmul(carried, totals[t], into_cell[t])
        torch.mul(carried.unsqueeze(1), local[t], out=inner[t])
        torch.mul(totals[t], into_output[t], out=last[t])
        carried = carried * forget[t]
        if t:
            totals[t - 1].addmm_(gates[t], layer.weights[1])
    return total, into_gates.flatten(2)


def _backpropagate_gru(layer: Unrolled, external: Tensor) -> tuple[Tensor, Tensor]:
    assert layer.recurrent is not None
    r, z, n = layer.gates.values()
    into_candidate = (1 - z) * (1 - n * n)
    into_reset = into_candidate * layer.recurrent * r * (1 - r)
    into_update = (layer.hidden[:-1] - n) * z * (1 - z)
    backward = torch.stack((into_reset, into_update, into_candidate * r), 2).unbind()
    total, update = external.clone(), z.unbind()
    totals = total.unbind()
    for t in range(len(totals) - 1, 0, -1):
        through = (totals[t].unsqueeze(1) * backward[t]).flatten(1)
        totals[t - 1].addmm_(through, layer.weights[1]).addcmul_(totals[t], update[t])
    into_gates = torch.cat((total * into_reset, total * into_update, total * into_candidate), -1)
    return total, into_gates
