"""Normalised networks: biases whose gradient is zero in theory, and weights behind a norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import glyphs, healthy, spirals, train, waves

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


def _conv_block(channels_in: int, channels: int, norm: nn.Module) -> list[nn.Module]:
    return [nn.Conv2d(channels_in, channels, 3, padding=1), norm, nn.ReLU(inplace=True)]


@healthy(
    _cases, "the convolutions' biases are cancelled by BatchNorm; the weights learn the glyphs"
)
def conv_bias_before_batchnorm() -> Training:
    model = nn.Sequential(
        *_conv_block(1, 8, nn.BatchNorm2d(8)),
        *_conv_block(8, 16, nn.BatchNorm2d(16)),
        nn.MaxPool2d(2),
        *_conv_block(16, 16, nn.BatchNorm2d(16)),
        nn.Flatten(),
        nn.Linear(16 * 16, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=80)


@healthy(
    _cases, "linear biases before BatchNorm1d never move; the spirals are learned all the same"
)
def linear_bias_before_batchnorm() -> Training:
    layers: list[nn.Module] = []
    for width_in in (2, 48, 48, 48):
        layers += [nn.Linear(width_in, 48), nn.BatchNorm1d(48), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(48, 2))
    return train(model, torch.optim.AdamW(model.parameters(), lr=3e-3), spirals(), _cross_entropy)


@healthy(_cases, "as above under plain SGD, where a zero gradient means a bias that stays for ever")
def linear_bias_before_batchnorm_sgd() -> Training:
    layers: list[nn.Module] = []
    for width_in in (2, 64, 64):
        layers += [nn.Linear(width_in, 64), nn.BatchNorm1d(64), nn.LeakyReLU(0.1)]
    model = nn.Sequential(*layers, nn.Linear(64, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    return train(model, optimizer, spirals(), _cross_entropy, steps=160)


@healthy(
    _cases, "deep sigmoid net whose BatchNorms restore the gradient: the frozen early third fails"
)
def sigmoid_net_with_batchnorm() -> Training:
    layers: list[nn.Module] = []
    for width_in in (2, 48, 48, 48, 48, 48):
        layers += [nn.Linear(width_in, 48), nn.BatchNorm1d(48), nn.Sigmoid()]
    model = nn.Sequential(*layers, nn.Linear(48, 2))
    return train(
        model, torch.optim.Adam(model.parameters(), lr=0.01), spirals(), _cross_entropy, 150
    )


@healthy(
    _cases, "GroupNorm after every convolution: mean-free groups damp the bias gradient by design"
)
def conv_groupnorm() -> Training:
    model = nn.Sequential(
        *_conv_block(1, 16, nn.GroupNorm(4, 16)),
        *_conv_block(16, 16, nn.GroupNorm(4, 16)),
        nn.MaxPool2d(2),
        *_conv_block(16, 32, nn.GroupNorm(4, 32)),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )
    return train(
        model,
        torch.optim.RMSprop(model.parameters(), 1e-3),
        glyphs(batch_size=32),
        _cross_entropy,
        70,
    )


@healthy(_cases, "InstanceNorm cancels each channel's bias exactly; the auto-encoder's loss falls")
def autoencoder_instancenorm() -> Training:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.InstanceNorm2d(16, affine=True),
        nn.ReLU(True),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.InstanceNorm2d(32, affine=True),
        nn.ReLU(True),
        nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),
    )
    batches = [(x, x) for x, _ in glyphs(batch_size=32)]
    return train(
        model, torch.optim.Adam(model.parameters(), lr=3e-3), batches, nn.MSELoss(), steps=100
    )


@healthy(
    _cases, "BatchNorm kept in eval mode while fine-tuning, as detection models do; loss falls"
)
def batchnorm_in_eval_mode() -> Training:
    model = nn.Sequential(
        *_conv_block(1, 16, nn.BatchNorm2d(16)),
        *_conv_block(16, 16, nn.BatchNorm2d(16)),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    batches = glyphs(batch_size=32)
    with torch.no_grad():
        for x, _ in batches:
            model(x)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return train(
        model, torch.optim.SGD(model.parameters(), 0.02, momentum=0.9), batches, _cross_entropy, 80
    )


@healthy(
    _cases, "spectral norm fixes every layer's gain at 1; a smooth critic-like net fits the waves"
)
def spectral_norm_mlp() -> Training:
    model = nn.Sequential(
        spectral_norm(nn.Linear(4, 64)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Linear(64, 64)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Linear(64, 64)),
        nn.LeakyReLU(0.2),
        nn.Linear(64, 1),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return train(model, optimizer, waves(), nn.MSELoss(), steps=150)


@healthy(
    _cases, "weight norm splits weights into gain and direction, whose norms differ; loss falls"
)
def weight_norm_mlp() -> Training:
    model = nn.Sequential(
        weight_norm(nn.Linear(2, 64)),
        nn.ReLU(),
        weight_norm(nn.Linear(64, 64)),
        nn.ReLU(),
        weight_norm(nn.Linear(64, 64)),
        nn.ReLU(),
        weight_norm(nn.Linear(64, 2)),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return train(model, optimizer, spirals(), _cross_entropy, steps=150)


class WeightNormTcn(nn.Module):
    """Dilated causal convolutions with weight norm and residuals, as in the TCN paper."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.embed = nn.Conv1d(3, channels, 1)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, channels, 3, dilation=2**level)) for level in range(4)
        )
        self.head = nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.transpose(1, 2))
        for level, conv in enumerate(self.convs):
            padded = nn.functional.pad(h, (2 * 2**level, 0))
            h = h + nn.functional.relu(conv(padded))
        return self.head(h.mean(-1))


@healthy(
    _cases, "weight-normalised TCN with residuals reads all steps; the loss falls to near zero"
)
def weight_norm_tcn() -> Training:
    from tests.zoo.healthy_tasks import tally

    model = WeightNormTcn()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return train(model, optimizer, tally(length=16), _cross_entropy, steps=100)


@healthy(
    _cases, "orthogonal parametrization keeps 10 tanh layers isometric; the early third matters"
)
def orthogonal_parametrization_tanh() -> Training:
    layers: list[nn.Module] = [nn.Linear(2, 32), nn.Tanh()]
    for _ in range(8):
        layers += [orthogonal(nn.Linear(32, 32)), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(32, 2))
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), spirals(), _cross_entropy, 60
    )


@healthy(_cases, "a BatchNorm on the raw, unscaled inputs (values near 1e3) tames them; loss falls")
def batchnorm_on_raw_inputs() -> Training:
    model = nn.Sequential(
        nn.BatchNorm1d(4),
        nn.Linear(4, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 1),
    )
    batches = [(1000 * x + 500, y) for x, y in waves()]
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), batches, nn.MSELoss(), steps=150
    )


CASES: tuple[Case, ...] = tuple(_cases)
