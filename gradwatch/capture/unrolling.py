"""What a recurrent module does over time: recomputed from its inputs and weights after backward.

``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` are one kernel each; what goes on inside is recomputed for a
few sequences of the batch (``recurrence.py``), without autograd and without random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gradwatch.capture.calls import Measured, Part
from gradwatch.capture.device_values import ROOT, RawValue
from gradwatch.capture.recurrence import Unrolled, Weights, unroll
from gradwatch.capture.recurrent_gates import (
    choose_rows,
    convert,
    find_cell_type,
    list_gates,
    measure_gates,
)
from gradwatch.capture.stacked_layers import StackedLayer, list_lower_layers
from gradwatch.capture.statistics import widen

MAX_STEPS = 1024
"""Longer sequences are not recomputed."""

N_BUCKETS = 8
"""Time is reported in this many parts."""


@dataclass
class Unrolling:
    """One call of a recurrent module: what must be kept of it until backward has run.

    Attributes:
        module: that was called.
        x: inputs of the chosen sequences, ``(T, B, I)``.
        states: initial states, one ``(layers * directions, B, H)`` for each kind of state.
        weights: by layer and direction.
        batch_size: sequences in the whole batch.
        packed: the input, where it was given as a packed sequence.
        lengths: of each chosen sequence when they differ, ``(B,)``.
        valid: steps that exist then, as positions in the flattened ``(T, B)``.
        grads: what arrived at ``"output"``, ``"h_n"`` and ``"c_n"``.
        output: of the last layer, where it is that of the same inputs, ``(T, B, D * H)``.
        lower: hidden states of the layers below it, where they are known, ``(T, B, H)``.
        lower_grads: what arrived at them, by layer.
    """

    module: nn.RNNBase
    x: Tensor
    states: list[Tensor]
    weights: list[Weights]
    batch_size: int
    packed: PackedSequence | None = None
    lengths: Tensor | None = None
    valid: Tensor | None = None
    grads: dict[str, Tensor] = field(default_factory=dict)
    output: Tensor | None = None
    lower: list[Tensor] = field(default_factory=list)
    lower_grads: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def begin(cls, module: nn.RNNBase, args: tuple[Any, ...]) -> Unrolling | str:
        """Keep what is needed; or say why that is not possible.

        Args:
            module: that was called.
            args: its input, and the initial state if it was given one.

        Returns:
            A sentence's end that names the reason where nothing is kept.
        """
        if module.proj_size:
            return "an LSTM with projections (proj_size) is not recomputed"
        source, state = args[0], args[1] if len(args) > 1 else None
        packed = source if isinstance(source, PackedSequence) else None
        x, lengths = _unpack(packed) if packed else (_time_first(module, source), None)
        if not 0 < len(x) <= MAX_STEPS or not x.shape[1]:
            return f"sequences of {len(x)} steps are not recomputed ({MAX_STEPS} at most)"
        rows = choose_rows(x.shape[1], packed is not None)
        batch_size, x = x.shape[1], widen(x.detach())[:, rows].clone()
        states = state if isinstance(state, tuple) else (state, state)
        unrolling = cls(module, x, [], _list_weights(module, x.dtype), batch_size, packed)
        if lengths is not None:
            unrolling.lengths = lengths[rows].to(x.device, non_blocking=True)
            exists = torch.arange(len(x))[:, None] < lengths[rows]
            unrolling.valid = exists.flatten().nonzero().squeeze(1).to(x.device, non_blocking=True)
        unrolling.states = [unrolling._choose_state(s, batch_size) for s in states]
        return unrolling

    @property
    def _directions(self) -> int:
        return 2 if self.module.bidirectional else 1

    def _choose_state(self, state: Tensor | None, batch_size: int) -> Tensor:
        n, h = self.module.num_layers * self._directions, self.module.hidden_size
        if state is None:
            return self.x.new_zeros(n, self.x.shape[1], h)
        return self._choose_rows_of(state, batch_size)

    def _choose_rows_of(self, state: Tensor, batch_size: int) -> Tensor:
        """Rows of a state ``(n, B, H)`` that belong to the chosen sequences."""
        state = widen(state.detach())
        state = state.unsqueeze(1) if state.dim() == 2 else state
        if self.packed is not None and self.packed.sorted_indices is not None:
            return state[:, self.packed.sorted_indices[: self.x.shape[1]]]
        return state[:, choose_rows(batch_size, self.packed is not None)].clone()

    def keep_output(self, output: Tensor) -> list[StackedLayer]:
        """Spare the layers' kernels, unless dropout has changed what they were given.

        Args:
            output: of the call, as it was returned.

        Returns:
            The layers below the last one, where they are known.
        """
        changes_inputs = self.module.dropout and self.module.num_layers > 1
        if self.packed is not None or changes_inputs:
            return []
        self.output = self._choose_outputs(output)
        if self._directions > 1 or output.dim() < 3:
            return []
        layers = list_lower_layers(_time_first(self.module, output), self.module.num_layers)
        self.lower = [self._choose_sequences(layer.hidden) for layer in layers]
        return layers

    def _choose_outputs(self, values: Tensor) -> Tensor:
        """A copy of the chosen sequences' part of what is shaped like the output."""
        return self._choose_sequences(_time_first(self.module, values))

    def _choose_sequences(self, values: Tensor) -> Tensor:
        """The same of ``(T, B, H)``."""
        return widen(values.detach())[:, choose_rows(self.batch_size)].clone()

    def keep(self, slot: str, grad: Tensor) -> None:
        """Note the gradient that arrived at ``"output"``, ``"h_n"`` or ``"c_n"``.

        Args:
            slot: which of the three.
            grad: of the module's output or final state; copied, and added to an earlier one.
        """
        if slot != "output":
            kept = self._choose_rows_of(grad, self.batch_size)
        elif self.packed is not None:
            kept = _unpack(self.packed._replace(data=widen(grad.detach())))[0]
            kept = kept[:, choose_rows(self.batch_size, True)].clone()
        else:
            kept = self._choose_outputs(grad)
        self.grads[slot] = kept + self.grads[slot] if slot in self.grads else kept

    def keep_lower(self, number: int, grad: Tensor) -> None:
        """Note the gradient that arrived at the hidden states of a layer below the last one.

        Args:
            number: of the layer.
            grad: ``(T, B, H)``; copied, and added to an earlier one.
        """
        kept, known = self._choose_sequences(grad), self.lower_grads.get(number)
        self.lower_grads[number] = kept if known is None else kept + known

    def list_parts(self) -> list[Part]:
        """Every entry that ``measure`` will fill."""
        kind = find_cell_type(self.module)
        suffixes = [self._name_suffix(n) for n in range(len(self.weights))]
        gates = [part for suffix in suffixes for part in list_gates(kind, suffix)]
        return gates + [part for d in range(self._directions) for part in self._list_times(d)]

    def _name_suffix(self, number: int) -> str:
        if len(self.weights) == 1:
            return ""
        layer, direction = divmod(number, self._directions)
        return f"_l{layer}" + ("_reverse" if direction else "")

    def _list_times(self, direction: int) -> list[Part]:
        count = min(N_BUCKETS, len(self.x)) if len(self.x) > 1 else 0
        name = "time_reverse" if direction else "time"
        return [Part(name, bucket, "recurrent", "time") for bucket in range(count)]

    # Measuring ------------------------------------------------------------------------------

    def measure(self) -> Measured:
        """Run the sequences again and take their gradients back through time."""
        with torch.no_grad(), torch.autocast(self.x.device.type, enabled=False):
            layers = self._run()
            for number, layer in enumerate(layers):
                yield from measure_gates(layer, self._name_suffix(number), self.valid)
            if self.grads and len(self.x) > 1:
                for direction, (squares, zeros) in enumerate(self._go_back(layers)):
                    yield from self._fill_buckets(direction, squares, zeros)

    def _run(self) -> list[Unrolled]:
        x, layers = self.x, []
        kind, count = find_cell_type(self.module), self._directions
        for number, weights in enumerate(self.weights):
            direction = number % count
            h, c = self.states[0][number], self.states[1][number] if kind == "lstm" else None
            hidden = self._find_hidden(number)
            layers.append(unroll(kind, self._flip(x, direction), h, c, weights, hidden))
            if direction == count - 1:
                outs = [self._flip(layer.hidden[1:], d) for d, layer in enumerate(layers[-count:])]
                x = torch.cat(outs, -1)
        return layers

    def _find_hidden(self, number: int) -> Tensor | None:
        """Hidden states of one layer and direction that are known from the output."""
        if number < len(self.lower):
            return self.lower[number]
        if self.output is None or number < len(self.weights) - self._directions:
            return None
        direction = number % self._directions
        return self._flip(self.output.chunk(self._directions, -1)[direction], direction)

    def _go_back(self, layers: list[Unrolled]) -> list[tuple[Tensor, Tensor]]:
        """Sum of squares ``(T,)`` over all layers' states, and share of zeros, by direction."""
        count, size = self._directions, self.module.hidden_size
        shape = *self.x.shape[:2], count * size
        external = self.grads.get("output", self.x.new_zeros(shape))
        squares = [self.x.new_zeros(len(self.x), dtype=torch.float64) for _ in range(count)]
        zeros = [torch.ones_like(squares[0]) for _ in range(count)]
        for first in range(len(layers) - count, -1, -count):
            parts = external.chunk(count, -1)
            known = self.lower_grads.get(first - 1)
            below = []
            for d in range(count):
                arriving = self._add_final("h_n", first + d, self._flip(parts[d], d))
                cells = self._add_final("c_n", first + d, torch.zeros_like(arriving))
                total, inputs = layers[first + d].backpropagate(
                    arriving, cells if "c_n" in self.grads else None, first > 0 and known is None
                )
                squares[d] += total.double().square().sum((1, 2))
                zeros[d] = torch.minimum(zeros[d], (total == 0).double().mean((1, 2)))
                below += [] if inputs is None else [self._flip(inputs, d)]
            external = torch.stack(below).sum(0) if below else external if known is None else known
        return list(zip(squares, zeros, strict=True))

    def _fill_buckets(self, direction: int, squares: Tensor, zeros: Tensor) -> Measured:
        steps, parts = len(squares), self._list_times(direction)
        if self.lengths is not None:
            squares = squares * (len(self.lengths) / self._mask(steps).sum(1))
        scale = self.batch_size / self.x.shape[1]
        for part in parts:
            first, last = (-(-b * steps // len(parts)) for b in (part.call, part.call + 1))
            norm = RawValue(squares[first:last].mean(), ROOT, 1 / scale)
            yield part, "grad_output_l2_norm", norm
            yield part, "grad_zero_fraction", RawValue(zeros[first:last].mean())

    def _add_final(self, slot: str, number: int, grad: Tensor) -> Tensor:
        final = self.grads.get(slot)
        if final is None:
            return grad
        if self.lengths is None:
            return torch.cat((grad[:-1], grad[-1:] + final[number : number + 1]))
        is_last = torch.arange(len(grad), device=grad.device)[:, None] == self.lengths - 1
        return grad + is_last.unsqueeze(-1) * final[number]

    def _mask(self, steps: int) -> Tensor:
        assert self.lengths is not None
        return torch.arange(steps, device=self.lengths.device)[:, None] < self.lengths

    def _flip(self, values: Tensor, direction: int) -> Tensor:
        """Reverse time within each sequence's own length, if the direction is the second one."""
        if not direction:
            return values
        if self.lengths is None:
            return values.flip(0)
        steps = torch.arange(len(values), device=values.device)[:, None]
        back = (self.lengths - 1 - steps).clamp(min=0).unsqueeze(-1).expand_as(values)
        return values.gather(0, back) * self._mask(len(values)).unsqueeze(-1)


def _time_first(module: nn.RNNBase, values: Tensor) -> Tensor:
    if values.dim() == 2:
        return values.unsqueeze(1)
    return values.transpose(0, 1) if module.batch_first else values


def _unpack(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """Padded ``(T, B, *)`` in the order of falling length, and the lengths."""
    total = len(packed.batch_sizes)
    padded: tuple[Tensor, Tensor] = torch._VF._pad_packed_sequence(
        packed.data.detach(), packed.batch_sizes, False, 0.0, total
    )
    return padded


def _list_weights(module: nn.RNNBase, dtype: torch.dtype) -> list[Weights]:
    flat, step = module._flat_weights, 4 if module.bias else 2
    return [convert(flat[i : i + step], dtype) for i in range(0, len(flat), step)]
