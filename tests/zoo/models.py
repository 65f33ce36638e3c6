"""Small hand-written model builders in the styles that people use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]
Initialiser = Callable[[Tensor], object]


def initialise(module: nn.Module, weight: Initialiser, bias: float | None = 0.0) -> nn.Module:
    """Apply `weight` to every matrix or kernel and fill biases; returns the module."""
    for name, parameter in module.named_parameters():
        with torch.no_grad():
            if parameter.dim() >= 2:
                weight(parameter)
            elif bias is not None and name.endswith("bias"):
                parameter.fill_(bias)
    return module


def normal(std: float) -> Initialiser:
    return lambda tensor: nn.init.normal_(tensor, std=std)


def xavier(gain: float = 1.0) -> Initialiser:
    return lambda tensor: nn.init.xavier_normal_(tensor, gain=gain)


def he(tensor: Tensor) -> Tensor:
    return nn.init.kaiming_normal_(tensor, nonlinearity="relu")


def mlp(
    sizes: Sequence[int],
    act: Callable[[], nn.Module] = nn.ReLU,
    *,
    bias: bool = True,
    norm: Callable[[int], nn.Module] | None = None,
) -> nn.Sequential:
    """A Sequential of fc0, norm0, act0, fc1, ...; no activation after the last layer."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    last = len(sizes) - 2
    for index, (wide, out) in enumerate(pairwise(sizes)):
        layers[f"fc{index}"] = nn.Linear(wide, out, bias=bias)
        if index < last:
            if norm is not None:
                layers[f"norm{index}"] = norm(out)
            layers[f"act{index}"] = act()
    return nn.Sequential(layers)


class ListMlp(nn.Module):
    """A ModuleList of linear layers and a functional activation."""

    def __init__(self, sizes: Sequence[int], act: Activation, bias: bool = True) -> None:
        super().__init__()
        pairs = pairwise(sizes)
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in pairs)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.act(layer(x))
        return self.layers[-1](x)


class ConvNet(nn.Module):
    """3x3 convolutions over 8x8 images, a pooling in the middle, global pooling, a head."""

    def __init__(
        self,
        depth: int,
        width: int = 12,
        act: Callable[[], nn.Module] = nn.ReLU,
        norm: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for index in range(depth):
            wide = 1 if index == 0 else width
            self.features.add_module(f"conv{index}", nn.Conv2d(wide, width, 3, 1, 1, bias=bias))
            if norm:
                self.features.add_module(f"bn{index}", nn.BatchNorm2d(width))
            self.features.add_module(f"act{index}", act())
            if index == depth // 2:
                self.features.add_module("pool", nn.AvgPool2d(2))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class ResidualMlp(nn.Module):
    """stem, then x + scale * branch(x) with an optional norm before the branch, then head."""

    def __init__(
        self, features: int, width: int, depth: int, out: int, norm: bool = True, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width) if norm else nn.Identity(),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, width),
            )
            for _ in range(depth)
        )
        self.head = nn.Linear(width, out)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + self.scale * block(x)
        return self.head(x)


class BasicBlock(nn.Module):
    """The two-convolution block of a ResNet; `inplace` activations as torchvision has them."""

    def __init__(self, width: int, zero_init: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        if zero_init:
            nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(x + self.bn2(self.conv2(out)))


class ResNet(nn.Module):
    """A small ResNet for 8x8 digits."""

    def __init__(self, width: int = 12, depth: int = 3, zero_init: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(*(BasicBlock(width, zero_init) for _ in range(depth)))
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer1(x).mean((2, 3)))


class Recurrent(nn.Module):
    """Any of nn.RNN, nn.LSTM, nn.GRU with a linear head on the last step."""

    def __init__(self, rnn: nn.RNNBase, out: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = nn.Linear(rnn.hidden_size, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class CellLoop(nn.Module):
    """An RNNCell or GRUCell called in a Python loop over the steps."""

    def __init__(self, cell: nn.RNNCellBase, out: int) -> None:
        super().__init__()
        self.cell = cell
        self.readout = nn.Linear(cell.hidden_size, out)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for step in range(x.shape[1]):
            hidden = self.cell(x[:, step], hidden)
        return self.readout(hidden)


class Attention(nn.Module):
    """Self-attention written out, with separate query, key and value projections."""

    def __init__(self, width: int, heads: int = 2, causal: bool = False) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = (
            f(x).view(n, t, self.heads, d // self.heads).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(n, t, d))


class EncoderBlock(nn.Module):
    """A transformer block: pre-norm, post-norm, or no norm and optionally no skip."""

    def __init__(self, width: int, norm: str = "pre", skip: bool = True) -> None:
        super().__init__()
        self.attn = Attention(width, causal=True)
        self.ff = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norm1 = nn.Identity() if norm == "none" else nn.LayerNorm(width)
        self.norm2 = nn.Identity() if norm == "none" else nn.LayerNorm(width)
        self.pre, self.skip = norm == "pre", float(skip)

    def forward(self, x: Tensor) -> Tensor:
        if self.pre:
            x = self.skip * x + self.attn(self.norm1(x))
            return self.skip * x + self.ff(self.norm2(x))
        x = self.norm1(self.skip * x + self.attn(x))
        return self.norm2(self.skip * x + self.ff(x))


class LanguageModel(nn.Module):
    """Token and position embeddings, encoder blocks, a head that may be tied."""

    def __init__(
        self,
        vocabulary: int = 32,
        width: int = 24,
        depth: int = 3,
        length: int = 16,
        norm: str = "pre",
        skip: bool = True,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(vocabulary, width)
        self.pos_emb = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(EncoderBlock(width, norm, skip) for _ in range(depth))
        self.ln_f = nn.Identity() if norm == "none" else nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.lm_head.weight = self.tok_emb.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tok_emb(ids) + self.pos_emb[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class TwoTower(nn.Module):
    """Two towers over two halves of the features, concatenated before a head."""

    def __init__(self, left: nn.Module, right: nn.Module, joint: int, out: int) -> None:
        super().__init__()
        self.left, self.right = left, right
        self.head = nn.Linear(joint, out)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return self.head(torch.cat([self.left(a), self.right(b)], dim=1))


class Autoencoder(nn.Module):
    """encoder then decoder; the output has the input's shape."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class MixtureOfExperts(nn.Module):
    """Top-1 routing over small experts, weighted by the router's probability."""

    def __init__(self, features: int, width: int, experts: int, out: int) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(mlp([width, width, width]) for _ in range(experts))
        self.head = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        probability, chosen = self.router(x).softmax(1).max(1)
        mixed = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index).nonzero()[:, 0]
            if len(rows):
                mixed = mixed.index_add(0, rows, probability[rows, None] * expert(x[rows]))
        return self.head(x + mixed)
