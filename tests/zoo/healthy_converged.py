"""Little left to learn: near convergence all gradients are small and all is well."""

from __future__ import annotations

from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_models import relu_mlp
from tests.zoo.healthy_tasks import Batch, blobs, healthy, spirals, train, waves

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


def _converged(spread: float = 0.5) -> tuple[nn.Sequential, list[Batch]]:
    model, batches = relu_mlp(16, 48, 4, 4), blobs(spread=spread)
    train(model, torch.optim.Adam(model.parameters(), lr=5e-3), batches, _cross_entropy, 250).run()
    return model, batches


@healthy(
    _cases, "eight samples memorised to a loss below 1e-6: gradients fade because all is learned"
)
def memorised_tiny_dataset() -> Training:
    model = relu_mlp(16, 64, 3, 4)
    batches = [(x[:8], y[:8]) for x, y in blobs()[:1]]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    return train(model, optimizer, batches, _cross_entropy, steps=250)


@healthy(
    _cases, "resumed from a converged state under SGD: gradients are tiny from the first step on"
)
def resumed_converged_sgd() -> Training:
    model, batches = _converged()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return train(model, optimizer, batches, _cross_entropy, steps=80)


@healthy(_cases, "resumed from a converged state under a fresh Adam; nothing is left to learn")
def resumed_converged_adam() -> Training:
    model, batches = _converged(spread=0.8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    return train(model, optimizer, batches, _cross_entropy, steps=80)


@healthy(
    _cases, "linear regression without noise solved to machine precision: the gradient is rounding"
)
def regression_to_machine_precision() -> Training:
    model = nn.Linear(8, 1)
    source = torch.Generator().manual_seed(8)
    x = torch.randn(128, 8, generator=source)
    batches = [(x, x @ torch.randn(8, 1, generator=source) + 0.5)]
    return train(model, torch.optim.SGD(model.parameters(), lr=0.2), batches, nn.MSELoss(), 200)


@healthy(
    _cases, "a deep linear regression solved exactly: the loss reaches 1e-10 and gradients follow"
)
def deep_linear_regression_solved() -> Training:
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(5)), nn.Linear(8, 1))
    for layer in model:
        nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]
    source = torch.Generator().manual_seed(9)
    x = torch.randn(128, 8, generator=source)
    batches = [(x, x @ torch.randn(8, 1, generator=source) / 8**0.5)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    return train(model, optimizer, batches, nn.MSELoss(), steps=250)


@healthy(
    _cases, "full-batch spirals separated to a loss of 1e-4, ten times smaller gradients per decade"
)
def separated_spirals_full_batch() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return train(model, optimizer, spirals(batch_size=256), _cross_entropy, steps=250)


@healthy(
    _cases, "multi-class hinge: once every margin is met the loss and all gradients are exactly 0"
)
def hinge_exactly_zero_at_convergence() -> Training:
    model = relu_mlp(16, 48, 3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return train(model, optimizer, blobs(spread=0.5), nn.MultiMarginLoss(), steps=120)


@healthy(_cases, "a linear SVM with hinge loss and weight decay: most samples stop giving gradient")
def linear_svm() -> Training:
    model = nn.Linear(16, 1)

    def hinge(score: Tensor, sign: Tensor) -> Tensor:
        return functional.relu(1 - sign * score).mean()

    batches = [(x, 2.0 * (y % 2)[:, None] - 1) for x, y in blobs(classes=2, spread=1.0)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-3)
    return train(model, optimizer, batches, hinge, steps=100)


@healthy(
    _cases,
    "the perceptron's loss: correct samples give exactly zero, so most late steps do nothing",
)
def perceptron_criterion() -> Training:
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1))

    def criterion(score: Tensor, sign: Tensor) -> Tensor:
        return functional.relu(-sign * score).mean()

    batches = [(x, 2.0 * (y % 2)[:, None] - 1) for x, y in blobs(classes=2, spread=3.0)]
    return train(model, torch.optim.SGD(model.parameters(), lr=0.1), batches, criterion, steps=100)


@healthy(
    _cases, "loss at its floor: labels are coin tosses given x, and the model already predicts 1/2"
)
def irreducible_loss_reached() -> Training:
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    source = torch.Generator().manual_seed(10)
    x = torch.randn(1024, 4, generator=source)
    signal = 2.0 * x[:, :1]
    y = torch.bernoulli(torch.sigmoid(signal), generator=source)
    batches = list(zip(x.split(256), y.split(256), strict=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    return train(model, optimizer, batches, nn.BCEWithLogitsLoss(), steps=150)


@healthy(
    _cases, "cosine schedule down to a learning rate of 0: the last updates are zero on purpose"
)
def cosine_to_zero() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=120)
    return train(model, optimizer, spirals(), _cross_entropy, steps=120, scheduler=schedule)


@healthy(
    _cases, "step decay by 10 at 60 and 90 of 120 steps, Adam: late updates are small on purpose"
)
def step_decay() -> Training:
    model = relu_mlp(4, 64, 4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[60, 90], gamma=0.1)
    return train(model, optimizer, waves(), nn.MSELoss(), steps=120, scheduler=schedule)


@healthy(_cases, "early-stopped plateau: loss is kept by the best weights loaded back each epoch")
def restored_best_weights() -> Training:
    model = relu_mlp(2, 64, 3, 2)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)

    def run() -> list[float]:
        losses: list[float] = []
        best, kept = float("inf"), {k: v.clone() for k, v in model.state_dict().items()}
        for step, (x, y) in enumerate(islice(cycle(spirals()), 120), start=1):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            epoch = sum(losses[-4:]) / 4
            if step % 4 == 0 and epoch < best:
                best, kept = epoch, {k: v.clone() for k, v in model.state_dict().items()}
            elif step % 20 == 0:
                model.load_state_dict(kept)
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


CASES: tuple[Case, ...] = tuple(_cases)
