"""Parts that wait for their turn: alternation, warm-up of a head, late experts, late losses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_models import relu_mlp
from tests.zoo.healthy_tasks import Batch, blobs, glyphs, healthy, spirals

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class BodyAndHead(nn.Module):
    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def take_turns(
    model: nn.Module,
    batches: list[Batch],
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    choose: Callable[[int], tuple[torch.optim.Optimizer, ...]],
    optimizers: tuple[torch.optim.Optimizer, ...],
    steps: int,
) -> Training:
    """A loop in which `choose` says which optimizers step."""

    def run() -> list[float]:
        losses = []
        for step, (x, y) in enumerate(islice(cycle(batches), steps)):
            chosen = choose(step)
            for optimizer in chosen:
                optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            for optimizer in chosen:
                optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=optimizers, run=run)


@healthy(_cases, "body and head in turns of 20 steps, each by its own optimizer; the head is last")
def body_and_head_in_turns() -> Training:
    body = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
    model = BodyAndHead(body, nn.Linear(48, 2))
    optimizers = tuple(torch.optim.Adam(part.parameters(), lr=0.01) for part in model.children())

    def choose(step: int) -> tuple[torch.optim.Optimizer, ...]:
        for optimizer in optimizers:
            optimizer.zero_grad()
        return (optimizers[step // 20 % 2],)

    return take_turns(model, spirals(), _cross_entropy, choose, optimizers, steps=200)


@healthy(
    _cases, "a new head is warmed up alone for 40 steps, by an optimizer of its own; then both"
)
def head_warmed_up_alone() -> Training:
    body = nn.Sequential(nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1))
    model = BodyAndHead(nn.Sequential(body, nn.ReLU(), nn.Flatten()), nn.Linear(64, 10))
    warm_up = torch.optim.SGD(model.head.parameters(), lr=0.05)
    both = torch.optim.Adam(model.parameters(), lr=3e-3)

    def choose(step: int) -> tuple[torch.optim.Optimizer, ...]:
        return (warm_up if step < 40 else both,)

    return take_turns(model, glyphs(), _cross_entropy, choose, (warm_up, both), steps=140)


class MaskedExperts(nn.Module):
    """All experts see all samples, and a hard top-1 mask decides whose answer counts."""

    def __init__(self, features: int, experts: int, outputs: int) -> None:
        super().__init__()
        self.router = nn.Linear(features, experts)
        self.experts = nn.ModuleList(relu_mlp(features, 24, 2, outputs) for _ in range(experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        probability = self.router(x).softmax(1)
        mask = functional.one_hot(probability.argmax(1), probability.shape[1])
        answers = torch.stack([expert(x) for expert in self.experts], dim=1)
        balance = (mask.float().mean(0) * probability.mean(0)).sum() * probability.shape[1]
        return ((mask * probability)[..., None] * answers).sum(1), balance


@healthy(_cases, "a masked expert that is first picked after 40 steps: zeros until its turn comes")
def expert_picked_late() -> Training:
    model = MaskedExperts(16, 4, 4)
    with torch.no_grad():
        model.router.bias[3] = -9.0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(blobs(spread=1.5)), 160):
            optimizer.zero_grad()
            logits, balance = model(x)
            loss = functional.cross_entropy(logits, y)
            (loss + 0.3 * balance).backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


class Described(nn.Module):
    """A classifier and a decoder on one code."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Sequential(nn.Linear(16, 6), nn.Tanh())
        self.classify = nn.Linear(6, 4)
        self.decode = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.code(x)
        return self.classify(code), self.decode(code)


@healthy(_cases, "an auxiliary loss of weight 0 for 25 steps, then ramped up: both losses fall")
def auxiliary_loss_ramped_up() -> Training:
    model = Described()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def run() -> list[float]:
        losses = []
        for step, (x, y) in enumerate(islice(cycle(blobs(spread=0.7)), 150)):
            weight = min(max(step - 25, 0) / 25, 1.0)
            optimizer.zero_grad()
            logits, drawn = model(x)
            main, side = functional.cross_entropy(logits, y), functional.mse_loss(drawn, x)
            (main + weight * side).backward()
            optimizer.step()
            losses.append((main + side).item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


CASES: tuple[Case, ...] = tuple(_cases)
