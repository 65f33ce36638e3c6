"""Recurrent modules: gradients over time and gates, against a float64 loop over cells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gradwatch.capture import unrolling
from gradwatch.capture.stacked_layers import StackedLayer, list_lower_layers
from tests.capture.tools import assert_harmless, list_keys, read, watch_run

T, B, N, H = 19, 6, 4, 5


def make_module(kind: str, **options: object) -> nn.RNNBase:
    classes = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN, "relu": nn.RNN}
    extra = {"nonlinearity": kind} if kind in ("tanh", "relu") else {}
    return classes[kind](N, H, **extra, **options).double()


def run_cells(rnn: nn.RNNBase, x: Tensor, lengths: list[int] | None = None) -> list[list[Tensor]]:
    """Hidden states of one layer per direction, each with its gradient kept: [direction][time]."""
    cells = {"LSTM": torch.lstm_cell, "GRU": torch.gru_cell}
    plain = torch.rnn_tanh_cell if getattr(rnn, "nonlinearity", "") == "tanh" else None
    cell = cells.get(type(rnn).__name__, plain or torch.rnn_relu_cell)
    found = []
    for suffix in ("", "_reverse")[: 1 + rnn.bidirectional]:
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        weights = [getattr(rnn, name + suffix) for name in names]
        h = torch.zeros(x.shape[1], H, dtype=x.dtype)
        c = torch.zeros_like(h)
        states = []
        for inputs in x.flip(0) if suffix else x:
            if isinstance(rnn, nn.LSTM):
                h, c = cell(inputs, (h, c), *weights)
            else:
                h = cell(inputs, h, *weights)
            h.retain_grad()
            states.append(h)
        found.append(states)
    return found


def expected_buckets(states: list[Tensor]) -> list[float]:
    squares = torch.stack([h.grad.square().sum() for h in states])
    bucket = torch.arange(len(states)) * min(8, len(states)) // len(states)
    return [squares[bucket == b].mean().sqrt().item() for b in range(min(8, len(states)))]


class Net(nn.Module):
    def __init__(self, rnn: nn.RNNBase, use: str) -> None:
        super().__init__()
        self.rnn, self.use = rnn, use

    def forward(self, x: Tensor) -> Tensor:
        output, final = self.rnn(x)
        final = final[0] if isinstance(final, tuple) else final
        return {"all": output, "last": output[-1], "state": final[-1]}[self.use]


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh", "relu"])
@pytest.mark.parametrize("use", ["all", "last", "state"])
def test_gradient_over_time_is_the_total_at_each_hidden_state(kind: str, use: str) -> None:
    rnn = make_module(kind)
    model, x = Net(rnn, use), torch.randn(T, B, N, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def loop() -> None:
        model(x).square().sum().backward()
        optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    states = run_cells(rnn, x)[0]
    out = torch.stack(states) if use == "all" else states[-1]
    out.square().sum().backward()
    for bucket, expected in enumerate(expected_buckets(states)):
        key = f"rnn:time#{bucket}" if bucket else "rnn:time"
        assert read(record, "grad_output_l2_norm", key) == pytest.approx(expected, rel=1e-6)


def test_both_directions_are_seen_each_in_its_own_order() -> None:
    rnn = make_module("lstm", bidirectional=True)
    model, x = Net(rnn, "all"), torch.randn(T, B, N, dtype=torch.float64)
    weight = torch.randn(T, B, 2 * H, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def loop() -> None:
        (model(x) * weight).sum().backward()
        optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    forward, backward = run_cells(rnn, x)
    out = torch.cat((torch.stack(forward), torch.stack(backward[::-1])), -1)
    (out * weight).sum().backward()
    for name, states in (("time", forward), ("time_reverse", backward)):
        found = [
            read(record, "grad_output_l2_norm", f"rnn:{name}" + (f"#{b}" if b else ""))
            for b in range(8)
        ]
        assert found == pytest.approx(expected_buckets(states), rel=1e-6)


def test_layers_are_summed_over() -> None:
    """Two stacked layers: all hidden states of a time step together."""
    rnn = make_module("gru", num_layers=2, batch_first=True)
    model, x = nn.Sequential(rnn), torch.randn(B, T, N, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def loop() -> None:
        model(x)[0].pow(3).sum().backward()
        optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    lower, upper, h0, h1 = [], [], torch.zeros(B, H).double(), torch.zeros(B, H).double()
    for inputs in x.unbind(1):
        h0 = torch.gru_cell(inputs, h0, *(getattr(rnn, f"{n}_l0") for n in _NAMES))
        h1 = torch.gru_cell(h0, h1, *(getattr(rnn, f"{n}_l1") for n in _NAMES))
        for h, into in ((h0, lower), (h1, upper)):
            h.retain_grad()
            into.append(h)
    torch.stack(upper).pow(3).sum().backward()
    pairs = zip(lower, upper, strict=True)
    squares = [a.grad.square().sum() + b.grad.square().sum() for a, b in pairs]
    bucket = torch.arange(T) * 8 // T
    expected = torch.stack(squares)[bucket == 0].mean().sqrt().item()
    assert read(record, "grad_output_l2_norm", "0:time") == pytest.approx(expected, rel=1e-6)
    assert {"0:reset_gate_l0", "0:update_gate_l1", "0:candidate_l1"} <= set(list_keys(record))


@pytest.mark.parametrize("use", ["all", "state"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_layers_that_the_graph_keeps_are_those_computed_again(
    batch_first: bool, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many time steps as sequences: what is time does not follow from a shape."""
    model = Net(nn.LSTM(N, H, num_layers=3, batch_first=batch_first), use)
    optimizer, x = torch.optim.SGD(model.parameters(), lr=0.0), torch.randn(20, 20, N)

    def loop() -> None:
        for _ in range(2):
            model(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    found = []

    def look(output: Tensor, n_layers: int) -> list[StackedLayer]:
        found.append(list_lower_layers(output, n_layers))
        return found[-1]

    monkeypatch.setattr(unrolling, "list_lower_layers", look)
    records = watch_run(model, optimizer, loop)
    monkeypatch.setattr(unrolling, "list_lower_layers", lambda *_: [])
    again = watch_run(model, optimizer, loop)
    assert [len(layers) for layers in found] == [2 * torch.backends.mkldnn.is_available()] * 2
    for record, other in zip(records, again, strict=True):
        assert record.layer_values == pytest.approx(other.layer_values, rel=1e-6, nan_ok=True)


_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@pytest.mark.parametrize("kind", ["lstm", "tanh"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences(kind: str, bidirectional: bool, enforce_sorted: bool) -> None:
    """Each sequence over its own length; equal to running the sequences one by one."""
    rnn = make_module(kind, bidirectional=bidirectional)
    lengths = [16, 8, 8, 8] if enforce_sorted else [8, 16, 8, 8]
    x = torch.randn(16, 4, N, dtype=torch.float64)

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = rnn

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
            output, final = self.rnn(packed)
            return pad_packed_sequence(output)[0], final

    model = Packed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def loop() -> None:
        output, final = model(x)
        final = final[0] if isinstance(final, tuple) else final
        (output.square().sum() + final.pow(3).sum()).backward()
        optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    count = 1 + bidirectional
    squares = torch.zeros(count, 16, dtype=torch.float64)
    alive = torch.zeros(16, dtype=torch.float64)
    for b, length in enumerate(lengths):
        found = run_cells(rnn, x[:length, b : b + 1])
        loss = sum(torch.stack(s).square().sum() + s[-1].pow(3).sum() for s in found)
        loss.backward()
        for d, states in enumerate(found):
            squares[d, :length] += torch.stack([h.grad.square().sum() for h in states])
        alive[:length] += 1
    squares = squares * 4 / alive
    for d, name in enumerate(("time", "time_reverse")[:count]):
        for bucket in range(8):
            key = f"rnn:{name}" + (f"#{bucket}" if bucket else "")
            expected = squares[d, 2 * bucket : 2 * bucket + 2].mean().sqrt().item()
            assert read(record, "grad_output_l2_norm", key) == pytest.approx(expected, rel=1e-6)


def test_gates_of_an_lstm() -> None:
    rnn = make_module("lstm")
    with torch.no_grad():
        rnn.bias_ih_l0[H : 2 * H] = -6.0  # forget gates are shut
        rnn.bias_ih_l0[:H] = 0.0
    model, x = Net(rnn, "all"), torch.randn(T, B, N, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def loop() -> None:
        model(x).sum().backward()
        optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    assert read(record, "saturated_fraction", "rnn:forget_gate") > 0.9
    assert read(record, "saturated_fraction", "rnn:input_gate") < 0.1
    layers = {layer.key: layer for layer in record.layer_set.layers}
    assert layers["rnn:forget_gate"].is_gate
    assert not layers["rnn:cell"].is_gate
    assert layers["rnn:cell"].role == "activation"
    assert not layers["rnn:forget_gate"].is_head
    hidden = torch.zeros(B, H).double()
    cell = torch.zeros_like(hidden)
    derivatives = []
    for inputs in x:
        gates = inputs @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + hidden @ rnn.weight_hh_l0.T
        y = (gates + rnn.bias_hh_l0)[:, H : 2 * H].sigmoid()
        derivatives.append(y * (1 - y))
        hidden, cell = torch.lstm_cell(inputs, (hidden, cell), *rnn._flat_weights)
    expected = torch.stack(derivatives).mean().item()
    assert read(record, "derivative_mean", "rnn:forget_gate") == pytest.approx(expected, rel=1e-6)


def test_a_large_batch_is_sampled() -> None:
    """Eight of 64 equal sequences: the norm is scaled up to all of them."""
    rnn = make_module("tanh")
    x = torch.randn(T, 1, N, dtype=torch.float64)

    def first(count: int) -> float:
        model = Net(rnn, "last")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

        def loop() -> None:
            model(x.expand(T, count, N)).sum().backward()
            optimizer.step()

        return read(watch_run(model, optimizer, loop)[0], "grad_output_l2_norm", "rnn:time")

    assert first(64) == pytest.approx(8 * first(1), rel=1e-6)


@pytest.mark.parametrize(
    "options", [{"proj_size": 2}, {"num_layers": 2, "dropout": 0.5}], ids=["proj", "dropout"]
)
def test_what_cannot_be_computed_again_is_said(options: dict[str, float]) -> None:
    model = Net(make_module("lstm", **options), "all")
    x = torch.randn(T, B, N, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def loop() -> None:
        model(x).sum().backward()
        optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    assert any(note.startswith("rnn: ") for note in record.layer_set.notes)


class CellNet(nn.Module):
    """The loop that ``nn.LSTM`` or ``nn.GRU`` is, over a cell with its weights."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        cell = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell}[type(rnn).__name__](N, H).double()
        weights = {name.removesuffix("_l0"): value for name, value in rnn.state_dict().items()}
        cell.load_state_dict(weights)
        self.rnn = cell

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for inputs in x:
            state = self.rnn(inputs, state)
        assert state is not None
        return state[0] if isinstance(state, tuple) else state


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_gates_of_cells_are_those_of_the_module(kind: str) -> None:
    """Also of a second forward whose backward comes after the first one's."""
    rnn, x = make_module(kind), torch.randn(T, 8, N, dtype=torch.float64)

    def read_gates(model: nn.Module, *inputs: Tensor) -> dict[str, float]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

        def loop() -> None:
            for output in [model(each) for each in inputs]:
                output.sum().backward()
            optimizer.step()

        record = watch_run(model, optimizer, loop)[0]
        keys = [key for key in list_keys(record) if ":" in key and "time" not in key]
        return {key: read(record, "derivative_mean", key) for key in keys}

    expected = read_gates(Net(rnn, "last"), x)
    assert read_gates(CellNet(rnn), *x.chunk(2, 1)) == pytest.approx(expected, rel=1e-6)
    assert len(expected) == (5 if kind == "lstm" else 3)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_cells_in_a_loop_have_an_entry_per_call(kind: str) -> None:
    """The gradient at a cell's output is the total one: its own and through later steps."""
    cells = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cells[kind](N, H).double()
            self.kept: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            state = None
            self.kept.clear()
            for inputs in x:
                state = self.cell(inputs, state)
                h = state[0] if isinstance(state, tuple) else state
                if h.requires_grad:
                    h.retain_grad()
                self.kept.append(h)
            return self.kept[-1] + self.kept[3]

    model, x = Loop(), torch.randn(T, B, N, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def loop() -> None:
        model(x).square().sum().backward()
        optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    assert sum(layer.fqn == "cell" for layer in record.layer_set.layers) == T
    for call, h in enumerate(model.kept):
        found = read(record, "grad_output_l2_norm", f"cell#{call}" if call else "cell")
        if kind == "lstm":  # with the gradient at the cell state
            assert found >= h.grad.norm().item() * (1 - 1e-6)
        else:
            assert found == pytest.approx(h.grad.norm().item(), rel=1e-6)
    gate = {"rnn": "hidden", "lstm": "forget_gate", "gru": "update_gate"}[kind]
    assert 0 <= read(record, "saturated_fraction", f"cell:{gate}") <= 1


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_harmless(kind: str) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer, object]:
        rnn = make_module(kind, num_layers=2, dropout=0.3).float()
        model = Net(rnn, "all")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

        def loop() -> list[float]:
            losses = []
            for _ in range(5):
                optimizer.zero_grad()
                loss = model(torch.randn(T, 20, N)).square().mean()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            return losses

        return model, optimizer, loop

    assert len(assert_harmless(build)) == 5
