"""In-place changes of what we measured: the gradient is that of the value before the change."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.capture.tools import assert_harmless, list_keys, make_again, read, train


class Net(nn.Module):
    """A layer whose output something changes in place afterwards."""

    def __init__(self, change) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.change(self.first(x)))


def change_slice(x: Tensor) -> Tensor:
    x[:, 2] = 0.0
    return x


def change_view(x: Tensor) -> Tensor:
    x.view(-1)[:5] *= 2
    return x


CHANGES = {
    "mul_": (lambda x: x.mul_(3.0), lambda x: x * 3.0),
    "add_": (lambda x: x.add_(1.0), lambda x: x + 1.0),
    "relu_": (lambda x: x.relu_(), torch.relu),
    "dropout_": (lambda x: nn.functional.hardtanh_(x), nn.functional.hardtanh),
    "slice": (change_slice, lambda x: change_slice(x.clone())),
    "view": (change_view, lambda x: change_view(x.clone())),
}


@pytest.mark.parametrize("name", sorted(CHANGES))
@pytest.mark.parametrize("as_view", [False, True])
def test_change_after_our_hook(name: str, as_view: bool) -> None:
    change, pure = CHANGES[name]

    class Layer(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y.unsqueeze(0).squeeze(0) if as_view else y

    def make():
        model = Net(change)
        model.first = Layer(6, 8)
        return model.double(), torch.randn(5, 6, dtype=torch.float64)

    record = assert_harmless(train(make, steps=2))[0]
    model, x = make_again(make)
    h = model.first(x).detach().requires_grad_()
    model.second(pure(h.clone())).square().mean().backward()
    found = read(record, "grad_output_l2_norm", "first")
    assert found == pytest.approx(h.grad.norm().item(), rel=1e-6)


def test_conv_batchnorm_inplace_relu() -> None:
    def make(inplace: bool = True):
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=inplace),
            nn.Conv2d(8, 8, 3), nn.Dropout(0.4, inplace=inplace), nn.ReLU(inplace=inplace),
            nn.Flatten(), nn.Linear(8 * 16, 4),
        ).double()  # fmt: skip
        return model, torch.randn(4, 3, 8, 8, dtype=torch.float64)

    record = assert_harmless(train(make, steps=3))[0]
    model, value = make_again(partial(make, inplace=False))
    kept = []
    for module in model:
        value = module(value)
        value.retain_grad()
        kept.append(value)
    value.square().mean().backward()
    keys = list_keys(record)
    assert keys == ["0", "1", "2", "3", "4", "5", "6", "7"]
    for key, value in zip(keys, kept, strict=True):
        found = read(record, "grad_output_l2_norm", key)
        assert found == pytest.approx(value.grad.norm().item(), rel=1e-6), key
    zeros = (kept[2] == 0).double().mean().item()
    assert read(record, "zero_fraction", "2") == pytest.approx(zeros, abs=1e-6)


def test_derivative_of_an_activation_in_place() -> None:
    """Where the output does not determine the derivative, the input is kept."""

    def make():
        layers = (nn.Linear(6, 8), nn.Hardswish(inplace=True), nn.Linear(8, 8))
        model = nn.Sequential(*layers, nn.SiLU(inplace=True), nn.Linear(8, 1)).double()
        return model, 4 * torch.randn(5, 6, dtype=torch.float64)

    record = assert_harmless(train(make, steps=1))[0]
    model, x = make_again(make)
    for key, function in (("1", nn.functional.hardswish), ("3", nn.functional.silu)):
        z = model[int(key) - 1](x).detach().requires_grad_()
        x = function(z)
        x.sum().backward()
        mean = z.grad.abs().mean().item()
        assert read(record, "derivative_mean", key) == pytest.approx(mean, rel=1e-6)
