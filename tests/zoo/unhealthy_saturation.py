"""Units saturated by weights, biases or inputs that are too large; some cut off what lies below."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import adam, sgd, supervised

mse = nn.functional.mse_loss


def positive_weights(fixed: bool = False) -> Training:
    """`nn.init.uniform_` without bounds draws from 0 to 1: every sigmoid is driven to 1."""
    torch.manual_seed(0)
    model = models.mlp([64] + [32] * 4 + [10], nn.Sigmoid)
    models.initialise(model, models.xavier(3.0) if fixed else nn.init.uniform_)
    return supervised(model, adam(model, 5e-3) if fixed else sgd(model, 0.05), data.digits())


def large_biases(fixed: bool = False) -> Training:
    torch.manual_seed(1)
    model = models.mlp([64] + [32] * 5 + [10], nn.Tanh)
    models.initialise(model, models.xavier(), bias=0.0 if fixed else 4.0)
    return supervised(model, sgd(model, 0.05), data.digits(), steps=120)


class Saturated(nn.Module):
    """tanh layers as functions; the first one sees raw features."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, 48)
        self.second = nn.Linear(48, 32)
        self.last = nn.Linear(32, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


def prices(fixed: bool = False) -> Training:
    """Features in raw units of thousands, as from a table of prices and years."""
    torch.manual_seed(2)
    x, y = data.regression()
    raw = x if fixed else 2000.0 + 400.0 * x
    model = Saturated(16, 1)
    return supervised(model, sgd(model, 0.05), (raw, y), mse, steps=250)


def timestamp(fixed: bool = False) -> Training:
    """One column is a Unix time: it alone decides every unit of the first layer."""
    torch.manual_seed(10)
    x, y = data.moons()
    column = torch.zeros(len(x), 1) if fixed else 1.7e9 + 1e5 * x[:, :1]
    model = models.ListMlp([3, 32, 16, 1], torch.tanh)
    loss_fn = nn.functional.binary_cross_entropy_with_logits
    return supervised(model, sgd(model, 0.3), (torch.cat([x, column], 1), y), loss_fn, steps=200)


def negative_biases(fixed: bool = False) -> Training:
    """A loop over modules fills every bias with -8 before functional sigmoids."""
    torch.manual_seed(11)
    model = models.ListMlp([64, 32, 32, 10], torch.sigmoid)
    models.initialise(model, models.xavier(2.0), bias=0.0 if fixed else -8.0)
    return supervised(model, sgd(model, 0.5), data.digits(), steps=200)


def hardtanh_raw(fixed: bool = False) -> Training:
    """Hardtanh has no slope at all beyond 1; grey values 0..255 put everything there."""
    torch.manual_seed(3)
    model = models.mlp([64, 48, 32, 10], nn.Hardtanh)
    models.initialise(model, models.xavier(1.0 if fixed else 2.0))
    images = data.digits() if fixed else data.raw_digits()
    return supervised(model, sgd(model, 0.02, momentum=0.9), images, steps=100)


def sigmoid_bias_cnn(fixed: bool = False) -> Training:
    torch.manual_seed(4)
    model = models.ConvNet(4, 10, nn.Sigmoid, norm=fixed)
    if not fixed:
        models.initialise(model, models.xavier(), bias=-7.0)
    optimizer = sgd(model, 0.05, momentum=0.9)
    return supervised(model, optimizer, data.digit_images(), steps=150, batch_size=32)


def saturated_tanh(gain: float, fixed: bool = False) -> Training:
    """Weights so large that nine tenths of the tanh units sit at their ends."""
    torch.manual_seed(5)
    model = models.mlp([64] + [40] * 5 + [10], nn.Tanh)
    models.initialise(model, models.xavier(1.2 if fixed else gain))
    return supervised(model, sgd(model, 0.02), data.digits(), steps=120)


def raw_pixels_sigmoid(fixed: bool = False) -> Training:
    torch.manual_seed(6)
    model = models.mlp([64, 64, 32, 10], nn.Sigmoid)
    models.initialise(model, models.xavier(2.0))
    images = data.digits() if fixed else data.raw_digits()
    return supervised(model, adam(model, 3e-3), images, steps=150)


def raw_pixels_tanh_cnn(fixed: bool = False) -> Training:
    torch.manual_seed(7)
    model = models.ConvNet(4, 10, nn.Tanh)
    models.initialise(model, models.xavier(1.5 if fixed else 6.0))
    x, y = data.digit_images()
    optimizer = sgd(model, 0.05, momentum=0.9)
    return supervised(model, optimizer, (x if fixed else 40 * x, y), steps=120, batch_size=32)


class GatelessCell(nn.Module):
    """h = tanh(W x + U h) in a loop, with the two products written out."""

    def __init__(self, features: int, width: int, out: int) -> None:
        super().__init__()
        self.inp = nn.Linear(features, width)
        self.rec = nn.Linear(width, width, bias=False)
        self.act = nn.Tanh()
        self.out = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.rec.in_features)
        for step in range(x.shape[1]):
            h = self.act(self.inp(x[:, step]) + self.rec(h))
        return self.out(h)


def saturated_recurrent(fixed: bool = False) -> Training:
    """Digits read row by row; the input weights are forty times too large."""
    torch.manual_seed(8)
    x, y = data.digits()
    model = GatelessCell(8, 32, 10)
    if not fixed:
        with torch.no_grad():
            model.inp.weight.mul_(40.0)
    return supervised(model, sgd(model, 0.1), (x.view(-1, 8, 8), y), steps=120)


def sigmoid_autoencoder(fixed: bool = False) -> Training:
    torch.manual_seed(9)
    encoder = nn.Sequential(nn.Linear(64, 32), nn.Sigmoid(), nn.Linear(32, 16), nn.Sigmoid())
    decoder = nn.Sequential(nn.Linear(16, 32), nn.Sigmoid(), nn.Linear(32, 64))
    model = models.Autoencoder(encoder, decoder)
    models.initialise(model, models.normal(0.3 if fixed else 6.0))
    x = data.digits()[0]
    return supervised(model, adam(model, 5e-3), (x, x), mse, steps=200)


def _case(
    name: str,
    build: Callable[..., Training],
    kinds: tuple[str, ...],
    region: tuple[str, ...],
    why: str,
    also_allowed: tuple[str, ...] = (),
) -> Case:
    return Case(
        name, build, kinds, also_allowed, cause="saturation", region=region, why=why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


BOTH = ("vanishing", "saturated")
ONLY = ("saturated",)

CASES: tuple[Case, ...] = (
    _case("uniform_01_sigmoid", positive_weights, BOTH, ("fc[0-3]", "act[0-3]"),
          "all-positive weights drive every sigmoid to 1, where its slope is gone"),
    _case("tanh_bias_4", large_biases, BOTH, ("fc[0-4]", "act[0-4]"),
          "a bias of 4 puts tanh where its slope is 1e-3"),
    _case("timestamp_column_tanh", timestamp, BOTH, ("layers.0",),
          "1.7e9 in one column saturates every unit of the first tanh exactly"),
    _case("sigmoid_bias_minus_8_functional", negative_biases, BOTH, ("layers.[01]",),
          "a bias of -8 puts the sigmoid where its slope is 3e-4"),
    _case("raw_prices_tanh", prices, ONLY, ("first",),
          "features of size 2000 pin the first tanh", ("exploding", "vanishing")),
    _case("hardtanh_raw_pixels", hardtanh_raw, ONLY, ("fc0", "act0"),
          "grey values pin Hardtanh, and beyond 1 its slope is zero", ("exploding", "vanishing")),
    _case("sigmoid_bias_minus_7_cnn", sigmoid_bias_cnn, BOTH, ("features.*",),
          "a bias of -7 puts the sigmoid where its slope is 1e-3"),
    _case("tanh_gain_30", partial(saturated_tanh, 30.0), ONLY, ("fc*", "act*"),
          "gain 30 saturates nine tenths, and they stay", ("exploding", "vanishing")),
    _case("raw_pixels_sigmoid_adam", raw_pixels_sigmoid, ONLY, ("fc0", "act0"),
          "grey values up to 255 pin the first layer", ("vanishing",)),
    _case("raw_pixels_tanh_cnn", raw_pixels_tanh_cnn, ONLY,
          ("features.conv[01]", "features.act[01]"),
          "unnormalised images and large kernels pin the tanh layers", ("exploding", "vanishing")),
    _case("recurrent_input_times_40", saturated_recurrent, ONLY, ("act", "inp", "rec"),
          "every state sits at an end of tanh", ("vanishing",)),
    _case("sigmoid_autoencoder_std_6", sigmoid_autoencoder, ONLY, ("encoder.*", "decoder.*"),
          "std 6 saturates code and hidden layers alike", ("exploding", "vanishing")),
)  # fmt: skip
