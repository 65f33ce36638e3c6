"""Trainings on either side of a threshold or a guard: `benchmarks.ablation` weighs it by them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Training
from tests.zoo.loops import adam, sgd, supervised

mse = nn.functional.mse_loss
cross_entropy = nn.functional.cross_entropy


class Towers(nn.Module):
    """Two networks side by side, each with a task of its own."""

    def __init__(self, main: nn.Module, side: nn.Module) -> None:
        super().__init__()
        self.main, self.side = main, side

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.main(x), self.side(x)


def small_loss_warmed_up() -> Training:
    """A side task of weight 1e-7 under Adam, whose rate grows by six percent at each step."""
    torch.manual_seed(0)
    model = Towers(models.mlp([64, 32, 10]), models.mlp([64, 32, 10]))
    optimizer = adam(model, 5e-3, eps=1e-20)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(2e-4 * 1.06**step, 1))

    def loss_fn(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        main, side = output
        return cross_entropy(main, target) + 1e-7 * cross_entropy(side, 9 - target)

    return supervised(model, optimizer, data.digits(), loss_fn, steps=200, scheduler=warm_up)


def sigmoids_warming_up(fixed: bool = False) -> Training:
    """A chain of sigmoids whose rate rises to the last step."""
    torch.manual_seed(1)
    model = models.mlp([64] + [32] * 10 + [10], nn.ReLU if fixed else nn.Sigmoid)
    if fixed:
        models.initialise(model, models.he)
    optimizer = sgd(model, 0.1)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 120)
    return supervised(model, optimizer, data.digits(), steps=120, scheduler=warm_up)


class Prototypes(nn.Module):
    """Units that each fire for the one of many prototypes that they hold, and a readout."""

    def __init__(self, prototypes: Tensor, outputs: int) -> None:
        super().__init__()
        self.match = nn.Linear(prototypes.shape[1], len(prototypes))
        self.read = nn.Linear(len(prototypes), outputs)
        with torch.no_grad():
            self.match.weight.copy_(prototypes)
            self.match.bias.fill_(-0.6)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(torch.relu(self.match(x)))


def rare_units() -> Training:
    """Six hundred kinds of samples, and a unit for each: most are silent over any window."""
    torch.manual_seed(2)
    prototypes = nn.functional.normalize(torch.randn(600, 64), dim=1)
    model = Prototypes(prototypes, 8)
    pairs = prototypes, torch.randint(8, (600,))
    return supervised(model, adam(model, 0.05), pairs, steps=150, batch_size=24)


class Skip(nn.Module):
    """x + up(relu(down(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, width), nn.Linear(width, width)
        self.activity = torch.tensor(0.0)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.down(x))
        self.activity = inner.mean()
        return x + self.up(inner)


def mirrored_digits() -> tuple[Tensor, Tensor]:
    """Half of them with the sign turned, so that what is linear in x says nothing."""
    x, y = data.digits()
    return torch.where(torch.rand(len(x), 1) < 0.5, x, -x), y


def branch_switched_off() -> Training:
    """From the hundredth step on a branch beside a skip pays for what fires; it is not needed."""
    torch.manual_seed(3)
    block = Skip(32)
    model = nn.Sequential(nn.Linear(64, 32), block, nn.Linear(32, 10))
    steps = iter(range(1000))

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output, target) + (block.activity if next(steps) >= 100 else 0.0)

    return supervised(model, adam(model, 0.02), data.digits(), loss_fn, steps=220)


def branch_mostly_dead(fixed: bool = False) -> Training:
    """Nearly all units of a branch beside a skip are dead from the start, and needed."""
    torch.manual_seed(3)
    block = Skip(32)
    if not fixed:
        nn.init.constant_(block.down.bias[:30], -30.0)
    model = nn.Sequential(nn.Linear(64, 32), block, nn.Linear(32, 10))
    return supervised(model, adam(model, 0.01), mirrored_digits(), steps=150)


class Detector(nn.Module):
    """A network with a sigmoid of its own at each output."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.body = models.mlp([64, 32])
        self.score = nn.Linear(32, 10)
        nn.init.constant_(self.score.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.score(torch.relu(self.body(x))))


def rare_positives() -> Training:
    """Outputs begin near zero, positives are rare, and hardly any of them can be foretold."""
    torch.manual_seed(4)
    x, y = data.digits()
    is_seen = (torch.rand(len(x), 1) < 0.05) & (nn.functional.one_hot(y, 10) > 0)
    model, bce = Detector(bias=-7.0), nn.functional.binary_cross_entropy
    return supervised(model, adam(model, 0.01), (x, is_seen.float()), bce, steps=200)


def outputs_stuck_at_one(fixed: bool = False) -> Training:
    """Biases that are far too large hold all outputs but the first at 1, whatever they are fed."""
    torch.manual_seed(5)
    x, y = data.digits()
    model = Detector(bias=0.0)
    if not fixed:
        nn.init.constant_(model.score.bias[1:], 14.0)
    target = nn.functional.one_hot(y, 10).float()
    return supervised(model, sgd(model, 2.0), (x, target), mse, steps=150)


def task_solved_beside(moves: bool, fixed: bool = False) -> Training:
    """Two tasks, the larger one soon solved; the side tower has learned its own, or never moved."""
    torch.manual_seed(6)
    x, y = data.regression()
    side = models.mlp([16, 1])
    if not moves:
        side = models.mlp([16] + [16] * 8 + [1], nn.ReLU if fixed else nn.Sigmoid)
    if fixed:
        models.initialise(side, models.he)
    model = Towers(models.mlp([16, 32, 1]), side)
    easy = x @ torch.linspace(-1, 1, 16)[:, None]

    def loss_fn(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        main, beside = output
        if moves:
            return mse(main, target[:, :1]) + 100 * mse(beside, target[:, 1:])
        return 100 * mse(main, target[:, 1:]) + mse(beside, target[:, :1])

    rates = (0.002, 0.002) if moves else (0.002, 0.02)
    parts = zip(model.children(), rates, strict=True)
    groups = [{"params": list(part.parameters()), "lr": rate} for part, rate in parts]
    pairs = x, torch.cat([y, easy], 1)
    return supervised(model, torch.optim.SGD(groups, lr=0.002), pairs, loss_fn, steps=250)
