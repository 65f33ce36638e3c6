"""What a step finds and an optimizer holds: gradients left over, learning rates, other tensors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradwatch.records import StepRecord
from tests.capture.tools import assert_harmless, make_net, watch_run

Zero = Callable[[torch.optim.Optimizer], None]


def measure_loss(model: nn.Module, rows: int = 8) -> Tensor:
    loss: Tensor = model(torch.randn(rows, 4)).square().mean()
    return loss


def clear_by_data(optimizer: torch.optim.Optimizer) -> None:
    """As nothing but the numbers shows."""
    for param in optimizer.param_groups[0]["params"]:
        if param.grad is not None:
            param.grad.data.zero_()


def clear_to_zeros(optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=False)


def leave(_: torch.optim.Optimizer) -> None:
    """Forgotten."""


def record_loop(before: Zero, after: Zero, accumulate: int = 1) -> list[StepRecord]:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loop() -> None:
        for _ in range(4):
            before(optimizer)
            for _ in range(accumulate):
                measure_loss(model).backward()
            optimizer.step()
            after(optimizer)

    return watch_run(model, optimizer, loop)


CLEARS = (torch.optim.Optimizer.zero_grad, clear_to_zeros, clear_by_data)


@pytest.mark.parametrize("clear", CLEARS)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_what_is_cleared_is_no_leftover(clear: Zero, accumulate: int) -> None:
    for records in (record_loop(clear, leave, accumulate), record_loop(leave, clear, accumulate)):
        for record in records:
            assert not (record.param("stale_grad_l2_norm") > 0).any()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_gradient_that_is_never_cleared_grows_from_step_to_step(accumulate: int) -> None:
    first, *others = record_loop(leave, leave, accumulate)
    assert np.isnan(first.param("stale_grad_l2_norm")).all()
    for before, record in zip([first, *others], others, strict=False):
        stale = record.param("stale_grad_l2_norm")
        if accumulate == 1:
            np.testing.assert_allclose(stale, before.param("grad_l2_norm"), rtol=1e-6)
        assert (stale > 0).all()


def test_what_another_backward_leaves_is_cleared_before_its_own() -> None:
    """A generator's backward runs through the discriminator, which clears its own later."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"maker": nn.Linear(4, 4), "judge": nn.Linear(4, 1)})
    optimizers = [torch.optim.SGD(model[name].parameters(), lr=0.1) for name in ("maker", "judge")]

    def loop() -> None:
        for _ in range(4):
            for optimizer in optimizers:
                optimizer.zero_grad()
                model["judge"](model["maker"](torch.randn(8, 4))).square().mean().backward()
                optimizer.step()

    for record in watch_run(model, optimizers, loop):
        assert np.isnan(record.param("stale_grad_l2_norm")).all()


@pytest.mark.parametrize("copies", [False, True])
def test_gradients_that_are_put_there_by_hand_are_added_to_nothing(copies: bool) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loop() -> None:
        for _ in range(5):
            params = list(model.parameters())
            grads = torch.autograd.grad(measure_loss(model), params)
            for param, grad in zip(params, grads, strict=True):
                if copies and param.grad is not None:
                    param.grad.copy_(grad)
                else:
                    param.grad = grad
            optimizer.step()

    for record in watch_run(model, optimizer, loop):
        assert np.isnan(record.param("stale_grad_l2_norm")).all()


def test_watching_leftovers_changes_nothing() -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], list[float]]]:
        model = make_net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

        def loop() -> list[float]:
            losses = []
            for _ in range(4):
                loss = measure_loss(model)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            return losses

        return model, optimizer, loop

    assert_harmless(build)


def test_each_parameter_has_the_rate_of_its_group() -> None:
    model = make_net()
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": [model[2].weight]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)

    def loop() -> None:
        optimizer.zero_grad()
        measure_loss(model).backward()
        optimizer.step()

    (record,) = watch_run(model, optimizer, loop)
    expected = [0.0, 0.0, np.float32(0.1), np.nan]
    np.testing.assert_array_equal(record.param("learning_rate"), expected)


def test_a_parameter_that_has_taken_the_place_of_another() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[2] = nn.Linear(6, 2)
    model.append(nn.Linear(2, 3))

    def loop() -> None:
        measure_loss(model).backward()
        optimizer.step()

    (record,) = watch_run(model, optimizer, loop)
    params = {param.fqn: (param.optimized, param.replaced) for param in record.layer_set.params}
    assert params["0.weight"] == (True, False)
    assert params["2.weight"] == (False, True)
    assert params["3.weight"] == (False, False)
