"""Vanishing because phi' is below 1 in layer after layer: sigmoid depth and its relatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import adam, sgd, supervised

mse = nn.functional.mse_loss
bce = nn.functional.binary_cross_entropy_with_logits


def sigmoid_mlp(depth: int, init: str, fixed: bool = False) -> Training:
    """`depth` linear layers with nn.Sigmoid between; the fix is ReLU with He, deep ones normed."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d if fixed and depth > 20 else None
    act = nn.ReLU if fixed else nn.Sigmoid
    model = models.mlp([64] + [48] * (depth - 1) + [10], act, norm=norm)
    if fixed:
        models.initialise(model, models.he)
    elif init == "xavier":
        models.initialise(model, models.xavier())
    return supervised(model, sgd(model, 0.03 if fixed else 0.1), data.digits(), steps=120)


def functional_sigmoid(fixed: bool = False) -> Training:
    torch.manual_seed(1)
    act = torch.relu if fixed else torch.sigmoid
    model = models.ListMlp([2] + [32] * 9 + [3], act)
    if fixed:
        models.initialise(model, models.he)
    optimizer = sgd(model, 0.03, momentum=0.9)
    return supervised(model, optimizer, data.spirals(), steps=200, batch_size=128)


def momentum_without_bias(fixed: bool = False) -> Training:
    torch.manual_seed(2)
    model = models.mlp([64] + [32] * 13 + [10], nn.ReLU if fixed else nn.Sigmoid, bias=False)
    if fixed:
        models.initialise(model, models.he)
    optimizer = sgd(model, 0.01, momentum=0.9)
    return supervised(model, optimizer, data.digits(), steps=120)


def sigmoid_cnn(fixed: bool = False) -> Training:
    torch.manual_seed(3)
    model = models.ConvNet(8, 8, nn.ReLU if fixed else nn.Sigmoid, norm=fixed)
    if fixed:
        models.initialise(model, models.he)
    optimizer = sgd(model, 0.05, momentum=0.9)
    return supervised(model, optimizer, data.digit_images(), steps=150, batch_size=24)


def sigmoid_autoencoder(fixed: bool = False) -> Training:
    torch.manual_seed(4)
    act = nn.ReLU if fixed else nn.Sigmoid
    sizes = [64, 48, 40, 32, 24, 16]
    encoder = nn.Sequential(models.mlp(sizes, act), act())
    model = models.Autoencoder(encoder, models.mlp(sizes[::-1], act))
    if fixed:
        models.initialise(model, models.he)
    x = data.digits()[0]
    return supervised(model, sgd(model, 0.05, momentum=0.9), (x, x), mse, steps=200)


class HardSigmoidNet(nn.Module):
    """A ModuleList of linear layers with F.hardsigmoid, whose slope is 1/6."""

    def __init__(self, depth: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inp = nn.Linear(16, 32)
        self.hidden = nn.ModuleList(nn.Linear(32, 32) for _ in range(depth))
        self.out = nn.Linear(32, 1)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.inp(x))
        for layer in self.hidden:
            x = self.act(layer(x))
        return self.out(x)


def hard_sigmoid(fixed: bool = False) -> Training:
    torch.manual_seed(5)
    model = HardSigmoidNet(7, nn.functional.relu if fixed else nn.functional.hardsigmoid)
    models.initialise(model, models.he if fixed else models.xavier())
    return supervised(model, sgd(model, 0.02), data.regression(), mse, steps=250)


def unfed_tower(fixed: bool = False) -> Training:
    """The left tower is ten sigmoids deep, the right one is a short ReLU tower."""
    torch.manual_seed(6)
    if fixed:
        left = models.initialise(models.mlp([32] + [24] * 10, nn.ReLU), models.he)
    else:
        left = models.mlp([32] + [24] * 10, nn.Sigmoid)
    model = models.TwoTower(left, models.mlp([32, 24, 24]), 48, 10)
    optimizer = sgd(model, 0.05, momentum=0.9)
    return supervised(model, optimizer, _hard_half_digits(), steps=160)


def _hard_half_digits() -> tuple[Tensor, Tensor]:
    """Digits whose lower rows are mostly hidden: only the upper half tells the classes apart."""
    x, y = data.digits()
    x = x.clone()
    x[:, 32:] = 0.3 * x[:, 32:] + torch.randn(x.shape[0], 32, generator=torch.manual_seed(6))
    return x, y


class EncoderDecoder(nn.Module):
    """An encoder, a decoder, and a skip of the raw features to the decoder."""

    def __init__(self, encoder: nn.Module, code: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = models.mlp([code + 8, 48, 64], nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.cat([self.encoder(x), x[:, ::8]], dim=1))


def sigmoid_encoder(fixed: bool = False) -> Training:
    torch.manual_seed(7)
    encoder = models.mlp([64] + [32] * 9, nn.ReLU if fixed else nn.Sigmoid)
    if fixed:
        models.initialise(encoder, models.he)
    model = EncoderDecoder(encoder, 32)
    x = data.digits()[0]
    return supervised(model, sgd(model, 0.05, momentum=0.9), (x, x), mse, steps=200)


class ScaledTanh(nn.Module):
    """A tanh that someone slowed down: tanh(slope * x)."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.slope * x)


def scaled_tanh(fixed: bool = False) -> Training:
    torch.manual_seed(8)
    model = models.mlp([16] + [32] * 12 + [1], partial(ScaledTanh, 1.0 if fixed else 0.3))
    models.initialise(model, models.xavier(1.2 if fixed else 1.0))
    optimizer = sgd(model, 0.01, momentum=0.9)
    return supervised(model, optimizer, data.regression(), mse, steps=200)


class MultiHead(nn.Module):
    """A deep trunk and two heads, one for the digit and one for its parity."""

    def __init__(self, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.trunk = models.mlp([64] + [40] * 9, act)
        self.digit, self.parity = nn.Linear(40, 10), nn.Linear(40, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = torch.tanh(self.trunk(x))
        return self.digit(code), self.parity(code)


def two_heads(fixed: bool = False) -> Training:
    torch.manual_seed(9)
    model = MultiHead(nn.ReLU if fixed else nn.Sigmoid)
    if fixed:
        models.initialise(model, models.he)
    optimizer = sgd(model, 0.02, momentum=0.9, weight_decay=1e-4)

    def loss_fn(output: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        odd = (y % 2).float()[:, None]
        return nn.functional.cross_entropy(output[0], y) + bce(output[1], odd)

    return supervised(model, optimizer, data.digits(), loss_fn, steps=120)


def log_sigmoid(fixed: bool = False) -> Training:
    """LogSigmoid has slope 1/2 at 0 and less above; Xavier weights do not make up for it."""
    torch.manual_seed(10)
    act = nn.LogSigmoid if not fixed else nn.ReLU
    model = models.mlp([2] + [32] * 22 + [1], act, norm=None if fixed else nn.LayerNorm)
    models.initialise(model, models.he if fixed else models.xavier())
    return supervised(model, sgd(model, 0.05), data.moons(), bce, steps=120)


def accumulated_and_clipped(fixed: bool = False) -> Training:
    torch.manual_seed(11)
    model = models.mlp([64] + [32] * 11 + [10], nn.ReLU if fixed else nn.Sigmoid)
    if fixed:
        models.initialise(model, models.he)
    return supervised(
        model, sgd(model, 0.1), data.digits(), steps=100, batch_size=32, accumulate=2, clip_norm=1.0
    )


class TiedSigmoid(nn.Module):
    """One linear layer and one nn.Sigmoid object, both used ten times over."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Linear(64, 32)
        self.shared = nn.ModuleList(nn.Linear(32, 32) for _ in range(9))
        self.act = act
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.embed(x))
        for layer in self.shared:
            x = self.act(layer(x))
        return self.head(x)


def one_activation_object(fixed: bool = False) -> Training:
    torch.manual_seed(12)
    model = TiedSigmoid(nn.ReLU() if fixed else nn.Sigmoid())
    if fixed:
        models.initialise(model, models.he)
    return supervised(model, sgd(model, 0.02, momentum=0.9), data.digits(), steps=120)


def adam_large_eps(fixed: bool = False) -> Training:
    """Adam with eps 1e-3, as some papers advise: the early steps fall below eps."""
    torch.manual_seed(13)
    model = models.mlp([64] + [32] * 14 + [10], nn.ReLU if fixed else nn.Sigmoid)
    if fixed:
        models.initialise(model, models.he)
    return supervised(model, adam(model, 1e-3, eps=1e-3), data.digits(), steps=120)


def _case(name: str, build: Callable[..., Training], region: tuple[str, ...], why: str) -> Case:
    return Case(
        name, build, ("vanishing",), cause="activation_derivative", region=region, why=why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


def _sigmoid_case(depth: int, init: str, early: int) -> Case:
    return _case(
        f"sigmoid_mlp_{depth}_{init}_sgd",
        partial(sigmoid_mlp, depth, init),
        tuple(f"{kind}{index}" for kind in ("fc", "act") for index in range(early)),
        f"{depth - 1} sigmoids of slope at most 1/4 in a row, trained by plain SGD",
    )


CASES: tuple[Case, ...] = (
    _sigmoid_case(8, "default", 4),
    _sigmoid_case(8, "xavier", 4),
    _sigmoid_case(12, "default", 8),
    _sigmoid_case(20, "xavier", 15),
    _sigmoid_case(30, "default", 25),
    _case("functional_sigmoid_spirals", functional_sigmoid, ("layers.[0-5]",),
          "nine torch.sigmoid calls in a row"),
    _case("sigmoid_without_bias_momentum", momentum_without_bias, ("fc[0-9]", "act[0-9]"),
          "momentum does not make up for thirteen slopes of 1/4"),
    _case("sigmoid_cnn", sigmoid_cnn, ("features.conv[0-4]", "features.act[0-4]"),
          "eight sigmoid convolutions; the digits stay unlearnt"),
    _case("sigmoid_autoencoder", sigmoid_autoencoder, ("encoder.*",),
          "the encoder lies below nine sigmoids"),
    _case("hardsigmoid_functional", hard_sigmoid, ("inp", "hidden.[0-4]"),
          "hardsigmoid has slope 1/6"),
    _case("sigmoid_tower_of_two", unfed_tower, ("left.fc[0-6]", "left.act[0-6]"),
          "only the left tower is deep in sigmoids; the right one learns"),
    _case("sigmoid_encoder_relu_decoder", sigmoid_encoder, ("encoder.fc[0-5]", "encoder.act[0-5]"),
          "the decoder learns from the skip while the encoder stays at its initialisation"),
    _case("scaled_tanh_chain", scaled_tanh, ("fc[0-7]", "act[0-7]"),
          "tanh(0.3 x) has slope 0.3 at 0"),
    _case("sigmoid_trunk_two_heads", two_heads, ("trunk.fc[0-5]", "trunk.act[0-5]"),
          "both heads hang over eight sigmoids"),
    _case("logsigmoid_layernorm_22", log_sigmoid, ("fc[0-9]", "norm[0-9]", "act[0-9]"),
          "logsigmoid's slope is near 1/2 under layer norm"),
    _case("sigmoid_accumulated_clipped", accumulated_and_clipped, ("fc[0-6]", "act[0-6]"),
          "accumulation and clipping leave the profile as it is"),
    _case("one_sigmoid_object_reused", one_activation_object, ("embed", "shared.[0-5]"),
          "one nn.Sigmoid called ten times"),
    _case("sigmoid_adam_large_eps", adam_large_eps, ("fc[0-7]", "act[0-7]"),
          "with eps 1e-3 Adam's step is no longer scale-invariant"),
)  # fmt: skip
