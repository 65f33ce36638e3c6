"""Units that start on the flat arm of their activation: shifted, too sharp, too narrow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import sgd, supervised

mse = nn.functional.mse_loss


def shift_hidden(model: nn.Sequential, bias: float) -> nn.Sequential:
    """Fill the biases of all linear layers but the last."""
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    for layer in linear[:-1]:
        nn.init.constant_(layer.bias, bias)
    return model


def shifted_regressor(act: Callable[[], nn.Module], bias: float, fixed: bool = False) -> Training:
    torch.manual_seed(0)
    model = models.initialise(models.mlp([16, 40, 40, 1], act), models.xavier(1.4))
    shift_hidden(model, 0.0 if fixed else bias)
    return supervised(model, sgd(model, 0.03, momentum=0.9), data.regression(), mse, steps=120)


def shifted_classifier(act: Callable[[], nn.Module], bias: float, fixed: bool = False) -> Training:
    torch.manual_seed(1)
    model = models.initialise(models.mlp([64, 32, 32, 32, 10], act), models.xavier(0.8))
    shift_hidden(model, 0.0 if fixed else bias)
    return supervised(model, sgd(model, 0.1, momentum=0.9), data.digits(), steps=120)


class Probability(nn.Module):
    """Hidden ReLUs and one output sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 24)
        self.score = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.score(torch.relu(self.hidden(x))))


def saturated_output(fixed: bool = False) -> Training:
    """Weights from 0 to 1 meet grey values from 0 to 1: a probability of 1 - 1e-6 for everything.

    Its squared error against labels, most of which are 0, has the slope of the sigmoid there.
    """
    torch.manual_seed(2)
    x, y = data.raw_digits()
    model = Probability()
    if not fixed:
        nn.init.uniform_(model.hidden.weight, 0.0, 0.1)
        nn.init.uniform_(model.score.weight, 0.4, 0.8)
    target = (y == 3).float()[:, None]
    optimizer = sgd(model, 0.3, momentum=0.9)
    return supervised(model, optimizer, (x / 255.0, target), mse, steps=150)


class Kernels(nn.Module):
    """Radial basis functions around learnt centres, read by a linear layer of the same module."""

    def __init__(self, features: int, count: int, sharpness: float, out: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(count, features))
        self.head = nn.Linear(count, out)
        self.sharpness = sharpness

    def forward(self, x: Tensor) -> Tensor:
        distance = (x[:, None] - self.centres).square().sum(2)
        return self.head(torch.exp(-self.sharpness * distance))


def narrow_kernels(fixed: bool = False) -> Training:
    """Distances in 64 dimensions are about 128, so that kernels of width 2 do not respond."""
    torch.manual_seed(3)
    model = Kernels(64, 48, 1 / 128 if fixed else 1 / 8, 10)
    return supervised(model, sgd(model, 1.0, momentum=0.9), data.digits(), steps=150)


class Lookup(nn.Module):
    """The last token asks all tokens; without a skip the answer is all that the head sees."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.head = nn.Linear(width, 4)
        self.scale = scale

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        logits = self.scale * (self.query(h[:, -1:]) @ self.key(h).transpose(1, 2))
        return self.head((logits.softmax(2) @ self.value(h))[:, 0])


def _marked_tokens(count: int = 512, length: int = 8) -> tuple[Tensor, Tensor]:
    """Tokens 0 to 3 and one of 4 to 7, which is the answer plus 4; the last token, 8, asks."""
    source = torch.Generator().manual_seed(5)
    ids = torch.randint(4, (count, length + 1), generator=source)
    place = torch.randint(length, (count,), generator=source)
    answer = torch.randint(4, (count,), generator=source)
    ids[torch.arange(count), place] = answer + 4
    ids[:, -1] = 8
    return ids, answer


def sharp_attention(fixed: bool = False) -> Training:
    """Unit-normal projections of width 64 and no 1/sqrt(d): each row of the softmax is one-hot."""
    torch.manual_seed(4)
    model = Lookup(64, 1 / 8 if fixed else 1.0)
    for layer in (model.query, model.key):
        nn.init.normal_(layer.weight, std=1 / 8 if fixed else 1.0)
    return supervised(model, sgd(model, 0.03), _marked_tokens(), steps=150)


def normed_mlp(fixed: bool = False) -> Training:
    """Every LayerNorm starts with a shift of -6, which 32 standardised values cannot outweigh."""
    torch.manual_seed(5)
    model = models.mlp([64, 32, 32, 32, 10], norm=nn.LayerNorm)
    shift_norms(model, 0.0 if fixed else -6.0)
    return supervised(model, sgd(model, 0.05, momentum=0.9), data.digits(), steps=100)


def normed_cnn(fixed: bool = False) -> Training:
    torch.manual_seed(6)
    model = models.ConvNet(3, 10, norm=True, bias=False)
    shift_norms(model, 0.0 if fixed else -6.0)
    optimizer = sgd(model, 0.05, momentum=0.9)
    return supervised(model, optimizer, data.digit_images(), steps=100, batch_size=32)


def shift_norms(model: nn.Module, shift: float) -> None:
    for layer in model.modules():
        if isinstance(layer, (nn.LayerNorm, nn.BatchNorm2d)):
            nn.init.constant_(layer.bias, shift)


def _case(
    name: str,
    build: Callable[..., Training],
    kinds: tuple[str, ...],
    region: tuple[str, ...],
    why: str,
    also_allowed: tuple[str, ...] = (),
    cause: str = "saturation",
) -> Case:
    return Case(
        name, build, kinds, also_allowed, cause, region, 0, why, fixed=partial(build, fixed=True)
    )


BOTH = ("vanishing", "saturated")

CASES: tuple[Case, ...] = (
    _case("softplus_bias_minus_12", partial(shifted_regressor, nn.Softplus, -12.0), BOTH,
          ("fc[01]", "act[01]"), "softplus has the slope 6e-6 at -12"),
    _case("elu_bias_minus_12", partial(shifted_classifier, nn.ELU, -12.0), BOTH,
          ("fc[0-2]", "act[0-2]"), "ELU has the slope 6e-6 at -12"),
    _case("silu_bias_minus_12", partial(shifted_classifier, nn.SiLU, -12.0), BOTH,
          ("fc[0-2]", "act[0-2]"), "SiLU has the slope 7e-5 at -12"),
    _case("gelu_bias_minus_6", partial(shifted_regressor, nn.GELU, -6.0), BOTH,
          ("fc[01]", "act[01]"), "GELU has the slope 4e-8 at -6"),
    _case("output_sigmoid_pinned_mse", saturated_output, ("vanishing",), ("hidden", "score"),
          "an output held near 1 takes a squared error's gradient away", ("saturated",)),
    _case("rbf_kernels_too_narrow", narrow_kernels, ("vanishing",), ("centres", "head"),
          "every kernel lies in the flat tail of its exp: 1e-7 of a response, and of its slope",
          ("saturated",)),
    _case("attention_unit_normal_d64", sharp_attention, ("vanishing",), ("query", "key"),
          "a one-hot softmax has no slope; query and key cannot learn where to look",
          ("saturated",)),
    _case("dead_layernorm_shift", normed_mlp, ("dead",),
          ("fc[0-2]", "norm[0-2]", "act[0-2]"), "LayerNorm ends at -6 in front of every ReLU",
          ("vanishing",), "dead_units"),
    _case("dead_batchnorm_shift_cnn", normed_cnn, ("dead",), ("features.*",),
          "BatchNorm ends at -6 in front of every ReLU", ("vanishing",), "dead_units"),
)  # fmt: skip
