"""Vanishing over the time steps of recurrent nets: what came first is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models, scans
from tests.zoo.case import Case, Training
from tests.zoo.loops import adam, sgd, supervised

mse = nn.functional.mse_loss


def identity_recurrence(rnn: nn.Module, scale: float = 1.0) -> None:
    """Recurrent weights as a scaled identity and no bias: the remedy for plain cells."""
    for name, parameter in rnn.named_parameters():
        if "weight_hh" in name:
            nn.init.eye_(parameter)
            parameter.data.mul_(scale)
        elif "bias" in name:
            nn.init.zeros_(parameter)


def gate_bias(rnn: nn.Module, first: int, last: int, value: float) -> None:
    """Fill the bias of one gate (rows first..last of the stacked gates)."""
    for name, parameter in rnn.named_parameters():
        if name.startswith("bias_ih"):
            parameter.data[first:last] = value


def plain_rnn(nonlinearity: str, length: int, fixed: bool = False) -> Training:
    torch.manual_seed(0)
    rnn = nn.RNN(6, 24, nonlinearity=nonlinearity, batch_first=True)
    model = models.Recurrent(rnn, 4)
    if fixed:
        identity_recurrence(rnn)
    optimizer = adam(model, 2e-3) if fixed else sgd(model, 0.1, momentum=0.9)
    return supervised(model, optimizer, data.first_token(length), steps=110, batch_size=32)


def plain_rnn_adam(fixed: bool = False) -> Training:
    """Adam scales the step, but what it scales comes from the last few inputs only."""
    torch.manual_seed(1)
    rnn = nn.RNN(6, 24, batch_first=True)
    model = models.Recurrent(rnn, 4)
    if fixed:
        identity_recurrence(rnn)
    return supervised(model, adam(model, 2e-3), data.first_token(50), steps=100, batch_size=32)


def forgetful_lstm(fixed: bool = False) -> Training:
    """The forget gate's bias was set to -4 where +1 was meant."""
    torch.manual_seed(2)
    lstm = nn.LSTM(6, 20, batch_first=True)
    gate_bias(lstm, 20, 40, 3.0 if fixed else -4.0)
    model = models.Recurrent(lstm, 4)
    optimizer = adam(model, 0.01) if fixed else sgd(model, 0.2, momentum=0.9)
    return supervised(model, optimizer, data.first_token(40), steps=100, batch_size=32)


def forgetful_gru(fixed: bool = False) -> Training:
    """The update gate lets each step overwrite the state."""
    torch.manual_seed(3)
    gru = nn.GRU(6, 20, batch_first=True)
    gate_bias(gru, 20, 40, 3.0 if fixed else -4.0)
    model = models.Recurrent(gru, 4)
    optimizer = adam(model, 0.01) if fixed else sgd(model, 0.2, momentum=0.9)
    return supervised(model, optimizer, data.first_token(40), steps=100, batch_size=32)


def cell_loop(fixed: bool = False) -> Training:
    torch.manual_seed(4)
    model = models.CellLoop(nn.RNNCell(6, 24), 4)
    if fixed:
        identity_recurrence(model.cell)
    optimizer = adam(model, 2e-3) if fixed else sgd(model, 0.1, momentum=0.9)
    return supervised(model, optimizer, data.first_token(35), steps=100, batch_size=32)


class HandCell(nn.Module):
    """A cell of two linear layers, called once per step; small recurrent weights."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 24)
        self.recur = nn.Linear(24, 24)
        self.head = nn.Linear(24, 4)
        if scale is None:
            nn.init.eye_(self.recur.weight)
        else:
            nn.init.normal_(self.recur.weight, std=scale)
        nn.init.zeros_(self.recur.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(x.shape[0], 24)
        for step in x.unbind(1):
            hidden = torch.relu(self.embed(step) + self.recur(hidden))
        return self.head(hidden)


def hand_cell(fixed: bool = False) -> Training:
    torch.manual_seed(5)
    model = HandCell(None if fixed else 0.1)
    optimizer = adam(model, 1e-3) if fixed else sgd(model, 0.05, momentum=0.9)
    return supervised(model, optimizer, data.first_token(30), steps=100, batch_size=32)


class Tagger(nn.Module):
    """Tokens, an embedding, a two-layer tanh RNN, and a vote on the final state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.encoder = nn.RNN(8, 24, num_layers=2, batch_first=True)
        self.vote = nn.Linear(24, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.vote(self.encoder(self.embedding(ids))[1][-1])


def first_word(fixed: bool = False) -> Training:
    """The class is the first of thirty words; the other words say nothing."""
    torch.manual_seed(6)
    source = torch.Generator().manual_seed(6)
    y = torch.randint(0, 4, (512,), generator=source)
    ids = torch.randint(4, 12, (512, 30), generator=source)
    ids[:, 0] = y
    model = Tagger()
    if fixed:
        identity_recurrence(model.encoder)
    optimizer = adam(model, 2e-3) if fixed else sgd(model, 0.1)
    return supervised(model, optimizer, (ids, y), steps=110, batch_size=32)


def first_number(fixed: bool = False) -> Training:
    """A regression on the first of fifty numbers; the others are noise."""
    torch.manual_seed(7)
    x = 0.1 * torch.randn(512, 50, 1)
    x[:, 0] = torch.randn(512, 1)
    rnn = nn.RNN(1, 24, nonlinearity="relu" if fixed else "tanh", batch_first=True)
    if fixed:
        identity_recurrence(rnn)
    model = models.Recurrent(rnn, 1)
    optimizer = adam(model, 1e-3) if fixed else sgd(model, 0.02, momentum=0.9)
    return supervised(model, optimizer, (x, x[:, 0]), mse, steps=120, batch_size=32)


def _case(name: str, build: Callable[..., Training], region: tuple[str, ...], why: str) -> Case:
    return Case(
        name, build, ("vanishing",), cause="through_time", region=region, why=why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _case("rnn_tanh_first_of_60", partial(plain_rnn, "tanh", 60), ("rnn",),
          "default weights have a spectral radius near 0.6; sixty steps leave 1e-13"),
    _case("rnn_relu_first_of_40", partial(plain_rnn, "relu", 40), ("rnn",),
          "ReLU halves what small recurrent weights let through"),
    _case("rnn_tanh_first_of_50_adam", plain_rnn_adam, ("rnn",),
          "Adam cannot scale what never arrives from the first step"),
    _case("lstm_forget_bias_minus_4", forgetful_lstm, ("rnn",),
          "each step keeps 2% of the cell state"),
    _case("gru_update_bias_minus_4", forgetful_gru, ("rnn",),
          "each step overwrites 98% of the state"),
    _case("rnn_cell_in_a_loop", cell_loop, ("cell",), "an RNNCell called 35 times"),
    _case("hand_written_cell_relu", hand_cell, ("embed", "recur"),
          "recurrent weights of std 0.1, called 30 times"),
    _case("two_layer_rnn_first_word", first_word, ("embedding", "encoder"),
          "two stacked tanh RNNs forget the first of thirty words"),
    _case("rnn_first_of_50_numbers", first_number, ("rnn",),
          "the number to be remembered is forty-nine steps away"),
    Case("leaky_channels_forget_24_steps", partial(scans.leaky_channels, 24, 20, 2.0),
         ("vanishing",), (), "through_time", ("write", "log_rate"), 0,
         "each step leaves a seventh of the state, which a loop carries in a dict",
         fixed=partial(scans.leaky_channels, 24, 20, 0.02)),
    Case("open_gates_overwrite_18_steps", partial(scans.mixing_states, 18, 28, 5.0),
         ("vanishing",), (), "through_time", ("gate", "candidate", "sigmoid"), 0,
         "each step overwrites 99 % of the state, which a loop carries in a list",
         fixed=partial(scans.mixing_states, 18, 28, -3.0)),
    Case("gru_cell_put_away_detached", partial(scans.states_put_away, 14, 20, True),
         ("vanishing",), (), "disconnected", ("cell",), 0,
         "a cell's state is put into a list without its graph at each step",
         fixed=partial(scans.states_put_away, 14, 20, False)),
    Case("state_through_data_15_steps", partial(scans.mixing_states, 15, 24, 0.0, True),
         ("vanishing",), (), "disconnected", ("gate", "candidate", "sigmoid"), 0,
         "the state loses its graph at each step of a loop",
         fixed=partial(scans.mixing_states, 15, 24, -3.0)),
)  # fmt: skip
