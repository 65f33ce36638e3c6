"""Vanishing in long chains without skips, where neither weights nor activations stand out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import sgd, supervised

mse = nn.functional.mse_loss


class Skipped(nn.Module):
    """The remedy of this file: the same block with a skip around it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.block(x)


class Chain(nn.Module):
    """stem, `depth` blocks of linear and activation in a ModuleList, head."""

    def __init__(
        self,
        sizes: tuple[int, int, int],
        depth: int,
        act: Callable[[], nn.Module],
        skip: bool = False,
    ) -> None:
        super().__init__()
        features, width, out = sizes
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            block = nn.Sequential(nn.Linear(width, width), act())
            self.blocks.append(Skipped(block) if skip else block)
        self.head = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def scatter_biases(model: nn.Module, std: float) -> None:
    """Biases off zero, so that an activation works a little away from its steepest point."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=std)


def chain(
    depth: int,
    act: Callable[[], nn.Module],
    gain: float,
    bias_std: float = 0.0,
    fixed: bool = False,
) -> Training:
    torch.manual_seed(0)
    model = Chain((64, 32, 10), depth, act, skip=fixed)
    models.initialise(model, models.xavier(1.0 if fixed else gain))
    scatter_biases(model, bias_std)
    return supervised(model, sgd(model, 0.02), data.digits(), steps=70 if depth > 40 else 90)


def regression_chain(fixed: bool = False) -> Training:
    torch.manual_seed(1)
    model = Chain((16, 24, 1), 45, nn.ELU, skip=fixed)
    models.initialise(model, models.xavier(0.5 if fixed else 0.88))
    scatter_biases(model, 0.3)
    return supervised(model, sgd(model, 0.01), data.regression(), mse, steps=100)


class DeepConv(nn.Module):
    """A VGG-like stack of narrow convolutions without norm or skip."""

    def __init__(self, depth: int, width: int, skip: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.fc = nn.Linear(width, 10)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(self.stem(x), 2)
        for conv in self.convs:
            y = torch.tanh(conv(x))
            x = x + 0.3 * y if self.skip else y
        return self.fc(x.mean((2, 3)))


def deep_conv(fixed: bool = False) -> Training:
    torch.manual_seed(2)
    model = DeepConv(40, 8, skip=fixed)
    models.initialise(model, models.xavier(0.97))
    scatter_biases(model, 0.3)
    optimizer = sgd(model, 0.03, momentum=0.9 if fixed else 0.0)
    return supervised(model, optimizer, data.digit_images(), steps=80, batch_size=16)


EARLY = ("stem", "blocks.?", "blocks.[12]?")


def _case(name: str, build: Callable[..., Training], region: tuple[str, ...], why: str) -> Case:
    return Case(
        name, build, ("vanishing",), cause="depth", region=region, why=why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _case("tanh_chain_50", partial(chain, 50, nn.Tanh, 0.92, 0.4), EARLY,
          "weights and tanh each take under a tenth per layer; fifty layers take 1e-4"),
    _case("relu_chain_50", partial(chain, 50, nn.ReLU, 1.2), EARLY,
          "15% short of He's gain, fifty times over, and no skip"),
    _case("gelu_chain_40", partial(chain, 40, nn.GELU, 1.3), EARLY,
          "a gain fit for shallow nets leaves 0.8 per layer over forty layers"),
    _case("silu_chain_40", partial(chain, 40, nn.SiLU, 1.35), EARLY,
          "0.75 per layer over forty layers"),
    _case("softsign_chain_55", partial(chain, 55, nn.Softsign, 0.93, 0.1), EARLY,
          "Xavier's gain and softsign's slope are both right to a few percent"),
    _case("leaky_relu_chain_60", partial(chain, 60, partial(nn.LeakyReLU, 0.2), 1.15), EARLY,
          "a leaky slope and gain 1.15 make 0.8 per layer over sixty layers"),
    _case("elu_chain_45_regression", regression_chain, EARLY,
          "ELU and weights of gain 0.88 over forty-five layers"),
    _case("tanh_conv_stack_40", deep_conv, ("stem", "convs.?", "convs.[12]?"),
          "padding, tanh and kernels each take a few percent, forty times over"),
)  # fmt: skip
