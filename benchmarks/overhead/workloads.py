"""The trainings whose steps are timed: models written out here, random data, fixed seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Training:
    """A model, its optimizer and one batch, over and over.

    Attributes:
        loss_fn: mean loss of the model's output and the targets.
        loss: of the latest step.
    """

    model: nn.Module
    optimizer: Optimizer
    x: Tensor
    y: Tensor
    loss_fn: Loss = F.cross_entropy
    loss: Tensor | None = None

    def compute_gradients(self) -> None:
        """Forward and backward."""
        self.optimizer.zero_grad()
        self.loss = self.loss_fn(self.model(self.x), self.y)
        self.loss.backward()

    def step(self) -> None:
        """One training step."""
        self.compute_gradients()
        self.optimizer.step()


class Residual(nn.Module):
    """The basic block of a ResNet (He et al. 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu(self.norm1(self.conv1(x)))
        out: Tensor = self.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))
        return out


class Block(nn.Module):
    """A pre-norm transformer block with causal attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.act, self.down = (
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        inner: Tensor = self.down(self.act(self.up(self.norm2(x))))
        return x + inner


class GPT(nn.Module):
    """A small language model with learned positions."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, length: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.blocks(self.token(tokens) + self.position(places))
        logits: Tensor = self.head(self.norm(x))
        return logits.flatten(0, 1)


class Tagger(nn.Module):
    """A label for each time step from a two-layer LSTM."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x)
        logits: Tensor = self.head(states)
        return logits.flatten(0, 1)


def build_mlp(
    depth: int = 20, width: int = 512, batch: int = 256, act: type[nn.Module] = nn.Sigmoid
) -> Training:
    """``depth`` hidden layers of ``width`` units, ten classes."""
    hidden = (layer for _ in range(depth) for layer in (nn.Linear(width, width), act()))
    model = nn.Sequential(*hidden, nn.Linear(width, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return Training(model, optimizer, torch.randn(batch, width), torch.randint(10, (batch,)))


def build_resnet(batch: int = 64) -> Training:
    """ResNet-18 with the stem of the paper on images of 32 x 32."""
    stem = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    widths = (64, 64, 128, 256, 512)
    stages = [
        nn.Sequential(
            Residual(before, width, 1 if before == width else 2), Residual(width, width, 1)
        )
        for before, width in itertools.pairwise(widths)
    ]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    model = nn.Sequential(*stem, *stages, *tail)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return Training(model, optimizer, torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,)))


def build_gpt(
    vocabulary: int = 1024, width: int = 256, depth: int = 6, length: int = 128, batch: int = 8
) -> Training:
    """Next tokens of random text."""
    model = GPT(vocabulary, width, depth, width // 64, length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(vocabulary, (batch, length + 1))
    return Training(model, optimizer, tokens[:, :-1], tokens[:, 1:].flatten())


def build_lstm(
    features: int = 128, hidden: int = 256, length: int = 64, batch: int = 64
) -> Training:
    """A tag for each time step of random sequences."""
    model = Tagger(features, hidden, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    y = torch.randint(10, (batch * length,))
    return Training(model, optimizer, torch.randn(batch, length, features), y)


@dataclass(frozen=True)
class Workload:
    """A training by name, with what it is in words."""

    name: str
    title: str
    build: Callable[[], Training]

    def start(self) -> Training:
        """Built with the same weights and data every time."""
        torch.manual_seed(0)
        return self.build()


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("mlp", "20 x 512 sigmoid MLP, batch 256", build_mlp),
        Workload("resnet", "ResNet-18, 3 x 32 x 32, batch 64", build_resnet),
        Workload("gpt", "6-layer GPT, width 256, 8 x 128 tokens", build_gpt),
        Workload("lstm", "2-layer LSTM, width 256, 64 x 64 steps", build_lstm),
    )
}
