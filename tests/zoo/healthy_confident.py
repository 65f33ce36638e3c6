"""Sure of themselves for good reason: hand-written gates, output sigmoids and softmaxes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import blobs, healthy, train, waves

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class TanhGelu(nn.Module):
    """GELU by its tanh formula, written out."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3)))


@healthy(
    _cases,
    "GELU written with tanh on large activations: the inner tanh is saturated, as it should be",
)
def handwritten_gelu_large_activations() -> Training:
    model = nn.Sequential(
        nn.Linear(4, 64), TanhGelu(), nn.Linear(64, 64), TanhGelu(), nn.Linear(64, 1)
    )  # fmt: skip
    batches = [(8 * x, y) for x, y in waves()]
    return train(
        model, torch.optim.Adam(model.parameters(), lr=3e-3), batches, nn.MSELoss(), steps=200
    )


class Swish(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


@healthy(
    _cases, "swish written as x * sigmoid(beta x) on inputs of size 10: sure gates are no disease"
)
def handwritten_swish_large_activations() -> Training:
    layers: list[nn.Module] = [
        nn.Linear(16, 64),
        Swish(),
        nn.Linear(64, 64),
        Swish(),
        nn.Linear(64, 4),
    ]
    model = nn.Sequential(*layers)
    batches = [(10 * x, y) for x, y in blobs(spread=2.0)]
    return train(model, torch.optim.Adam(model.parameters(), lr=1e-3), batches, _cross_entropy, 120)


@healthy(
    _cases, "an output sigmoid with BCELoss that becomes sure of separable clouds: right to be"
)
def confident_output_sigmoid() -> Training:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
    batches = [(x, (y % 2).float()[:, None]) for x, y in blobs(classes=2, spread=0.5)]
    return train(
        model, torch.optim.Adam(model.parameters(), lr=0.02), batches, nn.BCELoss(), steps=200
    )


class SoftmaxNll(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        self.probability = nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.probability(self.body(x))


@healthy(
    _cases, "softmax in the model with log loss, converged to near one-hot: gradients fade, rightly"
)
def confident_output_softmax() -> Training:
    model = SoftmaxNll()

    def log_loss(probability: Tensor, target: Tensor) -> Tensor:
        return functional.nll_loss(torch.log(probability + 1e-9), target)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    return train(model, optimizer, blobs(spread=0.5), log_loss, steps=150)


class SoftmaxAttentionPool(nn.Module):
    """Hard-looking attention: the softmax picks the one marked item of each set."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
        self.value = nn.Linear(4, 1)

    def forward(self, items: Tensor) -> Tensor:
        weight = functional.softmax(self.score(items), dim=1)
        return (weight * self.value(items)).sum(1)


@healthy(
    _cases, "attention pooling whose softmax learns to be one-hot: a sure softmax is the solution"
)
def confident_attention_pooling() -> Training:
    items = torch.randn(256, 6, 4)
    marked = torch.randint(6, (256,))
    items[..., 3] = functional.one_hot(marked, 6).float()
    target = items[torch.arange(256), marked, :1]
    batches = list(zip(items.split(64), target.split(64), strict=True))
    model = SoftmaxAttentionPool()
    return train(
        model, torch.optim.Adam(model.parameters(), lr=0.01), batches, nn.MSELoss(), steps=200
    )


CASES: tuple[Case, ...] = tuple(_cases)
