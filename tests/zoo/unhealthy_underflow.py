"""Half-precision gradients that are flushed to zero: nothing below 6e-8 exists in float16."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import Loss, adam, sgd, supervised

mse = nn.functional.mse_loss
cross_entropy = nn.functional.cross_entropy


class Autocast(nn.Module):
    """A network whose forward runs under CPU autocast to float16, without any GradScaler."""

    def __init__(self, net: nn.Module, enabled: bool) -> None:
        super().__init__()
        self.net = net
        self.enabled = enabled

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.float16, enabled=self.enabled):
            return self.net(x).float()


def weighted(loss_fn: Loss, weight: float) -> Loss:
    """One term of a larger sum, with its small weight."""
    return lambda output, target: weight * loss_fn(output, target)


def autocast_mlp(fixed: bool = False) -> Training:
    """An auxiliary loss of weight 1e-6: float32 under Adam would not mind."""
    torch.manual_seed(0)
    model = Autocast(models.mlp([64, 48, 48, 10]), not fixed)
    loss_fn = weighted(cross_entropy, 1e-6)
    return supervised(model, adam(model, 2e-3, eps=1e-15), data.digits(), loss_fn, steps=100)


def autocast_cnn(fixed: bool = False) -> Training:
    torch.manual_seed(1)
    model = Autocast(models.ConvNet(3, 10, norm=True), not fixed)
    loss_fn = weighted(cross_entropy, 1e-6)
    optimizer = adam(model, 3e-3, eps=1e-15)
    return supervised(model, optimizer, data.digit_images(), loss_fn, steps=80, batch_size=32)


def half_model(fixed: bool = False) -> Training:
    """model.half(), a loss divided by the size of the data set, and a rate that makes up for it."""
    torch.manual_seed(2)
    dtype = torch.float32 if fixed else torch.float16
    model = models.initialise(models.mlp([64, 48, 48, 10], nn.Tanh), models.xavier()).to(dtype)
    x, y = data.digits()
    loss_fn = weighted(cross_entropy, 2e-6)
    return supervised(model, sgd(model, 5e4), (x.to(dtype), y), loss_fn, steps=120)


class LinearIn(nn.Linear):
    """A linear layer with float32 weights that computes in another precision."""

    def __init__(self, wide: int, out: int, dtype: torch.dtype) -> None:
        super().__init__(wide, out)
        self.compute_dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        to = self.compute_dtype
        return nn.functional.linear(x.to(to), self.weight.to(to), self.bias.to(to))


class HalfEncoder(nn.Module):
    """Only the encoder is in float16, by casts written in forward; the rest is float32."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder = nn.Sequential(LinearIn(64, 48, dtype), nn.ReLU(), LinearIn(48, 32, dtype))
        self.head = nn.Linear(32 + 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(x).float()
        return self.head(torch.cat([code, x[:, 20:28]], dim=1))


def half_encoder(fixed: bool = False) -> Training:
    """The head learns from eight raw features while the encoder stands still."""
    torch.manual_seed(3)
    model = HalfEncoder(torch.float32 if fixed else torch.float16)
    loss_fn = weighted(cross_entropy, 1e-6)
    return supervised(model, adam(model, 5e-3, eps=1e-14), data.digits(), loss_fn, steps=120)


class CastTower(nn.Module):
    """Weights stay float32; the left tower's products are cast to float16 'to save memory'."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.left = nn.ModuleList([nn.Linear(32, 24), nn.Linear(24, 24)])
        self.right = models.mlp([32, 24, 24])
        self.head = nn.Linear(48, 10)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        for layer in self.left:
            a = torch.relu(layer(a).to(self.dtype)).float()
        return self.head(torch.cat([a, self.right(b)], dim=1))


def cast_tower(fixed: bool = False) -> Training:
    torch.manual_seed(4)
    model = CastTower(torch.float32 if fixed else torch.float16)
    x, y = data.digits()
    noisy = torch.cat([x[:, :32], torch.randn(len(x), 32)], dim=1)
    loss_fn = weighted(cross_entropy, 1e-6)
    return supervised(model, adam(model, 3e-3, eps=1e-14), (noisy, y), loss_fn, steps=150)


def autocast_transformer(fixed: bool = False) -> Training:
    """The mean over many tokens, once more divided by 1e5 'to weigh the tasks'."""
    torch.manual_seed(5)
    model = Autocast(models.LanguageModel(depth=2, width=16), not fixed)
    ids = data.tokens()

    def loss_fn(output: Tensor, y: Tensor) -> Tensor:
        return 1e-5 * cross_entropy(output.flatten(0, 1), y.flatten())

    optimizer = adam(model, 3e-3, eps=1e-15)
    pairs = (ids[:, :-1], ids[:, 1:])
    return supervised(model, optimizer, pairs, loss_fn, steps=80, batch_size=24)


def autocast_autoencoder(fixed: bool = False) -> Training:
    """A reconstruction term of weight 1e-6; the mean over 64 x 64 elements does the rest."""
    torch.manual_seed(6)
    net = models.Autoencoder(models.mlp([64, 32, 12]), models.mlp([12, 32, 64]))
    model = Autocast(net, not fixed)
    x = data.digits()[0]
    loss_fn = weighted(mse, 1e-6)
    return supervised(model, adam(model, 3e-3, eps=1e-15), (x, x), loss_fn, steps=150)


def _case(name: str, build: Callable[..., Training], region: tuple[str, ...], why: str) -> Case:
    return Case(
        name, build, ("underflow",), ("vanishing",), "precision", region, 0, why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _case("autocast_mlp_loss_1e6", autocast_mlp, ("net.*",),
          "the gradient at the logits is 1e-9, which float16 does not hold"),
    _case("autocast_cnn_loss_1e6", autocast_cnn, ("net.*",), "float16 flushes a loss times 1e-6"),
    _case("half_model_small_loss", half_model, ("fc*", "act*"),
          "a loss times 2e-6 leaves no half-precision gradient at the logits"),
    _case("half_encoder_float_head", half_encoder, ("encoder", "encoder.*"),
          "only the encoder's gradients pass float16"),
    Case("cast_in_left_tower", cast_tower, ("underflow",), (), "precision", ("left.*",), 0,
         "a cast in forward is a cast in backward; no weight is too small",
         fixed=partial(cast_tower, fixed=True)),
    _case("autocast_transformer_loss_1e5", autocast_transformer, ("net.*",),
          "the gradient at the logits is below 6e-8"),
    _case("autocast_autoencoder_small_loss", autocast_autoencoder, ("net.*",),
          "a mean over 4096 elements, weighted by 1e-6"),
)  # fmt: skip
