"""Every number against float64 autograd on retained tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradwatch.capture import saturation, statistics
from gradwatch.capture.shared_norms import SharedNorms
from gradwatch.schema.activations import ACTIVATIONS
from tests.capture.tools import make_loop, read, read_param, watch_run


class Net(nn.Module):
    """Keeps every tensor that passes, so that the test can compute the same again."""

    def __init__(self, act: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = nn.Linear(20, 300, dtype=dtype)
        self.act = act
        self.second = nn.Linear(300, 7, dtype=dtype)
        self.kept: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        h = self.keep("first", self.first(x))
        a = self.keep("act", self.act(h))
        return self.keep("second", self.second(a))

    def keep(self, name: str, value: Tensor) -> Tensor:
        value.retain_grad()
        self.kept[name] = value
        return value


def run(act: nn.Module, dtype: torch.dtype, batch: int = 33):
    model = Net(act, dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(batch, 20, dtype=dtype)
    return model, watch_run(model, optimizer, make_loop(model, optimizer, x, steps=1))[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms(dtype: torch.dtype) -> None:
    model, record = run(nn.Tanh(), dtype)
    for name, value in model.kept.items():
        grad, out = value.grad.double().norm().item(), value.detach().double().norm().item()
        assert read(record, "grad_output_l2_norm", name) == pytest.approx(grad, rel=1e-6)
        assert read(record, "output_l2_norm", name) == pytest.approx(out, rel=1e-6)
    for upper, lower in (("act", "first"), ("second", "act")):
        expected = model.kept[lower].grad.double().norm().item()
        assert read(record, "grad_input_l2_norm", upper) == pytest.approx(expected, rel=1e-6)
    assert math.isnan(read(record, "grad_input_l2_norm", "first"))  # the data has no gradient
    for name, param in model.named_parameters():
        expected = param.grad.double().norm().item()
        assert read_param(record, "grad_l2_norm", name) == pytest.approx(expected, rel=1e-6)
        weight = param.detach().double().norm().item()
        assert read_param(record, "weight_l2_norm", name) == pytest.approx(weight, rel=1e-6)


def test_large_float32_norm() -> None:
    values = torch.randn(1_000_003)
    expected = values.double().norm().item()
    squares = statistics.measure_l2_norm(values).value.item()
    assert math.sqrt(squares) == pytest.approx(expected, rel=1e-6)


def test_one_input_used_twice_gives_each_call_its_own_share() -> None:
    """Gradients at inputs are contributions; gradients at outputs are totals."""

    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.left, self.right = (nn.Linear(5, 5) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.left(x) + 3 * self.right(x) + x

    model = Fork().double()
    x = torch.randn(4, 5, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loop = make_loop(model, optimizer, x, steps=1, loss_fn=lambda y: y.pow(2).sum())
    record = watch_run(model, optimizer, loop)[0]
    grad = 2 * model(x)
    left, right = grad @ model.left.weight, 3 * grad @ model.right.weight
    for key, expected in (("left", left), ("right", right)):
        found = read(record, "grad_input_l2_norm", key)
        assert found == pytest.approx(expected.norm().item(), rel=1e-6)
    total = (left + right + grad).norm().item()
    assert read(record, "grad_output_l2_norm", "stem") == pytest.approx(total, rel=1e-6)


def test_saturation_of_a_large_tensor_comes_from_a_sample() -> None:
    z = torch.randn(512, 512) * 4
    readings = saturation.measure_saturation(ACTIVATIONS["sigmoid"], None, z.sigmoid(), {})
    found, mean = (reading.value / reading.divisor for reading in readings)
    expected = (z.abs() > 4.357).float().mean().item()
    assert found.item() == pytest.approx(expected, abs=0.02)
    assert mean.item() == pytest.approx((z.sigmoid() * (1 - z.sigmoid())).mean().item(), abs=0.01)


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7), (3, 3, 3)])
def test_a_sample_meets_every_place_of_a_kernel(kernel: tuple[int, ...]) -> None:
    middle = tuple(size // 2 for size in kernel)
    for channels in range(80_000 // math.prod(kernel), 90_000 // math.prod(kernel), 7):
        weight = torch.zeros(channels, *kernel)
        weight[(slice(None), *middle)] = 1.0
        share = statistics.take_sample(weight).mean().item() * math.prod(kernel)
        assert share == pytest.approx(1.0, rel=0.1)


def test_zeros_and_dead_units() -> None:
    """Three of 300 units never fire: the share is known once the window is full."""
    torch.manual_seed(3)
    model = Net(nn.ReLU(), torch.float32)
    with torch.no_grad():
        model.first.bias[:3] = -1e3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(200, 20)
    records = watch_run(model, optimizer, make_loop(model, optimizer, x, steps=5))
    expected = (model.kept["act"] == 0).float().mean().item()
    assert read(records[0], "zero_fraction", "act") == pytest.approx(expected, abs=0.02)
    assert math.isnan(read(records[0], "dead_fraction", "act"))
    silent = (model.kept["act"] == 0).all(0).float().mean().item()
    assert silent > 2.5 / 300
    assert read(records[-1], "dead_fraction", "act") == pytest.approx(silent, rel=1e-6)
    assert read(records[-1], "unit_samples", "act") >= 128


def test_none_is_not_zero() -> None:
    model = Net(nn.Tanh(), torch.float32)
    model.unused = nn.Linear(3, 3)
    with torch.no_grad():
        model.second.weight.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loop = make_loop(model, optimizer, torch.randn(5, 20), steps=1)
    record = watch_run(model, optimizer, loop)[0]
    assert read_param(record, "grad_l2_norm", "first.weight") == 0
    assert math.isnan(read_param(record, "grad_l2_norm", "unused.weight"))
    params = {param.fqn: param for param in record.layer_set.params}
    assert params["first.weight"].used
    assert not params["unused.weight"].used


def test_a_broken_gradient_is_infinite_and_counted() -> None:
    model = Net(nn.Tanh(), torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loop = make_loop(
        model, optimizer, torch.randn(5, 20), steps=1, loss_fn=lambda y: (y * math.nan).sum()
    )
    record = watch_run(model, optimizer, loop)[0]
    assert math.isinf(read(record, "grad_output_l2_norm", "first"))
    assert read_param(record, "nonfinite_count", "first.bias") == 300
    assert record.step("nonfinite_passes") == 1


def test_a_finite_gradient_whose_squares_overflow_is_finite() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loop = make_loop(
        model, optimizer, torch.ones(5, 3), steps=1, loss_fn=lambda y: (y * 1e20).sum()
    )
    record = watch_run(model, optimizer, loop)[0]
    assert read_param(record, "grad_l2_norm", "weight") > 1e20
    assert np.isfinite(record.param("grad_l2_norm")).all()
    assert not record.param("nonfinite_count").any()


def test_updates_leave_decay_out() -> None:
    """AdamW's first step is lr in every element, whatever the decay took."""
    model = Net(nn.Tanh(), torch.float64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.5, eps=1e-30)
    x = torch.randn(9, 20, dtype=torch.float64)
    record = watch_run(model, optimizer, make_loop(model, optimizer, x, steps=1))[0]
    for name, param in model.named_parameters():
        expected = 1e-3 * math.sqrt(param.numel())
        assert read_param(record, "update_l2_norm", name) == pytest.approx(expected, rel=1e-6)
    assert record.step("learning_rate") == pytest.approx(1e-3)


def test_a_norm_is_shared_by_all_that_lies_in_the_same_memory() -> None:
    norms, grad = SharedNorms(), torch.randn(6, 4, 50)
    first = norms.measure(grad)
    assert norms.measure(grad) is first
    assert norms.measure(grad.view(24, 50)) is first
    for other in (grad[:3], grad[3:], grad.clone(), grad.transpose(0, 1), grad.view(torch.int32)):
        assert norms.measure(other.float()) is not first


def test_a_norm_is_measured_again_after_a_change() -> None:
    norms, grad = SharedNorms(), torch.ones(8, 2)
    first = norms.measure(grad)
    grad.view(16).mul_(2)
    assert norms.measure(grad) is not first
    alias, second = grad.detach().view(16), norms.measure(grad)
    alias.mul_(2)
    assert norms.measure(alias) is not second
    assert norms.measure(alias).value.item() == 16 * 4**2
