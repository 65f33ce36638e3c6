"""Half precision and gradient scaling: unscaled figures, and nothing of the scaler is called."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.capture.tools import (
    assert_harmless,
    make_loop,
    make_net,
    read,
    read_param,
    watch_run,
)


def make_optimizer(model: nn.Module, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscales", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_scaled_gradients_are_divided_by_the_scale(
    fused: bool, unscales: bool, accumulate: int
) -> None:
    x = torch.randn(12, 4)

    def build_with(scaled: bool):
        def build():
            model = make_net()
            optimizer = make_optimizer(model, fused)
            scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)

            def loop() -> list[float]:
                losses = []
                for _ in range(3):
                    for part in x.chunk(accumulate):
                        loss = model(part).square().mean() / accumulate
                        scaler.scale(loss).backward()
                    if unscales:
                        scaler.unscale_(optimizer)
                        nn.utils.clip_grad_norm_(model.parameters(), 1e3)
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()
                    losses.append(loss.item())
                return losses

            return model, optimizer, loop

        return build

    scaled, plain = assert_harmless(build_with(True)), assert_harmless(build_with(False))
    assert len(scaled) == 3
    for record, other in zip(scaled, plain, strict=True):
        assert record.step("loss_scale") == 1024.0
        assert record.layer_values == pytest.approx(other.layer_values, rel=1e-4, nan_ok=True)
        grads = record.param("grad_l2_norm"), other.param("grad_l2_norm")
        assert grads[0] == pytest.approx(grads[1], rel=1e-4)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("broken", ["loss", "weight"])
def test_a_skipped_step_leaves_no_trace_in_the_records(fused: bool, broken: str) -> None:
    x = torch.randn(5, 4)

    def build():
        model = make_net()
        optimizer = make_optimizer(model, fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

        def spoil(grad: Tensor) -> Tensor:
            return grad * float("inf") if spoiled else grad

        spoiled = False
        model[0].weight.register_hook(spoil)

        def loop() -> None:
            nonlocal spoiled
            for step in range(4):
                factor = math.inf if step == 1 and broken == "loss" else 1.0
                spoiled = step == 1 and broken == "weight"
                scaler.scale(factor * model(x).square().mean()).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
            model[0].weight._backward_hooks.clear()

        return model, optimizer, loop

    records = assert_harmless(build)
    for record in records:
        assert not (record.param("nonfinite_count") > 0).any()
        assert not any(map(math.isinf, record.layer("grad_output_l2_norm")))
        assert record.step("passes") == 1
    assert len(records) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    x = torch.randn(16, 4)

    def build():
        model = make_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def loop() -> list[float]:
            losses = []
            for _ in range(3):
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=dtype):
                    loss = model(x).float().square().mean()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            return losses

        return model, optimizer, loop

    record = assert_harmless(build)[0]
    name = str(dtype).removeprefix("torch.")
    assert [layer.dtype for layer in record.layer_set.layers] == [name] * 3
    model = make_net()
    with torch.autocast("cpu", dtype=dtype):
        h = model[0](x)
        h.retain_grad()
        loss = model[2](model[1](h)).float().square().mean()
    loss.backward()
    expected = h.grad.double().norm().item()
    assert read(record, "grad_output_l2_norm", "0") == pytest.approx(expected, rel=1e-5)
    expected = model[0].weight.grad.double().norm().item()
    assert read_param(record, "grad_l2_norm", "0.weight") == pytest.approx(expected, rel=1e-5)


def test_underflow_to_zero_in_half_precision_is_counted() -> None:
    model = make_net().half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(16, 4).half()

    def loop() -> None:
        (model(x) * 3e-8).sum().backward()
        optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    assert read(record, "grad_zero_fraction", "0") > 0.5
    grad = model[0].weight.grad
    zeros = (grad == 0).float().mean().item()
    assert read_param(record, "zero_fraction", "0.weight") == pytest.approx(zeros, abs=1e-6)


class Energy(nn.Module):
    """Squares between two layers, in a lower precision or not."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        energy = self.first(x).to(self.dtype).square().float()
        return self.second(self.norm(energy))


@pytest.mark.skipif(
    not hasattr(torch.ones((), requires_grad=True).exp().grad_fn, "_input_metadata"),
    reason="a graph's nodes do not tell their dtype in this torch",
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_float16_between_layers_is_in_the_record(dtype: torch.dtype) -> None:
    def build():
        torch.manual_seed(0)
        model, x = Energy(dtype), torch.randn(8, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, optimizer, make_loop(model, optimizer, x)

    for record in assert_harmless(build):
        found = {layer.fqn: layer.passes_float16 for layer in record.layer_set.layers}
        assert found == {"first": False, "norm": dtype is torch.float16, "second": False}
