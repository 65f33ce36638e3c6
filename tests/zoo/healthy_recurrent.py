"""Recurrent nets that learn: short sequences, or long ones whose information is near the end."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo import scans
from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import Batch, healthy, markov, split, tally, token_loss, train

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class Reader(nn.Module):
    """A recurrent layer over the sequence and a linear head on its last or mean output."""

    def __init__(self, rnn: nn.RNNBase, outputs: int = 2, pool: str = "last") -> None:
        super().__init__()
        self.rnn = rnn
        width = rnn.hidden_size * (2 if rnn.bidirectional else 1)
        self.head = nn.Linear(width, outputs)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x)
        return self.head(out[:, -1] if self.pool == "last" else out.mean(1))


@healthy(_cases, "LSTM over 12 steps that all count; loss falls")
def lstm_short() -> Training:
    model = Reader(nn.LSTM(3, 32, batch_first=True))
    return train(model, torch.optim.Adam(model.parameters(), 0.01), tally(), _cross_entropy, 80)


@healthy(_cases, "GRU over 20 steps that all count, RMSprop; loss falls")
def gru_twenty_steps() -> Training:
    model = Reader(nn.GRU(3, 24, batch_first=True))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=5e-3)
    return train(model, optimizer, tally(length=20), _cross_entropy, steps=80)


@healthy(_cases, "two-layer LSTM with dropout between and the mean over time read out; loss falls")
def lstm_two_layers_mean_pool() -> Training:
    rnn = nn.LSTM(3, 24, num_layers=2, dropout=0.2, batch_first=True)
    model = Reader(rnn, pool="mean")
    return train(model, torch.optim.Adam(model.parameters(), 0.01), tally(), _cross_entropy, 70)


@healthy(
    _cases, "bidirectional GRU with mean pooling: every step is near one of the ends; loss falls"
)
def gru_bidirectional() -> Training:
    model = Reader(nn.GRU(3, 16, bidirectional=True, batch_first=True), pool="mean")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return train(model, optimizer, tally(), _cross_entropy, steps=70)


@healthy(_cases, "LSTM over 40 steps with the label decided by the last three: forgetting is right")
def lstm_long_recent_information() -> Training:
    model = Reader(nn.LSTM(3, 24, batch_first=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return train(model, optimizer, tally(length=40, at_end=True), _cross_entropy, steps=60)


@healthy(_cases, "GRU over 60 steps whose outputs at every step are judged: each gets a gradient")
def gru_long_dense_targets() -> Training:
    source = torch.Generator().manual_seed(12)
    x = torch.randn(128, 60, 2, generator=source)
    y = 0.5 * x[..., :1] + 0.5 * x[..., 1:].roll(1, dims=1)
    model = Tagger(nn.GRU(2, 24, batch_first=True), nn.Linear(24, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return train(model, optimizer, split(x, y, 32), nn.MSELoss(), steps=60)


class Tagger(nn.Module):
    def __init__(self, rnn: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.rnn, self.head = rnn, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


@healthy(_cases, "nn.RNN over five steps: too few for the product to vanish; loss falls")
def vanilla_rnn_short() -> Training:
    model = Reader(nn.RNN(3, 32, batch_first=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return train(model, optimizer, tally(length=5), _cross_entropy, steps=150)


@healthy(_cases, "nn.RNN of ReLUs with an identity recurrence (IRNN) over 24 steps; loss falls")
def irnn_identity_recurrence() -> Training:
    rnn = nn.RNN(3, 32, nonlinearity="relu", batch_first=True)
    nn.init.eye_(rnn.weight_hh_l0)
    model = Reader(rnn)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return train(model, optimizer, tally(length=24), _cross_entropy, steps=100, clip_norm=1.0)


@healthy(_cases, "nn.RNN with tanh and an orthogonal recurrence over 20 steps; loss falls")
def rnn_orthogonal_recurrence() -> Training:
    rnn = nn.RNN(3, 32, batch_first=True)
    nn.init.orthogonal_(rnn.weight_hh_l0)
    model = Reader(rnn)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return train(model, optimizer, tally(length=20), _cross_entropy, steps=100)


class CellLoop(nn.Module):
    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(cell.hidden_size, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


@healthy(_cases, "an LSTMCell called in a loop of 8 steps; loss falls")
def lstm_cell_in_loop() -> Training:
    model = CellLoop(nn.LSTMCell(3, 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return train(model, optimizer, tally(length=8), _cross_entropy, steps=80)


@healthy(_cases, "an RNNCell called in a loop of 6 steps; loss falls")
def rnn_cell_in_loop() -> Training:
    model = CellLoop(nn.RNNCell(3, 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return train(model, optimizer, tally(length=6), _cross_entropy, steps=80)


class LstmLm(nn.Module):
    """A language model that carries its state over batches, detached: truncated backpropagation."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, width)
        self.rnn = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, 16)
        self.state: tuple[Tensor, Tensor] | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        out, (h, c) = self.rnn(self.embed(tokens), self.state)
        self.state = (h.detach(), c.detach())
        return self.head(out)


@healthy(_cases, "truncated backpropagation: the state between chunks is detached on purpose")
def lstm_truncated_backpropagation() -> Training:
    model = LstmLm()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return train(model, optimizer, markov(length=12), token_loss, steps=80)


@healthy(_cases, "LSTM with the forget bias at 1 over 30 steps, clipped to 1; all steps count")
def lstm_forget_bias_long() -> Training:
    rnn = nn.LSTM(3, 24, batch_first=True)
    nn.init.constant_(rnn.bias_hh_l0[24:48], 1.0)
    model = Reader(rnn)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    batches = tally(length=30)
    return train(model, optimizer, batches, _cross_entropy, steps=70, clip_norm=1.0)


class EncoderDecoder(nn.Module):
    """Sequence to sequence with attention over the encoder's outputs; reverses its input."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.position = nn.Parameter(0.1 * torch.randn(8, width))
        self.decoder = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(2 * width, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        memory, state = self.encoder(self.embed(tokens))
        out, _ = self.decoder(self.position.expand(len(tokens), -1, -1), state)
        weight = functional.softmax(out @ (memory + self.position).transpose(1, 2), dim=-1)
        return self.head(torch.cat([out, weight @ memory], dim=-1))


def _reversals() -> list[Batch]:
    source = torch.Generator().manual_seed(13)
    tokens = torch.randint(8, (512, 8), generator=source)
    return split(tokens, tokens.flip(1), 64)


@healthy(_cases, "GRU encoder and decoder joined by attention learn to reverse; loss falls")
def seq2seq_with_attention() -> Training:
    model = EncoderDecoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return train(model, optimizer, _reversals(), token_loss, steps=150)


_SCANS = {
    "leaky_channels_remember": (
        partial(scans.leaky_channels, 24, 20, 0.02), "a loop that keeps the first of 24 steps"),
    "leaky_channels_need_the_last": (
        partial(scans.leaky_channels, 21, 32, 2.0, True),
        "a state that is forgotten at once, in a task that asks for the last step"),
    "closed_gates_remember": (
        partial(scans.mixing_states, 18, 28, -3.0), "a loop that keeps the first of 18 steps"),
    "gru_cell_put_away": (
        partial(scans.states_put_away, 14, 20, False), "a cell's states are kept in a list"),
    "state_through_data_answers_each": (
        partial(scans.mixing_states, 15, 24, 0.0, True, "each"),
        "a state without a graph, in a task that asks each step for its own class"),
}  # fmt: skip

CASES: tuple[Case, ...] = (
    *_cases, *(Case(name, build, why=why) for name, (build, why) in _SCANS.items())
)  # fmt: skip
