"""What a unit is, is read from the tensor's own history, whatever module ran last."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.families.training import list_kinds, make_labelled, train


class ConditionedMaps(nn.Module):
    """A vector beside the pictures is added to a convolution's maps before they are rectified."""

    def __init__(self, channels: int, dead: int, scale: float) -> None:
        super().__init__()
        self.maps, self.style = nn.Conv2d(1, channels, 3, padding=1), nn.Linear(4, channels)
        self.readout = nn.Linear(channels, 3)
        self.scale = scale
        with torch.no_grad():
            self.maps.bias[:dead].fill_(-40.0)

    def forward(self, x: Tensor) -> Tensor:
        maps, style = self.maps(x.view(-1, 1, 4, 4)), self.style(x[:, :4])
        return self.readout(torch.relu(maps + self.scale * style[:, :, None, None]).mean((2, 3)))


@pytest.mark.parametrize(("channels", "dead"), [(10, 8), (24, 17), (12, 0)])
@pytest.mark.parametrize("scale", [0.01, 0.5])
def test_channels_are_counted_though_a_linear_runs_in_between(channels, dead, scale):
    torch.manual_seed(0)
    report = train(ConditionedMaps(channels, dead, scale), make_labelled(16, 3), 30)
    assert list_kinds(report) == (["dead"] if dead else [])
    if dead:
        assert {"maps", "relu"} <= set(report.findings[0].layers)
        assert report.findings[0].observed > 0.99 * dead / channels


class TokensAndSignal(nn.Module):
    """Rectified features of tokens, and a convolution that has nothing to do with them."""

    def __init__(self, width: int, offset: float) -> None:
        super().__init__()
        self.tokens, self.signal = nn.Linear(6, width), nn.Conv1d(6, width, 1)
        self.readout = nn.Linear(width, 3)
        nn.init.constant_(self.tokens.bias, offset)

    def forward(self, x: Tensor) -> Tensor:
        tokens, signal = self.tokens(x), self.signal(x.transpose(1, 2))
        return self.readout(torch.relu(tokens).mean(1) + signal.mean(2))


@pytest.mark.parametrize(("width", "length"), [(12, 30), (32, 9)])
@pytest.mark.parametrize(("offset", "kinds"), [(-0.1, []), (-30.0, ["dead"])])
def test_padded_positions_are_no_units(width, length, offset, kinds):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(6, 3, generator=generator)

    def batch(_: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(32, length, 6, generator=generator)
        x[:, length // 4 :] = 0
        return x, (x.sum(1) @ target).argmax(1)

    report = train(TokensAndSignal(width, offset), batch, 40)
    found = list_kinds(report)
    assert [kind for kind in found if kind == "dead"] == kinds
    assert bool(found) == bool(kinds)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(("bias", "kinds"), [(-20.0, ["dead"]), (0.0, [])])
def test_positions_of_a_picture_are_samples_too(size, bias, kinds):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 1, 3, padding=1))
    with torch.no_grad():
        model[0].bias[:17] = bias
    generator = torch.Generator().manual_seed(1)

    def batch(_: int) -> tuple[Tensor, Tensor]:
        x = torch.rand(size, 1, 12, 12, generator=generator)
        return x, x.flip(-1)

    report = train(model, batch, 80, loss_fn=nn.functional.mse_loss)
    assert list_kinds(report) == kinds


@pytest.mark.parametrize("bias", [-30.0, 0.5])
@pytest.mark.parametrize("drops_dim", [False, True])
def test_one_unit_that_never_fires_stops_everything(bias, drops_dim):
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.gauge = nn.Linear(16, 12), nn.Linear(12, 1)
            self.out = nn.Linear(1, 2)
            nn.init.constant_(self.gauge.bias, bias)

        def forward(self, x: Tensor) -> Tensor:
            h = self.gauge(torch.tanh(self.inner(x)))
            h = torch.relu(h.squeeze(-1)).unsqueeze(-1) if drops_dim else torch.relu(h)
            return self.out(h)

    torch.manual_seed(0)
    report = train(Model(), make_labelled(16, 2), 40)
    assert ("dead" in list_kinds(report)) == (bias < 0)
    assert report.healthy == (bias > 0)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("is_dead", [True, False])
def test_a_rectified_recurrent_layer_whose_units_are_off(layers, is_dead):
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(20, 16), nn.Linear(16, 20)
            self.memory = nn.RNN(16, 16, layers, nonlinearity="relu")
            if is_dead:
                last = self.memory.get_parameter(f"bias_ih_l{layers - 1}")
                nn.init.constant_(last, -50.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.memory(self.table(x))[0]).flatten(0, 1)

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)

    def batch(_: int) -> tuple[Tensor, Tensor]:
        start = torch.randint(0, 20, (1, 16), generator=generator)
        x = (start + 3 * torch.arange(12)[:, None]) % 20
        return x[:-1], x[1:].flatten()

    report = train(Tagger(), batch, 60)
    assert list_kinds(report) == (["dead"] if is_dead else [])
    if is_dead:
        assert "memory" in report.findings[0].layers
        assert "`out`" not in report.findings[0].remedy
