"""ReLU units that never fire: pushed down by biases, by one huge step, or by bad inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import adam, sgd, supervised

mse = nn.functional.mse_loss


def fill_bias(layer: nn.Module, value: float) -> None:
    nn.init.constant_(layer.bias, value)


def negative_bias(fixed: bool = False) -> Training:
    torch.manual_seed(0)
    model = models.initialise(models.mlp([64, 48, 48, 32, 10]), models.he, bias=None)
    if not fixed:
        fill_bias(model.fc1, -12.0)
    return supervised(model, sgd(model, 0.05), data.digits(), steps=120)


def mostly_dead_first(fixed: bool = False) -> Training:
    """Four fifths of the first layer start with a bias of -25; the others have to do."""
    torch.manual_seed(1)
    model = models.initialise(models.mlp([2, 40, 24, 3]), models.he)
    if not fixed:
        with torch.no_grad():
            model.fc0.bias[:34] = -25.0
    return supervised(model, sgd(model, 0.1, momentum=0.9), data.spirals(), steps=200)


def dead_channels(fixed: bool = False) -> Training:
    torch.manual_seed(2)
    model = models.ConvNet(4, 12)
    models.initialise(model, models.he)
    if not fixed:
        with torch.no_grad():
            model.features.get_submodule("conv1").bias[:10] = -30.0
    optimizer = sgd(model, 0.03, momentum=0.9)
    return supervised(model, optimizer, data.digit_images(), steps=150, batch_size=32)


class FunctionalNet(nn.Module):
    """F.relu in forward; no activation module to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 40)
        self.mix = nn.Linear(40, 32)
        self.out = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.embed(x))
        x = nn.functional.relu(self.mix(x))
        return self.out(x)


def functional_dead(fixed: bool = False) -> Training:
    torch.manual_seed(3)
    model = FunctionalNet()
    if not fixed:
        fill_bias(model.mix, -6.0)
    return supervised(model, adam(model, 3e-3), data.regression(), mse, steps=200)


def shifted_inputs(fixed: bool = False) -> Training:
    """Inputs lie around -40 (a mean subtracted twice) and the first weights are positive."""
    torch.manual_seed(4)
    x, y = data.digits()
    model = models.mlp([64, 48, 32, 10])
    with torch.no_grad():
        model.fc0.weight.abs_()
    optimizer = sgd(model, 0.05, momentum=0.9)
    return supervised(model, optimizer, (x if fixed else x - 40.0, y), steps=120)


def negative_weights(fixed: bool = False) -> Training:
    """Weights drawn from -1 to 0 behind a ReLU: no sum can become positive."""
    torch.manual_seed(5)
    model = models.mlp([64, 40, 40, 10], nn.ReLU6)
    models.initialise(model, models.he)
    if not fixed:
        nn.init.uniform_(model.fc1.weight, -0.3, 0.0)
        fill_bias(model.fc1, -0.2)
    return supervised(model, sgd(model, 0.05, momentum=0.9), data.digits(), steps=120)


class Branch(nn.Module):
    """A branch with an in-place ReLU behind a BatchNorm, whose shift is given."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.stem = nn.Linear(64, 32)
        self.branch = nn.Sequential(
            nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(inplace=True), nn.Linear(32, 32)
        )
        self.head = nn.Linear(32, 10)
        nn.init.constant_(self.branch[1].bias, shift)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.branch(self.stem(x)))


def batchnorm_shift(fixed: bool = False) -> Training:
    torch.manual_seed(6)
    model = Branch(0.0 if fixed else -8.0)
    return supervised(model, sgd(model, 0.1), data.digits(), steps=120, batch_size=32)


def huge_step(
    start: int, optimizer_name: str, lr: float, burst: float, fixed: bool = False
) -> Training:
    """Well until step `start`, where the schedule multiplies the learning rate for two steps."""
    torch.manual_seed(7)
    model = models.initialise(models.mlp([64, 48, 48, 10]), models.he)
    make = getattr(torch.optim, optimizer_name)
    optimizer = make(model.parameters(), lr=lr)

    def factor(step: int) -> float:
        return burst if not fixed and start <= step < start + 2 else 1.0

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return supervised(model, optimizer, data.digits(), steps=200, scheduler=schedule)


class Regressor(nn.Module):
    """A regressor with torch.relu over a ModuleList."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList([nn.Linear(16, 48), nn.Linear(48, 48)])
        self.out = nn.Linear(48, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.body:
            x = torch.relu(layer(x))
        return self.out(x)


def outlier_batch(fixed: bool = False) -> Training:
    """At step 60 one batch carries targets in the wrong unit; its step kills the ReLUs."""
    torch.manual_seed(8)
    model = Regressor()
    optimizer = sgd(model, 0.05)
    x, y = data.regression()

    def run() -> list[float]:
        losses = []
        for step, (a, b) in enumerate(data.batches(x, y, 64, 200)):
            target = b - 80.0 if step == 60 and not fixed else b
            optimizer.zero_grad()
            loss = mse(model(a), target)
            loss.backward()
            optimizer.step()
            losses.append(mse(model(a), b).item())
        return losses

    return Training(model, (optimizer,), run)


def _case(
    name: str,
    build: Callable[..., Training],
    region: tuple[str, ...],
    why: str,
    cause: str = "dead_units",
    since: int = 0,
    also_allowed: tuple[str, ...] = ("vanishing",),
) -> Case:
    return Case(
        name, build, ("dead",), also_allowed, cause, region, since, why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _case("dead_bias_minus_12", negative_bias, ("fc[0-2]", "act[0-2]"),
          "a bias of -12 keeps every unit of fc1 silent, and fc0 behind it"),
    _case("dead_most_of_first", mostly_dead_first, ("fc0", "act0"),
          "34 of 40 units never fire"),
    _case("dead_conv_channels", dead_channels, ("features.conv[01]", "features.act[01]"),
          "10 of 12 channels of conv1 are silent on every image"),
    _case("dead_functional_relu", functional_dead, ("embed", "mix"),
          "F.relu behind a bias of -6: nothing fires"),
    _case("dead_from_shifted_inputs", shifted_inputs, ("fc[01]", "act[01]"),
          "inputs around -40 meet positive weights"),
    _case("dead_negative_weights_relu6", negative_weights, ("fc[01]", "act[01]"),
          "negative weights behind a ReLU6 cannot make a positive sum"),
    _case("dead_batchnorm_shift", batchnorm_shift, ("stem", "branch.[012]"),
          "a BatchNorm shift of -8 silences an in-place ReLU"),
    _case("dead_after_lr_burst_sgd", partial(huge_step, 40, "SGD", 0.05, 400.0),
          ("fc*", "act*"), "two steps at 400 times the learning rate kill the ReLUs",
          "learning_rate", 40, ("vanishing", "exploding")),
    _case("dead_after_lr_burst_adam", partial(huge_step, 60, "Adam", 5e-3, 200.0),
          ("fc*", "act*"), "two Adam steps of size 1 kill the ReLUs",
          "learning_rate", 60, ("vanishing", "exploding")),
    _case("dead_after_outlier_batch", outlier_batch, ("body.*",),
          "one batch with targets of -80 makes a step that kills the ReLUs",
          "learning_rate", 60, ("vanishing", "exploding")),
)  # fmt: skip
