"""Ways to train: closures, schedules, decay, odd batch sizes, evaluation in between."""

from __future__ import annotations

from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_models import relu_mlp
from tests.zoo.healthy_tasks import blobs, glyphs, healthy, spirals, train, waves

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


@healthy(_cases, "L-BFGS with a closure: many backward passes within one step; loss falls")
def lbfgs_closure() -> Training:
    model = nn.Sequential(
        nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1)
    )
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    ((x, y),) = waves(batch_size=256)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    def run() -> list[float]:
        return [optimizer.step(closure).item() for _ in range(60)]

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(_cases, "warm-up from a learning rate of exactly 0: the first update is zero on purpose")
def warmup_from_zero_sgd() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 30))
    return train(model, optimizer, spirals(), _cross_entropy, steps=150, scheduler=schedule)


@healthy(_cases, "one-cycle schedule with inverse momentum, AdamW; loss falls")
def one_cycle_schedule() -> Training:
    model = relu_mlp(4, 64, 4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=121)
    return train(model, optimizer, waves(), nn.MSELoss(), steps=120, scheduler=schedule)


@healthy(
    _cases, "decoupled weight decay of 0.5 at lr 5e-3: decay is most of the update; loss falls"
)
def strong_weight_decay() -> Training:
    model = relu_mlp(16, 64, 3, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.5)
    return train(model, optimizer, blobs(spread=1.5), _cross_entropy, steps=150)


@healthy(_cases, "batches of one sample under SGD: gradients jump by decades from step to step")
def batch_size_one() -> Training:
    model = relu_mlp(16, 32, 3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    return train(model, optimizer, blobs(batch_size=1), _cross_entropy, steps=250)


@healthy(_cases, "the whole data set in each step, plain gradient descent; loss falls")
def full_batch_gradient_descent() -> Training:
    model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return train(model, optimizer, spirals(batch_size=256), _cross_entropy, steps=200)


@healthy(_cases, "dropout of one half in two layers: half the units are silent in any step")
def dropout_half() -> Training:
    model = nn.Sequential(
        nn.Linear(16, 128), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 4),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return train(model, optimizer, blobs(spread=1.5), _cross_entropy, steps=100)


@healthy(_cases, "dropout and 2-D dropout over input and channels of a convolution net; loss falls")
def channel_dropout() -> Training:
    model = nn.Sequential(
        nn.Dropout(0.1), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.3),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(256, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=100)


@healthy(_cases, "an evaluation pass in eval mode under no_grad every ten steps; loss falls")
def evaluation_between_steps() -> Training:
    model = nn.Sequential(
        nn.Linear(2, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64),
        nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 2),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def evaluate() -> float:
        model.eval()
        with torch.no_grad():
            hits = [(model(x).argmax(1) == y).float().mean() for x, y in spirals()]
        model.train()
        return torch.stack(hits).mean().item()

    def run() -> list[float]:
        losses, accuracies = [], []
        for step, (x, y) in enumerate(islice(cycle(spirals()), 120)):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if step % 10 == 9:
                accuracies.append(evaluate())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(_cases, "one optimizer for weights and one for biases, stepped together; loss falls")
def two_optimizers_one_loss() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    weights = [p for p in model.parameters() if p.dim() > 1]
    biases = [p for p in model.parameters() if p.dim() == 1]
    optimizers = (torch.optim.Adam(weights, lr=5e-3), torch.optim.SGD(biases, lr=0.05))

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(spirals()), 120):
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=optimizers, run=run)


@healthy(
    _cases, "sharpness-aware minimisation: two backward passes, weights perturbed between them"
)
def sharpness_aware() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    parameters = list(model.parameters())

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(spirals()), 120):
            loss = functional.cross_entropy(model(x), y)
            slopes = torch.autograd.grad(loss, parameters)
            norm = torch.stack([s.norm() for s in slopes]).norm() + 1e-12
            steps = [0.02 * slope / norm for slope in slopes]
            torch._foreach_add_([p.data for p in parameters], steps)
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            torch._foreach_sub_([p.data for p in parameters], steps)
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(_cases, "an input-gradient penalty: the loss's gradient by x is part of the loss itself")
def input_gradient_penalty() -> Training:
    model = nn.Sequential(
        nn.Linear(4, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(waves()), 150):
            probe = x.clone().requires_grad_()
            guess = model(probe)
            (slope,) = torch.autograd.grad(guess.sum(), probe, create_graph=True)
            fit = functional.mse_loss(guess, y)
            optimizer.zero_grad()
            (fit + 1e-3 * slope.square().sum(1).mean()).backward()
            optimizer.step()
            losses.append(fit.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(_cases, "Adadelta and its slow start at default settings; loss falls")
def adadelta() -> Training:
    model = relu_mlp(2, 64, 3, 2)
    return train(model, torch.optim.Adadelta(model.parameters()), spirals(), _cross_entropy, 150)


CASES: tuple[Case, ...] = tuple(_cases)
