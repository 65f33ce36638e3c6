"""Parts that no gradient reaches: behind a detach, a rebuilt tensor, no slope, or a zero weight."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import adam, sgd, supervised

mse = nn.functional.mse_loss
cross_entropy = nn.functional.cross_entropy


def decayed(model: nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW with the weight decay that it has by default."""
    return torch.optim.AdamW(model.parameters(), lr=lr)


class FrontAndHead(nn.Module):
    """`front`, then `between` as a function, then `head`."""

    def __init__(
        self, front: nn.Module, between: Callable[[Tensor], Tensor], head: nn.Module
    ) -> None:
        super().__init__()
        self.front, self.head = front, head
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.front(x)))


def detached_images(fixed: bool = False) -> Training:
    """A pooling of detached feature maps, as left over from a visualisation."""
    torch.manual_seed(0)
    front = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1), nn.ReLU())

    def pool(maps: Tensor) -> Tensor:
        return (maps if fixed else maps.detach()).mean((2, 3))

    model = FrontAndHead(front, pool, models.mlp([4, 32, 10]))
    optimizer = decayed(model, 0.01)
    return supervised(model, optimizer, data.digit_images(), steps=120, batch_size=48)


def rebuilt(values: Tensor) -> Tensor:
    return torch.tensor(values.tolist())


def rebuilt_sums(fixed: bool = False) -> Training:
    torch.manual_seed(1)
    front = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 3))
    between = torch.tanh if fixed else rebuilt
    model = FrontAndHead(front, between, models.mlp([3, 32, 1], nn.GELU))
    return supervised(model, decayed(model, 5e-3), data.regression(), mse, steps=150)


def held_gradients(fixed: bool = False) -> Training:
    """Gradients live in one buffer and are zeroed in place, so that AdamW decays the encoder."""
    torch.manual_seed(2)
    front = nn.Sequential(nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 6))

    def pass_on(code: Tensor) -> Tensor:
        return torch.tanh(code if fixed else code.detach())

    model = FrontAndHead(front, pass_on, models.mlp([6, 32, 10]))
    optimizer = decayed(model, 3e-3)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def run() -> list[float]:
        losses = []
        for x, y in data.batches(*data.digits(), 64, 120):
            optimizer.zero_grad(set_to_none=False)
            loss = cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of `hard` with the slope of `soft`."""
    return soft + (hard - soft).detach()


def floored_levels(fixed: bool = False) -> Training:
    """Hidden values are put into four steps, as on a cheap converter."""
    torch.manual_seed(3)
    front = nn.Linear(64, 4)

    def quantise(h: Tensor) -> Tensor:
        soft = 2 * torch.tanh(h)
        hard = torch.floor(soft)
        return straight_through(hard, soft) if fixed else hard

    model = FrontAndHead(front, quantise, models.mlp([4, 32, 10]))
    return supervised(model, adam(model, 0.01), data.digits(), steps=150)


def sign_units(fixed: bool = False) -> Training:
    """Hidden units of -1 and 1, as in a perceptron."""
    torch.manual_seed(4)

    def perceptron(h: Tensor) -> Tensor:
        return straight_through(torch.sign(h), torch.tanh(h)) if fixed else torch.sign(h)

    model = FrontAndHead(nn.Linear(2, 12), perceptron, nn.Linear(12, 3))
    optimizer = sgd(model, 0.1, momentum=0.9)
    return supervised(model, optimizer, data.spirals(), steps=150)


class SampledMask(nn.Module):
    """A proposer gives each feature the probability with which the reader sees it."""

    def __init__(self, connected: bool) -> None:
        super().__init__()
        self.proposer = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
        self.reader = models.mlp([8, 32, 10])
        self.connected = connected

    def forward(self, x: Tensor) -> Tensor:
        probability = torch.sigmoid(self.proposer(x))
        drawn = torch.bernoulli(probability)
        return self.reader(straight_through(drawn, probability) if self.connected else drawn)


def bernoulli_units(fixed: bool = False) -> Training:
    torch.manual_seed(5)
    model = SampledMask(fixed)
    return supervised(model, adam(model, 0.01), data.digits(), steps=150)


class Reconstructing(nn.Module):
    """A classifier that can also draw the digit that it has read."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.Tanh())
        self.classify = nn.Linear(32, 10)
        self.redraw = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.body(x)
        return self.classify(code), self.redraw(code)


def unweighted_branch(fixed: bool = False) -> Training:
    """The weight of the second loss is left at its default of 0; its loss is what is returned."""
    torch.manual_seed(6)
    model = Reconstructing()
    optimizer = adam(model, 5e-3)
    weight = 1.0 if fixed else 0.0

    def run() -> list[float]:
        losses = []
        for x, y in data.batches(*data.digits(), 64, 120):
            optimizer.zero_grad()
            logits, drawn = model(x)
            side = mse(drawn, x)
            (cross_entropy(logits, y) + weight * side).backward()
            optimizer.step()
            losses.append(side.item())
        return losses

    return Training(model, (optimizer,), run)


class Clamped(nn.Module):
    """A regressor whose output is kept above a floor."""

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.body = models.mlp([16, 32, 32, 1], nn.Tanh)
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(self.body(x), min=self.floor)


def below_the_floor(fixed: bool = False) -> Training:
    """Targets lie around 8 and the floor at 2, but the first guesses lie around 0."""
    torch.manual_seed(7)
    x, y = data.regression()
    model = Clamped(-100.0 if fixed else 2.0)
    optimizer = sgd(model, 0.01, momentum=0.9)
    return supervised(model, optimizer, (x, y + 8.0), mse, steps=120)


class HardOutput(nn.Module):
    """A pixel decoder that ends in Hardtanh, the usual way to keep pixels in their range."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 16), nn.ReLU())
        self.decode = nn.Linear(16, 64)
        self.limit = nn.Hardtanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.limit(self.decode(self.encode(x)))


def beyond_the_limits(fixed: bool = False) -> Training:
    """The decoder's bias starts at 8, in units of grey values: every pixel is cut off at 1."""
    torch.manual_seed(8)
    model = HardOutput()
    nn.init.constant_(model.decode.bias, 0.0 if fixed else 8.0)
    x = data.digits()[0]
    optimizer = adam(model, 5e-3)
    return supervised(model, optimizer, (x, x.clamp(-1, 1)), _pixels, steps=120)


def _pixels(drawn: Tensor, x: Tensor) -> Tensor:
    return (drawn - x).square().sum(1).mean()


def _case(
    name: str,
    build: Callable[..., Training],
    region: tuple[str, ...],
    why: str,
    also_allowed: tuple[str, ...] = (),
) -> Case:
    return Case(
        name, build, ("disconnected",), also_allowed, "disconnected", region, 0, why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


FLAT = ("saturated", "vanishing")

CASES: tuple[Case, ...] = (
    _case("detached_maps_adamw", detached_images, ("front", "front.*"),
          "maps.detach() in forward; AdamW has nothing to decay without a gradient"),
    _case("rebuilt_sums_adamw", rebuilt_sums, ("front", "front.*"),
          "torch.tensor(values.tolist()) starts a new graph"),
    _case("detached_code_decayed", held_gradients, ("front", "front.*"),
          "detached, and moved by weight decay alone since its gradients are zeros, not None"),
    _case("floored_levels", floored_levels, ("front",), "floor has the slope 0 everywhere"),
    _case("sign_units", sign_units, ("front",), "sign has the slope 0 everywhere"),
    _case("bernoulli_units", bernoulli_units, ("proposer", "proposer.*"),
          "a draw has no slope by its probability"),
    _case("second_loss_weight_0", unweighted_branch, ("redraw", "redraw.*"),
          "0 times its loss: every gradient of the branch is exactly 0"),
    _case("output_below_clamp", below_the_floor, ("body", "body.*"),
          "all outputs lie under the clamp's floor, where it passes exactly nothing", FLAT),
    # Hardtanh is an activation, so this is a saturated output like that of a sigmoid.
    Case("output_beyond_hardtanh", beyond_the_limits, ("vanishing",),
         ("saturated", "disconnected"), "saturation", ("encode", "encode.*", "decode"), 0,
         "all outputs lie above Hardtanh's limit, so nothing whatever gets a gradient",
         fixed=partial(beyond_the_limits, fixed=True)),
)  # fmt: skip
