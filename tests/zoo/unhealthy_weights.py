"""Vanishing because weights, or a constant factor, are too small: the activations are innocent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import sgd, supervised

mse = nn.functional.mse_loss
cross_entropy = nn.functional.cross_entropy


def relu_mlp(depth: int, std: float, fixed: bool = False) -> Training:
    torch.manual_seed(0)
    model = models.mlp([64] + [40] * (depth - 1) + [10])
    models.initialise(model, models.he if fixed else models.normal(std))
    return supervised(model, sgd(model, 0.03), data.digits(), steps=120)


def tanh_mlp(fixed: bool = False) -> Training:
    torch.manual_seed(1)
    model = models.ListMlp([2] + [24] * 8 + [3], torch.tanh)
    models.initialise(model, models.xavier(5 / 3) if fixed else models.normal(0.01))
    return supervised(model, sgd(model, 0.05), data.spirals(), steps=200)


def linear_net(fixed: bool = False) -> Training:
    """A deep linear net: no activation that could be blamed."""
    torch.manual_seed(2)
    model = models.mlp([16] + [24] * 9 + [1], nn.Identity, bias=False)
    models.initialise(model, models.xavier() if fixed else models.normal(0.03))
    return supervised(model, sgd(model, 0.003), data.regression(), mse, steps=250)


def gelu_momentum(fixed: bool = False) -> Training:
    torch.manual_seed(3)
    model = models.mlp([64] + [32] * 9 + [10], nn.GELU)
    models.initialise(model, models.xavier(1.5) if fixed else models.normal(0.02))
    optimizer = sgd(model, 0.02, momentum=0.9, weight_decay=1e-4)
    return supervised(model, optimizer, data.digits(), steps=120)


def small_cnn(fixed: bool = False) -> Training:
    torch.manual_seed(4)
    model = models.ConvNet(8, 10)
    models.initialise(model, models.he if fixed else models.normal(0.01))
    optimizer = sgd(model, 0.03, momentum=0.9)
    return supervised(model, optimizer, data.digit_images(), steps=150, batch_size=24)


def one_bad_layer(fixed: bool = False) -> Training:
    """A frozen projection in wrong units; the head learns from a side input meanwhile."""
    torch.manual_seed(5)
    trunk = models.initialise(models.mlp([48] + [32] * 7, nn.ReLU), models.he)
    model = SideInput(trunk)
    projection = trunk.get_submodule("fc4").requires_grad_(False)
    if not fixed:
        with torch.no_grad():
            projection.weight.mul_(1e-4)
    return supervised(model, sgd(model, 0.05), data.digits(), steps=150)


class SideInput(nn.Module):
    """The trunk sees three quarters of the features, the head also the last quarter."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.classifier = nn.Linear(32 + 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.cat([self.trunk(x[:, :48]), x[:, 48:]], dim=1))


class ScaledBlocks(nn.Module):
    """Someone multiplies by a small constant between blocks 'for stability'."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(64 if i == 0 else 32, 32), nn.ReLU()) for i in range(6)
        )
        self.head = nn.Linear(32, 10)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.factor * block(x)
        return self.head(x)


def constant_factor(fixed: bool = False) -> Training:
    torch.manual_seed(6)
    model = ScaledBlocks(1.0 if fixed else 0.01)
    models.initialise(model, models.he)
    return supervised(model, sgd(model, 0.05), data.digits(), steps=120)


def next_token(output: Tensor, ids: Tensor) -> Tensor:
    return cross_entropy(output.flatten(0, 1), ids.flatten())


def _language() -> tuple[Tensor, Tensor]:
    ids = data.tokens()
    return ids[:, :-1], ids[:, 1:]


def bare_transformer(fixed: bool = False) -> Training:
    """No norm, no skip, and std 0.02 in narrow layers; the fix is the usual pre-norm block."""
    torch.manual_seed(7)
    norm = "pre" if fixed else "none"
    model = models.LanguageModel(depth=3, norm=norm, skip=fixed)
    if not fixed:
        models.initialise(model.blocks, models.normal(0.02))
    optimizer = sgd(model, 0.2, momentum=0.9)
    return supervised(model, optimizer, _language(), next_token, steps=100, batch_size=24)


class ShrunkEncoder(nn.Module):
    """The encoder's code enters the classifier times a factor, beside a few raw features."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(40, 32), nn.ReLU(), nn.Linear(32, 10))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(x) * self.factor
        return self.classifier(torch.cat([code, x[:, 16:24]], dim=1))


def shrunk_encoder(fixed: bool = False) -> Training:
    torch.manual_seed(8)
    model = ShrunkEncoder(1.0 if fixed else 1e-5)
    return supervised(model, sgd(model, 0.1, momentum=0.9), data.digits(), steps=120)


def adam_below_eps(fixed: bool = False) -> Training:
    """Ten layers of std 0.01: the early gradients' RMS is far below AdamW's usual eps."""
    torch.manual_seed(9)
    model = models.mlp([64] + [32] * 9 + [10])
    models.initialise(model, models.he if fixed else models.normal(0.01))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-8)
    return supervised(model, optimizer, data.digits(), steps=120)


def rmsprop_large_eps(fixed: bool = False) -> Training:
    torch.manual_seed(10)
    model = models.mlp([16] + [32] * 7 + [1], nn.Tanh)
    models.initialise(model, models.xavier(1.3) if fixed else models.normal(0.02))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, eps=1e-2)
    return supervised(model, optimizer, data.regression(), mse, steps=200)


class BareParameters(nn.Module):
    """Weights held as a ParameterList, matmuls written out, no submodule to hook."""

    def __init__(self, std: float | None) -> None:
        super().__init__()
        shapes = [(64, 32)] + [(32, 32)] * 6 + [(32, 10)]
        scale = [std if std is not None else (2 / rows) ** 0.5 for rows, _ in shapes]
        self.weights = nn.ParameterList(
            nn.Parameter(s * torch.randn(shape)) for s, shape in zip(scale, shapes, strict=True)
        )
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights[:-1]:
            x = torch.relu(x @ weight)
        return x @ self.weights[-1] + self.bias


def bare_parameters(fixed: bool = False) -> Training:
    torch.manual_seed(11)
    model = BareParameters(None if fixed else 0.02)
    return supervised(model, sgd(model, 0.03), data.digits(), steps=120)


def silu_large_batch(fixed: bool = False) -> Training:
    torch.manual_seed(12)
    model = models.mlp([64] + [32] * 7 + [10], nn.SiLU)
    if not fixed:
        models.initialise(model, models.normal(0.02))
    else:
        models.initialise(model, models.xavier(1.8))
    return supervised(model, sgd(model, 0.1), data.digits(), steps=150, batch_size=128)


class Scale(nn.Module):
    """A constant factor, kept as a buffer."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def one_scaled_conv(fixed: bool = False) -> Training:
    """A fixed factor of 1e-4 behind conv3 cuts off what lies below."""
    torch.manual_seed(13)
    model = models.ConvNet(6, 10, norm=fixed)
    models.initialise(model, models.he)
    model.features.act3 = nn.Sequential(nn.ReLU(), Scale(1.0 if fixed else 1e-4))
    optimizer = sgd(model, 0.05, momentum=0.9)
    return supervised(model, optimizer, data.digit_images(), steps=120, batch_size=24)


def _case(name: str, build: Callable[..., Training], region: tuple[str, ...], why: str) -> Case:
    return Case(
        name, build, ("vanishing",), cause="weight_scale", region=region, why=why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _case("relu_mlp_std001_sgd", partial(relu_mlp, 8, 0.01), ("fc[0-6]", "act[0-6]"),
          "std 0.01 in width 40 multiplies the gradient by 0.05 per layer"),
    _case("relu_mlp_std0001_sgd", partial(relu_mlp, 5, 0.001), ("fc[0-3]", "act[0-3]"),
          "std 0.001: already four layers let nothing through"),
    _case("tanh_std001_functional", tanh_mlp, ("layers.[0-7]",), "tanh is linear at std 0.01"),
    _case("deep_linear_std003", linear_net, ("fc[0-8]", "act[0-8]"), "no activation at all"),
    _case("gelu_std002_momentum", gelu_momentum, ("fc[0-8]", "act[0-8]"),
          "std 0.02 in width 32; momentum and weight decay do not help"),
    _case("cnn_std001", small_cnn, ("features.*",), "3x3x10 kernels of std 0.01"),
    _case("one_bad_layer_side_input", one_bad_layer, ("trunk.fc[0-3]", "trunk.act[0-3]"),
          "fc4 is frozen and was scaled by 1e-4; the classifier learns from the side input"),
    _case("constant_factor_001", constant_factor, ("blocks.*",),
          "each block's output is multiplied by 0.01"),
    _case("transformer_no_norm_std002", bare_transformer, ("tok_emb", "pos_emb", "blocks.*"),
          "no norm and no skip: std 0.02 shrinks everything"),
    _case("encoder_times_1e5", shrunk_encoder, ("encoder.*",), "the code is multiplied by 1e-5"),
    _case("adamw_below_eps", adam_below_eps, ("fc[0-5]", "act[0-5]"),
          "the gradient's RMS is so far below eps that AdamW does not move"),
    _case("rmsprop_large_eps", rmsprop_large_eps, ("fc[0-5]", "act[0-5]"),
          "eps 1e-2 takes RMSprop's scale invariance away"),
    _case("bare_parameters_std002", bare_parameters, ("weights.[0-6]",),
          "no module to hook: only the parameters show it"),
    _case("silu_std002_batch128", silu_large_batch, ("fc[0-6]", "act[0-6]"),
          "SiLU halves too, but std 0.02 in width 32 takes a factor 0.11"),
    _case("one_scaled_conv", one_scaled_conv, ("features.conv[0-3]", "features.act[0-3]"),
          "a buffer of 1e-4 behind conv3 cuts off what lies below"),
)  # fmt: skip
