"""Gates of recurrent cells in a loop: of all calls together, computed again after backward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradwatch.capture.calls import Measured, Part
from gradwatch.capture.recurrence import unroll
from gradwatch.capture.recurrent_gates import (
    choose_rows,
    convert,
    find_cell_type,
    list_gates,
    measure_gates,
)
from gradwatch.capture.statistics import widen


@dataclass
class CellCalls:
    """Calls of one cell inside one call of the model: what must be kept until backward has run.

    The states that a call returns are known, so that no time step waits for another: however many
    calls there are, they cost one product with each weight.

    Args:
        module: an ``nn.RNNCellBase``.
    """

    module: nn.Module
    _kept: list[tuple[Tensor, ...]] = field(default_factory=list)

    def list_parts(self) -> list[Part]:
        """Every entry that ``measure`` will fill."""
        return list_gates(find_cell_type(self.module))

    def keep(self, args: tuple[Any, ...], result: Any) -> None:
        """Copy a few rows of a call's batch.

        Args:
            args: its input ``(B, I)`` or ``(I,)``, and the state if it was given one.
            result: the states ``(B, H)`` or ``(H,)`` that it returned.
        """
        x, after = _add_batch(args[0]), _list_states(result)
        state = args[1] if len(args) > 1 else None
        before = [torch.zeros_like(new) for new in after] if state is None else _list_states(state)
        rows = choose_rows(len(x))
        self._kept.append(tuple(each[rows].clone() for each in (x, *before, after[0])))

    def measure(self) -> Measured:
        """Saturation of each gate, over all calls."""
        kind = find_cell_type(self.module)
        x, h, *c, hidden = (widen(torch.cat(each)) for each in zip(*self._kept, strict=True))
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = convert([getattr(self.module, name) for name in names], x.dtype)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            cell = c[0] if c else None
            layer = unroll(kind, x.unsqueeze(0), h, cell, weights, hidden.unsqueeze(0))
            yield from measure_gates(layer)


def _list_states(state: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [_add_batch(each) for each in (state if isinstance(state, tuple) else (state,))]


def _add_batch(values: Tensor) -> Tensor:
    values = values.detach()
    return values.unsqueeze(0) if values.dim() == 1 else values
