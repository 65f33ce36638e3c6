"""Gradients or activations that grow until training diverges."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import adam, sgd, supervised

mse = nn.functional.mse_loss


def relu_std_one(fixed: bool = False) -> Training:
    """`nn.init.normal_` without a std: each layer multiplies by four."""
    torch.manual_seed(0)
    model = models.mlp([64] + [32] * 9 + [10])
    models.initialise(model, models.he if fixed else nn.init.normal_)
    return supervised(model, sgd(model, 0.02), data.digits(), steps=80, clip_norm=1.0)


def deep_linear(fixed: bool = False) -> Training:
    torch.manual_seed(1)
    model = models.ListMlp([16] + [24] * 14 + [1], lambda x: x, bias=False)
    models.initialise(model, models.xavier(1.0 if fixed else 3.0))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    return supervised(model, optimizer, data.regression(), mse, steps=80)


def leaky_adam(fixed: bool = False) -> Training:
    """Adam's steps stay small, so that the huge loss comes down at a snail's pace."""
    torch.manual_seed(2)
    model = models.mlp([64] + [32] * 11 + [10], nn.LeakyReLU)
    models.initialise(model, models.he if fixed else models.xavier(5.0))
    return supervised(model, adam(model, 1e-3), data.digits(), steps=120)


def wide_cnn(fixed: bool = False) -> Training:
    torch.manual_seed(3)
    model = models.ConvNet(8, 10)
    models.initialise(model, models.he if fixed else models.normal(0.6))
    optimizer = sgd(model, 0.02, momentum=0.9)
    return supervised(model, optimizer, data.digit_images(), steps=100, batch_size=32)


def recurrent(scale: float, clip_norm: float | None, fixed: bool = False) -> Training:
    """A linear-ish relu RNN whose recurrent matrix is a multiple of the identity."""
    torch.manual_seed(4)
    rnn = nn.RNN(2, 24, nonlinearity="relu", batch_first=True)
    nn.init.eye_(rnn.weight_hh_l0)
    rnn.weight_hh_l0.data.mul_(1.0 if fixed else scale)
    model = models.Recurrent(rnn, 1)
    x, y = data.adding(40)
    optimizer = sgd(model, 1e-3)
    return supervised(
        model, optimizer, (x, y - 1), mse, steps=100, batch_size=32, clip_norm=clip_norm
    )


class SumCell(nn.Module):
    """A hand-written cell called once per step: h = leaky(W x + U h)."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.inp = nn.Linear(8, 32)
        self.rec = nn.Linear(32, 32, bias=False)
        self.out = nn.Linear(32, 10)
        nn.init.orthogonal_(self.rec.weight, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 32)
        for step in x.unbind(1):
            h = nn.functional.leaky_relu(self.inp(step) + self.rec(h), 0.3)
        return self.out(h)


def looped_cell(fixed: bool = False) -> Training:
    """Digits read four times over, row by row."""
    torch.manual_seed(5)
    x, y = data.digits()
    model = SumCell(1.0 if fixed else 3.0)
    rows = x.view(-1, 8, 8).repeat(1, 4, 1)
    return supervised(model, adam(model, 3e-3), (rows, y), steps=80, clip_norm=5.0)


def diverging_rate(fixed: bool = False) -> Training:
    """A learning rate beyond 2 / curvature: each step overshoots further."""
    torch.manual_seed(6)
    model = models.mlp([16, 32, 1], nn.Tanh)
    return supervised(model, sgd(model, 0.05 if fixed else 1.5), data.regression(), mse, steps=100)


def linear_rate(fixed: bool = False) -> Training:
    """Logged counts among the features were left unlogged: 0.01 is too fast for this table."""
    torch.manual_seed(7)
    x, y = data.regression()
    model = models.mlp([16, 1], nn.Identity)
    rate = 5e-4 if fixed else 0.014
    return supervised(model, sgd(model, rate), (8.0 * x, y), mse, steps=80)


def adam_rate_one(fixed: bool = False) -> Training:
    """lr=1 instead of 1e-3: every step changes every weight by one."""
    torch.manual_seed(11)
    model = models.ResidualMlp(64, 32, 3, 10, norm=False)
    return supervised(model, adam(model, 1e-3 if fixed else 1.0), data.digits(), steps=100)


def warm_up_too_high(fixed: bool = False) -> Training:
    """A linear warm-up whose top is a hundred times too high: well for a while, then diverged."""
    torch.manual_seed(8)
    model = models.ResidualMlp(16, 32, 3, 1)
    optimizer = sgd(model, 0.01, momentum=0.9)
    top = 1.0 if fixed else 60.0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: top * min(1, step / 120))
    data_set = data.regression()
    return supervised(model, optimizer, data_set, mse, steps=140, scheduler=schedule)


def growing_stack(fixed: bool = False) -> Training:
    """Thirty residual blocks without norm: each adds as much as it gets."""
    torch.manual_seed(9)
    model = models.ResidualMlp(64, 32, 30, 10, norm=fixed, scale=0.2 if fixed else 1.0)
    models.initialise(model, models.he)
    return supervised(model, adam(model, 1e-3), data.digits(), steps=60)


class DoublingNet(nn.Module):
    """Skips that add the input twice, as in a mis-merged residual block."""

    def __init__(self, depth: int, skip: float) -> None:
        super().__init__()
        self.inp = nn.Linear(64, 24)
        self.blocks = nn.ModuleList(nn.Linear(24, 24) for _ in range(depth))
        self.out = nn.Linear(24, 10)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for block in self.blocks:
            x = self.skip * x + 0.3 * torch.relu(block(x))
        return self.out(x)


def doubled_skips(fixed: bool = False) -> Training:
    torch.manual_seed(10)
    model = DoublingNet(24, 1.0 if fixed else 2.0)
    return supervised(model, adam(model, 1e-3), data.digits(), steps=80)


def _case(
    name: str,
    build: Callable[..., Training],
    cause: str,
    why: str,
    region: tuple[str, ...] = ("*",),
    since: int = 0,
    also_allowed: tuple[str, ...] = ("nonfinite", "dead"),
) -> Case:
    return Case(
        name, build, ("exploding",), also_allowed, cause, region, since, why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _case("relu_std_1", relu_std_one, "weight_scale", "std 1 in width 32: four times per layer"),
    _case("deep_linear_gain_3", deep_linear, "weight_scale", "gain 3, fourteen times over"),
    _case("leaky_relu_gain_5_adam", leaky_adam, "weight_scale",
          "gain 5: the loss starts at millions, and Adam's steps cannot bring it down"),
    _case("cnn_std_06", wide_cnn, "weight_scale", "kernels of std 0.6: four times per layer"),
    _case("rnn_recurrent_2", partial(recurrent, 2.0, None), "through_time",
          "a recurrent factor 2 over forty steps", ("rnn",)),
    _case("rnn_recurrent_15_clipped", partial(recurrent, 1.5, 1.0), "through_time",
          "clipping hides the explosion from the weights, not from the loss", ("rnn",)),
    _case("hand_cell_gain_3", looped_cell, "through_time",
          "an orthogonal recurrent matrix times 3 over 32 steps", ("inp", "rec")),
    _case("tanh_rate_too_high", diverging_rate, "learning_rate", "the loss bounces ever higher"),
    _case("linear_rate_too_high", linear_rate, "learning_rate",
          "least squares beyond the stable learning rate"),
    _case("adam_rate_1", adam_rate_one, "learning_rate", "steps of size 1 in every weight"),
    _case("warm_up_too_high", warm_up_too_high, "learning_rate",
          "learns until the warm-up reaches rates at which it diverges", since=20),
    _case("residual_stack_without_norm", growing_stack, "depth",
          "thirty blocks, each of which doubles the variance and more", ("stem", "blocks.*")),
    _case("doubled_skips", doubled_skips, "depth", "each skip doubles", ("inp", "blocks.*")),
)  # fmt: skip
