"""Cells whose weights see the whole sequence at once, and whose state a Python loop carries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo import data
from tests.zoo.case import Training
from tests.zoo.loops import adam, supervised


class Leaky(nn.Module):
    """A linear recurrence with a decay of its own for each channel; its state is in a dict."""

    def __init__(self, width: int, rate: float) -> None:
        super().__init__()
        self.write, self.read = nn.Linear(6, width), nn.Linear(width, 4)
        self.log_rate = nn.Parameter(torch.full((width,), rate).log())

    def forward(self, x: Tensor) -> Tensor:
        keep, slot = torch.exp(-self.log_rate.exp()), {"state": x.new_zeros(len(x), 1)}
        for written in self.write(x).transpose(0, 1):
            slot["state"] = keep * slot["state"] + written
        return self.read(torch.tanh(slot["state"]))


def leaky_channels(length: int, width: int, rate: float, last: bool = False) -> Training:
    """The class is shown first, or with `last` once more in the last step."""
    torch.manual_seed(length)
    model, (x, y) = Leaky(width, rate), data.first_token(length)
    if last:
        x = x.flip(1)
    return supervised(model, adam(model, 0.01), (x, y), steps=120, batch_size=32)


class Mixing(nn.Module):
    """Gates and candidates of all steps at once; what is kept of the state is in a list."""

    def __init__(self, width: int, bias: float, cuts: bool) -> None:
        super().__init__()
        self.gate, self.candidate = nn.Linear(6, width), nn.Linear(6, width)
        self.head, self.cuts = nn.Linear(width, 4), cuts
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        gates, candidates = self.gate(x).sigmoid(), self.candidate(x)
        states = [torch.zeros_like(candidates[:, 0])]
        for step in range(x.shape[1]):
            before = states[-1].data if self.cuts else states[-1]
            states.append(before + gates[:, step] * (candidates[:, step] - before))
        return self.head(torch.stack(states, 1)[:, 1:])


def mixing_states(
    length: int, width: int, bias: float, cuts: bool = False, answers: str = "end"
) -> Training:
    """The class is asked for at the end, or at each step of its own in a cell that is cut off."""
    torch.manual_seed(length)
    model, (x, y) = Mixing(width, bias, cuts), data.first_token(length)
    if answers == "each":  # each step shows a class of its own, and is asked for it
        source = torch.Generator().manual_seed(1)
        y = torch.randint(0, 4, x.shape[:2], generator=source)
        x = torch.cat([nn.functional.one_hot(y, 4).float(), x[..., 4:]], -1)

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        chosen = output.flatten(0, 1) if answers == "each" else output[:, -1]
        return nn.functional.cross_entropy(chosen, target.flatten())

    return supervised(model, adam(model, 0.01), (x, y), loss_fn, steps=120, batch_size=32)


class HandedOn(nn.Module):
    """A cell in a loop, whose state is put away without its graph."""

    def __init__(self, cell: nn.RNNCellBase, cuts: bool) -> None:
        super().__init__()
        self.cell, self.head, self.cuts = cell, nn.Linear(cell.hidden_size, 4), cuts

    def forward(self, x: Tensor) -> Tensor:
        memory = [x.new_zeros(len(x), self.cell.hidden_size)]
        for step in x.unbind(1):
            state = self.cell(step, memory[-1])
            memory.append(state.detach() if self.cuts else state)
        return self.head(state)


def states_put_away(length: int, width: int, cuts: bool) -> Training:
    torch.manual_seed(length)
    cell = nn.GRUCell(6, width)
    with torch.no_grad():
        cell.bias_ih[width : 2 * width] = 3.0
    model = HandedOn(cell, cuts)
    return supervised(model, adam(model, 0.01), data.first_token(length), steps=120, batch_size=32)
