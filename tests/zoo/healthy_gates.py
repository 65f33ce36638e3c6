"""Gates: sigmoids and tanhs that are right to be sure, and activations written by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import (
    glyphs,
    healthy,
    markov,
    spirals,
    tally,
    token_loss,
    train,
)

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class SqueezeExcite(nn.Module):
    """A convolution block whose channels are weighted by a small sigmoid-gated network."""

    def __init__(self, channels: int, bias: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.squeeze = nn.Linear(channels, channels // 4)
        self.excite = nn.Linear(channels // 4, channels)
        nn.init.constant_(self.excite.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norm(self.conv(x)))
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(h.mean((2, 3))))))
        return x + h * gate[:, :, None, None]


def _se_net(bias: float) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    blocks = [SqueezeExcite(16, bias) for _ in range(3)]
    return nn.Sequential(stem, *blocks, nn.Flatten(), nn.Linear(256, 10))


@healthy(_cases, "squeeze-excite: the gate's path is a side path with a small gradient; loss falls")
def squeeze_excite() -> Training:
    model = _se_net(bias=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=80)


@healthy(
    _cases, "squeeze-excite whose gates start open (bias 5): sigmoids near 1 pass everything on"
)
def squeeze_excite_open_gates() -> Training:
    model = _se_net(bias=5.0)
    return train(
        model,
        torch.optim.AdamW(model.parameters(), 3e-3),
        glyphs(batch_size=32),
        _cross_entropy,
        80,
    )


class GluBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.glu(self.project(x), dim=-1)


@healthy(
    _cases, "gated linear units in residual blocks: functional.glu holds the sigmoid; loss falls"
)
def glu_mlp() -> Training:
    model = nn.Sequential(nn.Linear(2, 32), *(GluBlock(32) for _ in range(4)), nn.Linear(32, 2))
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), spirals(), _cross_entropy, 100
    )


class GatedConvNet(nn.Module):
    """Gated causal convolutions, tanh times sigmoid, as in WaveNet."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, channels)
        self.filters = nn.ModuleList(
            nn.Conv1d(channels, channels, 2, dilation=2**k) for k in range(3)
        )
        self.gates = nn.ModuleList(
            nn.Conv1d(channels, channels, 2, dilation=2**k) for k in range(3)
        )
        self.head = nn.Linear(channels, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens).transpose(1, 2)
        for k, (signal, gate) in enumerate(zip(self.filters, self.gates, strict=True)):
            padded = functional.pad(h, (2**k, 0))
            h = h + torch.tanh(signal(padded)) * torch.sigmoid(gate(padded))
        return self.head(h.transpose(1, 2))


@healthy(
    _cases, "WaveNet-like gated convolutions over tokens: tanh times sigmoid with skips; loss falls"
)
def wavenet_gates() -> Training:
    model = GatedConvNet()
    return train(
        model, torch.optim.Adam(model.parameters(), lr=0.01), markov(), token_loss, steps=80
    )


class Highway(nn.Module):
    """Carry bias -3: the gate starts nearly closed, as the paper recommends."""

    def __init__(self, width: int, bias: float = -3.0) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * torch.tanh(self.transform(x)) + (1 - gate) * x


@healthy(
    _cases, "a 12-layer highway net with gates at 5%: each layer gets little, the carry path all"
)
def highway_network() -> Training:
    model = nn.Sequential(nn.Linear(2, 32), *(Highway(32) for _ in range(12)), nn.Linear(32, 2))
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), spirals(), _cross_entropy, 100
    )


class HandWrittenGru(nn.Module):
    def __init__(self, features: int = 3, width: int = 24) -> None:
        super().__init__()
        self.gates = nn.Linear(features + width, 2 * width)
        self.candidate = nn.Linear(features + width, width)
        self.head = nn.Linear(width, 2)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.width)
        for step in x.unbind(1):
            reset, update = torch.sigmoid(self.gates(torch.cat([step, h], 1))).chunk(2, dim=1)
            new = torch.tanh(self.candidate(torch.cat([step, reset * h], 1)))
            h = (1 - update) * h + update * new
        return self.head(h)


@healthy(
    _cases, "a GRU written by hand over 10 steps: sigmoid gates multiply at every step; loss falls"
)
def handwritten_gru() -> Training:
    model = HandWrittenGru()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
    return train(model, optimizer, tally(length=10), _cross_entropy, steps=100)


class SwiGlu(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        return x + self.down(functional.silu(self.gate(n)) * self.up(n))


@healthy(_cases, "SwiGLU feed-forward blocks with pre-norm, as in Llama; loss falls")
def swiglu_blocks() -> Training:
    model = nn.Sequential(nn.Linear(2, 32), *(SwiGlu(32, 64) for _ in range(6)), nn.Linear(32, 2))
    return train(
        model, torch.optim.AdamW(model.parameters(), lr=3e-3), spirals(), _cross_entropy, 80
    )


class SigmoidAttention(nn.Module):
    """Attention output multiplied by a sigmoid gate of the query's token."""

    def __init__(self, vocabulary: int = 16, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.qkv, self.gate = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.out, self.head = nn.Linear(width, width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens)
        query, key, value = self.qkv(h)[:, None].chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)[:, 0]
        return self.head(h + self.out(mixed * torch.sigmoid(self.gate(h))))


@healthy(_cases, "attention with a sigmoid output gate: the gate's gradient is small; loss falls")
def sigmoid_gated_attention() -> Training:
    model = SigmoidAttention()
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), markov(), token_loss, steps=80
    )


CASES: tuple[Case, ...] = tuple(_cases)
