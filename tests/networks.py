"""Small trainings that several tests share: each call builds the same one again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, ...]
Loss = Callable[[nn.Module, Batch], Tensor]


def classify(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of one batch."""
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


@dataclass
class Network:
    """A model with batches, an optimizer and a loss; made by one of the functions below.

    Attributes:
        model, batches, optimizer, loss: what a plain loop needs.
        losses: one value per step made.
    """

    model: nn.Module
    batches: list[Batch]
    optimizer: torch.optim.Optimizer
    loss: Loss = classify
    losses: list[Tensor] = field(default_factory=list)

    def train(self, steps: int) -> Network:
        """An ordinary loop."""
        for index in range(steps):
            self.optimizer.zero_grad()
            loss = self.loss(self.model, self.batches[index % len(self.batches)])
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.detach().clone())
        return self

    def train_and_break(self, steps: int) -> None:
        """An ordinary loop with an error of its own at the end."""
        self.train(steps)
        raise KeyError("theirs")


def make_batches(*shape: int, classes: int = 4, size: int = 16, count: int = 4) -> list[Batch]:
    """Random inputs of a shape with random classes."""
    pairs: Iterator[Batch] = (
        (torch.randn(size, *shape), torch.randint(classes, (size,))) for _ in range(count)
    )
    return list(pairs)


def build_chain(
    activation: type[nn.Module], depth: int = 12, width: int = 16, classes: int = 4
) -> nn.Sequential:
    """Linear layers at PyTorch's default initialisation, He's for ReLU."""
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        linear = nn.Linear(width, width)
        if activation is nn.ReLU:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, activation()]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def make_mlp(activation: type[nn.Module] = nn.ReLU, depth: int = 6) -> Network:
    """Healthy with ReLU; with twelve sigmoids its gradient vanishes."""
    torch.manual_seed(0)
    model = build_chain(activation, depth)
    return Network(model, make_batches(16), torch.optim.SGD(model.parameters(), 0.05, 0.9))


def make_unhealthy_mlp() -> Network:
    """Twelve layers of sigmoids."""
    return make_mlp(nn.Sigmoid, 12)


def make_cnn() -> Network:
    """BatchNorm, dropout and in-place ReLU."""
    torch.manual_seed(0)
    blocks = [
        [
            nn.Conv2d(inputs, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
        ]
        for inputs in (3, 8, 8)
    ]
    layers = [layer for block in blocks for layer in block]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return Network(model, make_batches(3, 8, 8), torch.optim.AdamW(model.parameters(), 1e-3))


class LastState(nn.Module):
    """A classifier on an LSTM's last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 12, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def make_lstm() -> Network:
    """Two layers with dropout between them."""
    torch.manual_seed(0)
    model = LastState()
    return Network(model, make_batches(7, 6), torch.optim.Adam(model.parameters(), 1e-2))


class TinyTransformer(nn.Module):
    """An encoder with dropout, and a mean over time."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


def make_transformer() -> Network:
    """Two encoder layers."""
    torch.manual_seed(0)
    model = TinyTransformer()
    return Network(model, make_batches(5, 16), torch.optim.AdamW(model.parameters(), 1e-3))


NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": make_mlp,
    "cnn": make_cnn,
    "lstm": make_lstm,
    "transformer": make_transformer,
}
