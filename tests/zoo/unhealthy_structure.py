"""Vanishing in less simple nets: two optimizers, closures, checkpoints, shared towers, GANs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import sgd, supervised

cross_entropy = nn.functional.cross_entropy
bce = nn.functional.binary_cross_entropy


def sigmoid_stack(width: int, depth: int, fixed: bool) -> nn.Sequential:
    """`depth` linear layers and sigmoids; ReLU and He where fixed."""
    act = nn.ReLU if fixed else nn.Sigmoid
    stack = nn.Sequential(models.mlp([width] * (depth + 1), act), act())
    return models.initialise(stack, models.he) if fixed else stack


class BetweenHeads(nn.Module):
    """An auxiliary head close to the input teaches the stem; a deep middle lies beyond it."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.early_head = nn.Linear(32, 2)
        self.middle = sigmoid_stack(32, 9, fixed)
        self.final_head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        return {"parity": self.early_head(x), "digit": self.final_head(self.middle(x))}


def between_heads(fixed: bool = False) -> Training:
    torch.manual_seed(0)
    model = BetweenHeads(fixed)

    def loss_fn(output: dict[str, Tensor], y: Tensor) -> Tensor:
        return cross_entropy(output["digit"], y) + 0.5 * cross_entropy(output["parity"], y % 2)

    return supervised(model, sgd(model, 0.03, momentum=0.9), data.digits(), loss_fn, steps=150)


class Checkpointed(nn.Module):
    """Each block is recomputed in backward to save memory."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.inp = nn.Linear(64, 32)
        self.stages = nn.ModuleList(sigmoid_stack(32, 3, fixed) for _ in range(4))
        self.out = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for stage in self.stages:
            x = checkpoint(stage, x, use_reentrant=False)
        return self.out(x)


def checkpointed(fixed: bool = False) -> Training:
    torch.manual_seed(1)
    model = Checkpointed(fixed)
    return supervised(model, sgd(model, 0.05), data.digits(), steps=120)


def functional_call(fixed: bool = False) -> Training:
    """The forward goes through torch.func.functional_call with the model's own parameters."""
    torch.manual_seed(2)
    model = nn.Sequential(sigmoid_stack(64, 7, fixed), nn.Linear(64, 10))
    optimizer = sgd(model, 0.05)

    def run() -> list[float]:
        losses = []
        for x, y in data.batches(*data.digits(), 64, 100):
            parameters = dict(model.named_parameters())
            loss = cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


class Siamese(nn.Module):
    """One deep tower called on both halves of a pair; the head judges the difference."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(64, 24), sigmoid_stack(24, 8, fixed))
        self.judge = nn.Linear(24, 1)

    def forward(self, pair: Tensor) -> Tensor:
        return self.judge((self.tower(pair[:, 0]) - self.tower(pair[:, 1])).abs())


def siamese(fixed: bool = False) -> Training:
    """Are these two digits the same?"""
    torch.manual_seed(3)
    x, y = data.digits()
    order = torch.randperm(len(y))
    zeros_and_ones = order[y[order] < 2]
    a, b = zeros_and_ones, zeros_and_ones.roll(1)
    same = (y[a] == y[b]).float()[:, None]
    loss_fn = nn.functional.binary_cross_entropy_with_logits
    model = Siamese(fixed)
    optimizer = sgd(model, 0.02, momentum=0.9)
    return supervised(model, optimizer, (torch.stack([x[a], x[b]], 1), same), loss_fn, steps=150)


def two_optimizers(fixed: bool = False) -> Training:
    """The encoder has its own SGD, the head has Adam, and each steps in every iteration."""
    torch.manual_seed(4)
    encoder = nn.Sequential(nn.Linear(64, 32), sigmoid_stack(32, 9, fixed))
    model = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(32, 10)})
    slow = sgd(encoder, 0.05, momentum=0.9)
    fast = torch.optim.Adam(model["head"].parameters(), lr=1e-3)

    def run() -> list[float]:
        losses = []
        for x, y in data.batches(*data.digits(), 64, 120):
            slow.zero_grad()
            fast.zero_grad()
            loss = cross_entropy(model["head"](model["encoder"](x)), y)
            loss.backward()
            slow.step()
            fast.step()
            losses.append(loss.item())
        return losses

    return Training(model, (slow, fast), run)


def with_closure(fixed: bool = False) -> Training:
    """optimizer.step(closure), as for LBFGS, with tiny weights in a tanh net."""
    torch.manual_seed(5)
    model = models.mlp([2] + [24] * 7 + [3], nn.Tanh)
    models.initialise(model, models.xavier(5 / 3) if fixed else models.normal(0.02))
    optimizer = sgd(model, 0.1)
    x, y = data.spirals()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        return loss

    def run() -> list[float]:
        return [optimizer.step(closure).item() for _ in range(120)]

    return Training(model, (optimizer,), run)


class Gan(nn.Module):
    """A generator and a discriminator that ends in a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = models.mlp([4, 32, 32, 2])
        self.discriminator = nn.Sequential(models.mlp([2, 32, 32, 1]), nn.Sigmoid())


def minimax_gan(fixed: bool = False) -> Training:
    """The minimax loss log(1 - D) under a far better discriminator; the fix is -log D.

    Real points lie far off and the discriminator was trained before, so that it is sure; the
    returned losses are the generator's distance from the data.
    """
    torch.manual_seed(7)
    model = Gan()
    real = 0.3 * torch.randn(512, 2) + torch.tensor([6.0, 6.0])
    for_d = torch.optim.Adam(model.discriminator.parameters(), lr=0.01)
    for_g = torch.optim.SGD(model.generator.parameters(), lr=0.02)

    def train_discriminator(points: Tensor, fake: Tensor) -> None:
        for_d.zero_grad()
        on_real, on_fake = model.discriminator(points), model.discriminator(fake.detach())
        (bce(on_real, torch.ones(64, 1)) + bce(on_fake, torch.zeros(64, 1))).backward()
        for_d.step()

    def train_generator(fake: Tensor) -> None:
        for_g.zero_grad()
        judged = model.discriminator(fake)
        loss = -torch.log(judged + 1e-12) if fixed else torch.log(1 - judged + 1e-12)
        loss.mean().backward()
        for_g.step()

    for points, _ in data.batches(real, real, 64, 40, seed=1):  # a pre-trained discriminator
        train_discriminator(points, model.generator(torch.randn(64, 4)))

    def run() -> list[float]:
        distances = []
        for points, _ in data.batches(real, real, 64, 120):
            train_discriminator(points, model.generator(torch.randn(64, 4)))
            fake = model.generator(torch.randn(64, 4))
            train_generator(fake)
            distances.append((fake.mean(0) - points.mean(0)).norm().item())
        return distances

    return Training(model, (for_d, for_g), run)


def _case(
    name: str, build: Callable[..., Training], cause: str, region: tuple[str, ...], why: str
) -> Case:
    return Case(
        name, build, ("vanishing",), cause=cause, region=region, why=why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


SIGMOIDS = "activation_derivative"
CASES: tuple[Case, ...] = (
    _case("stretch_between_two_heads", between_heads, SIGMOIDS,
          ("middle.0.fc[0-5]", "middle.0.act[0-5]"),
          "the early head teaches the stem; the sigmoids beyond it get no gradient"),
    _case("sigmoid_checkpointed", checkpointed, SIGMOIDS, ("inp", "stages.[01]", "stages.[01].*"),
          "twelve sigmoids, recomputed in backward"),
    _case("sigmoid_functional_call", functional_call, SIGMOIDS,
          ("0.0.fc[0-3]", "0.0.act[0-3]"), "seven sigmoids behind torch.func.functional_call"),
    _case("siamese_sigmoid_tower", siamese, SIGMOIDS,
          ("tower", "tower.*"), "one deep tower, called twice"),
    _case("sigmoid_two_optimizers", two_optimizers, SIGMOIDS,
          ("encoder.0", "encoder.1.0.fc[0-5]", "encoder.1.0.act[0-5]"),
          "nine sigmoids under SGD while the head has Adam"),
    _case("tanh_std002_closure", with_closure, "weight_scale", ("fc[0-6]", "act[0-6]"),
          "std 0.02, stepped through a closure"),
    _case("gan_minimax", minimax_gan, "saturation", ("generator", "generator.*"),
          "the discriminator is sure, and log(1 - D) is flat there"),
)  # fmt: skip
