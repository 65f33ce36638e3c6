"""g . dw of each parameter and the loss, as a watch records them, against what autograd says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradwatch
from gradwatch.capture.schedule import Schedule
from gradwatch.records import StepRecord

STEPS = 4

MAKERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, 0.1),
    "momentum": lambda params: torch.optim.SGD(params, 0.1, momentum=0.9),
    "adam": lambda params: torch.optim.Adam(params, 1e-3),
    "adamw": lambda params: torch.optim.AdamW(params, 1e-3, weight_decay=0.1),
    "lbfgs": lambda params: torch.optim.LBFGS(params, 0.1, max_iter=4),
}


def build(width: int = 24) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 3))


def draw(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(16, 8, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def record_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: Callable[[int], None],
    every: int = 1,
    steps: int = STEPS,
) -> tuple[StepRecord, ...]:
    with gradwatch.watch(model, optimizer, every_n_steps=every) as watch:
        for number in range(steps):
            step(number)
    history = watch.report().history
    assert history is not None
    return history.records


def copy_weights(model: nn.Module) -> list[Tensor]:
    return [param.detach().clone() for param in model.parameters()]


@pytest.mark.parametrize("name", MAKERS)
def test_loss_change_and_loss(name: str) -> None:
    model = build()
    optimizer = MAKERS[name](model.parameters())
    losses: list[float] = []
    changes: list[list[float]] = []

    def step(number: int) -> None:
        x, y = draw(number)
        before = copy_weights(model)
        first: list[list[Tensor]] = []

        def evaluate() -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            if not first:
                first.append([param.grad.clone() for param in model.parameters()])
                losses.append(loss.item())
            return loss

        optimizer.step(evaluate) if name == "lbfgs" else (evaluate(), optimizer.step())
        decay = 1 - 1e-4 if name == "adamw" else 1.0
        changes.append(
            [
                float(((param.detach() - old * decay).double() * grad.double()).sum())
                for param, old, grad in zip(model.parameters(), before, first[0], strict=True)
            ]
        )

    records = record_steps(model, optimizer, step)
    assert [record.step("loss") for record in records] == pytest.approx(losses, rel=1e-6)
    for record, expected in zip(records, changes, strict=True):
        np.testing.assert_allclose(record.param("loss_change"), expected, rtol=2e-3, atol=1e-9)


def test_gradient_at_the_step_is_the_clipped_one() -> None:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(number: int) -> None:
        x, y = draw(number)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()

    for record in record_steps(model, optimizer, step):
        assert np.linalg.norm(record.param("step_grad_l2_norm")) == pytest.approx(0.01, rel=1e-3)
        assert np.linalg.norm(record.param("grad_l2_norm")) > 0.1


@pytest.mark.parametrize("every", [1, 50])
def test_loss_change_since_the_sampled_step_before(every: int) -> None:
    """On the batch of the later one; what clipping leaves of its gradient."""
    model, expected = build(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    past: list[Tensor] = []
    schedule = Schedule(every)

    def step(number: int) -> None:
        x, y = draw(number)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        if schedule.is_sampled(number):
            now = copy_weights(model)
            pairs = zip(model.parameters(), now, past, strict=True) if past else ()
            expected.append([((new - old) * param.grad).sum().item() for param, new, old in pairs])
            past[:] = now
        optimizer.step()

    records = record_steps(model, optimizer, step, every, 12)
    first, *others = [record.param("past_loss_change") for record in records]
    assert np.isnan(first).all()
    np.testing.assert_allclose(others, expected[1:], rtol=1e-5, atol=1e-9)


def test_weights_that_are_put_back_before_forward_are_no_part_of_the_update() -> None:
    model = build()
    optimizer, start = torch.optim.SGD(model.parameters(), 0.1), copy_weights(model)
    updates: list[list[float]] = []

    def step(number: int) -> None:
        with torch.no_grad():
            for param, value in zip(model.parameters(), start, strict=True):
                param.copy_(value)
        x, y = draw(number)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        pairs = zip(model.parameters(), start, strict=True)
        updates.append([(param.detach() - value).norm().item() for param, value in pairs])

    records = record_steps(model, optimizer, step)
    for record, expected in zip(records, updates, strict=True):
        np.testing.assert_allclose(record.param("update_l2_norm"), expected, rtol=1e-4)
    for record in records[1:]:
        assert not record.param("past_loss_change").any()


def test_sampled_dot_product_is_close_for_heavy_tails() -> None:
    """Gradients and updates of a large matrix whose elements differ by orders of magnitude."""
    torch.manual_seed(0)
    model = nn.Linear(600, 400, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    exact: list[float] = []

    def step(_: int) -> None:
        model.weight.grad = torch.randn(400, 600) * torch.randn(400, 600).exp()
        before = model.weight.detach().clone()
        optimizer.step()
        exact.append(float(((model.weight.detach() - before) * model.weight.grad).sum()))

    records = record_steps(model, optimizer, step)
    measured = np.array([float(seen.param("loss_change")[0]) for seen in records])
    ratios = measured / np.array(exact)
    assert np.median(ratios) == pytest.approx(1, rel=0.3)
    assert ((ratios > 0.4) & (ratios < 2.5)).all()  # one huge element may fall into the sample


def test_gradients_by_autograd_grad() -> None:
    """The second sampled step knows that no backward will come, and sees the layers too."""
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(number: int) -> None:
        x, y = draw(number)
        params = list(model.parameters())
        loss = nn.functional.cross_entropy(model(x), y)
        for param, grad in zip(params, torch.autograd.grad(loss, params), strict=True):
            param.grad = grad
        optimizer.step()

    first, *rest = record_steps(model, optimizer, step)
    assert (first.param("loss_change") < 0).all()
    for record in rest:
        assert (record.param("loss_change") < 0).all()
        assert np.isfinite(record.layer("grad_output_l2_norm")).all()
        assert np.isfinite(record.step("loss"))


def test_loss_of_reentrant_checkpoints_is_the_outermost() -> None:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses: list[float] = []

    def step(number: int) -> None:
        x, y = draw(number)
        out = checkpoint(model, x.requires_grad_(), use_reentrant=True)
        loss = nn.functional.cross_entropy(out, y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    records = record_steps(model, optimizer, step)
    assert [record.step("loss") for record in records] == pytest.approx(losses, rel=1e-6)


def test_loss_of_accumulated_passes_is_their_sum() -> None:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses: list[float] = []

    def step(number: int) -> None:
        optimizer.zero_grad()
        parts = []
        for part in range(3):
            x, y = draw(3 * number + part)
            loss = nn.functional.cross_entropy(model(x), y) / 3
            loss.backward()
            parts.append(loss.item())
        losses.append(sum(parts))
        optimizer.step()

    records = record_steps(model, optimizer, step)
    assert [record.step("loss") for record in records] == pytest.approx(losses, rel=1e-6)


def test_several_roots_leave_the_loss_unknown() -> None:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(number: int) -> None:
        x, _ = draw(number)
        optimizer.zero_grad()
        out = model(x)
        torch.autograd.backward([out.sum(), out.square().sum()])
        optimizer.step()

    assert all(np.isnan(record.step("loss")) for record in record_steps(model, optimizer, step))


def test_steps_by_hand_take_the_gradients_of_all_passes() -> None:
    model, changes = build(), list[list[float]]()
    params = list(model.parameters())
    with gradwatch.watch(model, every_n_steps=1) as watch:
        for number in range(STEPS):
            model.zero_grad()
            for part in range(3):
                x, y = draw(3 * number + part)
                nn.functional.cross_entropy(model(x), y).backward()
            before, grads = copy_weights(model), [param.grad.clone() for param in params]
            with torch.no_grad():
                for param in params:
                    param -= 0.1 * param.grad
            pairs = zip(grads, copy_weights(model), before, strict=True)
            changes.append([float((grad * (new - old)).sum()) for grad, new, old in pairs])
            watch.step()
    history = watch.report().history
    assert history is not None
    found = [record.param("loss_change") for record in history.records]
    np.testing.assert_allclose(found, changes, rtol=1e-4)
