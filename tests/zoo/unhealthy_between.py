"""Errors between backward and step: the loss may fall, and the norms of gradients look well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import adam, sgd, supervised

cross_entropy = nn.functional.cross_entropy
Batch = tuple[Tensor, Tensor]


def loop(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    pairs: Batch,
    step: Callable[[Tensor], None],
    steps: int = 100,
) -> Training:
    """`step` is given the loss and does all that follows."""

    def run() -> list[float]:
        losses = []
        for x, y in data.batches(*pairs, 64, steps):
            loss = cross_entropy(model(x), y)
            step(loss)
            losses.append(loss.item())
        return losses

    return Training(model, tuple(optimizers), run)


def layer_replaced(fixed: bool = False) -> Training:
    """The first layer is widened after the optimizer was made."""
    torch.manual_seed(0)
    model = models.mlp([2, 24, 24, 3])
    optimizer = adam(model, 0.02)
    model.fc0, model.fc1 = nn.Linear(2, 24), nn.Linear(24, 24)
    if fixed:
        optimizer = adam(model, 0.02)
    return supervised(model, optimizer, data.spirals(), steps=150)


def embedding_resized(fixed: bool = False) -> Training:
    """Tokens are added, and the embedding with them, after the optimizer was made."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(28, 4), nn.Flatten(), models.mlp([8, 32, 32]))
    optimizer = adam(model, 0.02)
    model[0] = nn.Embedding(32, 4)
    nn.init.normal_(model[0].weight, std=0.01)
    if fixed:
        optimizer = adam(model, 0.02)
    windows = data.tokens().unfold(1, 3, 1).reshape(-1, 3)
    return supervised(model, optimizer, (windows[:, :2], windows[:, 2]), steps=120)


def second_never_stepped(fixed: bool = False) -> Training:
    """Each half has an optimizer, and one of them is forgotten in the loop."""
    torch.manual_seed(2)
    model = models.mlp([2, 24, 24, 3])
    front = torch.optim.Adam([*model.fc0.parameters(), *model.fc1.parameters()], 0.02)
    back = torch.optim.Adam(model.fc2.parameters(), 0.02)

    def step(loss: Tensor) -> None:
        front.zero_grad()
        back.zero_grad()
        loss.backward()
        back.step()
        if fixed:
            front.step()

    return loop(model, (front, back), data.spirals(), step, 150)


def step_on_a_copy(fixed: bool = False) -> Training:
    """Forward uses what the optimizer's step is not written to, as a backend may have it."""
    torch.manual_seed(3)
    model = models.mlp([2, 24, 24, 3])
    optimizer = adam(model, 0.02)
    frozen = [*model.fc0.parameters(), *model.fc1.parameters()]

    class Lossy(torch.optim.Adam):
        def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
            before = [param.detach().clone() for param in frozen]
            super().step(closure)
            with torch.no_grad():
                for param, old in zip(frozen, before, strict=True):
                    param.copy_(old)

    optimizer = optimizer if fixed else Lossy(model.parameters(), 0.02)
    return supervised(model, optimizer, data.spirals(), steps=150)


def warm_up_never_stepped(fixed: bool = False) -> Training:
    """The rate begins at 0, and nobody steps the scheduler."""
    torch.manual_seed(4)
    model = models.ListMlp([64, 32, 10], nn.functional.relu)
    optimizer = sgd(model, 0.2, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 10, 1.0))
    stepped = scheduler if fixed else None
    return supervised(model, optimizer, data.digits(), steps=100, scheduler=stepped)


def epochs_counted_in_batches(fixed: bool = False) -> Training:
    """A decay over 8 epochs that is stepped per batch, of which an epoch has 16."""
    torch.manual_seed(5)
    model = models.mlp([2, 24, 24, 3])
    optimizer = adam(model, 0.02)
    length = 8 * 16 if fixed else 8
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, length, 1.0)
    return supervised(model, optimizer, data.spirals(), steps=128, scheduler=scheduler)


def never_cleared(rate: float, fixed: bool = False) -> Training:
    """Gradients of all steps pile up."""
    torch.manual_seed(6)
    model = models.ListMlp([64, 32, 10], nn.functional.relu)
    optimizer = sgd(model, rate)

    def step(loss: Tensor) -> None:
        if fixed:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return loop(model, (optimizer,), data.digits(), step, 120)


def cleared_before_the_step(keeps_tensors: bool, fixed: bool = False) -> Training:
    """zero_grad stands between backward and step."""
    torch.manual_seed(7)
    model = models.ListMlp([64, 32, 10], nn.functional.gelu)
    optimizer = sgd(model, 0.3)

    def step(loss: Tensor) -> None:
        if fixed:
            optimizer.zero_grad()
        loss.backward()
        if not fixed:
            optimizer.zero_grad(set_to_none=not keeps_tensors)
        optimizer.step()

    return loop(model, (optimizer,), data.digits(), step)


def clipped_while_scaled(limit: float, fixed: bool = False) -> Training:
    """Gradients are clipped before they are unscaled, and next to nothing is left of them."""
    torch.manual_seed(8)
    model = models.mlp([64, 32, 10])
    optimizer, scaler = sgd(model, 0.3), torch.amp.GradScaler("cpu")

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if fixed:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), limit)
        scaler.step(optimizer)
        scaler.update()

    return loop(model, (optimizer,), data.digits(), step)


def rate_too_small(fixed: bool = False) -> Training:
    """A rate in units of something else."""
    torch.manual_seed(9)
    model = models.mlp([64, 32, 10])
    return supervised(model, sgd(model, 0.3 if fixed else 3e-7), data.digits(), steps=100)


def _case(
    name: str, build: Callable[..., Training], kind: str, cause: str, region: tuple[str, ...],
    why: str, also_allowed: tuple[str, ...] = (),
) -> Case:  # fmt: skip
    fixed = partial(build, fixed=True)
    return Case(name, build, (kind,), also_allowed, cause, region, 0, why, fixed=fixed)


_FRONT = ("fc0", "fc1")
_LAYERS = ("layers.*",)
_BREAKS = ("exploding", "nonfinite", "dead")

CASES: tuple[Case, ...] = (
    _case("layer_replaced_behind_optimizer", layer_replaced, "unmoved", "not_optimized", _FRONT,
          "the optimizer holds the layers that were there before"),
    _case("embedding_resized_behind_optimizer", embedding_resized, "unmoved", "not_optimized",
          ("0",), "the optimizer holds the smaller one that was there before"),
    _case("second_optimizer_never_stepped", second_never_stepped, "unmoved", "not_stepped", _FRONT,
          "its gradients are cleared and never used"),
    _case("step_on_a_copy", step_on_a_copy, "unmoved", "lost_update", _FRONT,
          "the step is not written to what forward uses"),
    _case("warm_up_never_stepped", warm_up_never_stepped, "unmoved", "learning_rate", _LAYERS,
          "the rate stays at 0"),
    replace(
        _case("epochs_counted_in_batches", epochs_counted_in_batches, "unmoved", "learning_rate",
              ("fc*",), "the rate is 0 from step 8 on"),
        unhealthy_from_step=8,
    ),
    _case("rate_too_small", rate_too_small, "unmoved", "learning_rate", ("fc*",),
          "a step changes the loss by 1e-8 of what it is"),
    _case("never_cleared", partial(never_cleared, 0.05), "mishandled", "not_cleared", _LAYERS,
          "each step uses the sum of all gradients so far", _BREAKS),
    _case("never_cleared_fast", partial(never_cleared, 0.5), "mishandled", "not_cleared", _LAYERS,
          "the same at a rate at which it breaks at once", _BREAKS),
    _case("cleared_before_the_step", partial(cleared_before_the_step, False), "mishandled",
          "cleared", _LAYERS, "the optimizer finds None"),
    _case("zeroed_before_the_step", partial(cleared_before_the_step, True), "mishandled",
          "cleared", _LAYERS, "the optimizer finds zeros"),
    _case("clipped_while_scaled", partial(clipped_while_scaled, 1.0), "mishandled",
          "not_unscaled", ("fc*",), "a norm of 65,536 becomes 1, and 1.5e-5 unscaled"),
    _case("clipped_hard_while_scaled", partial(clipped_while_scaled, 0.25), "mishandled",
          "not_unscaled", ("fc*",), "the same with a quarter of that"),
)  # fmt: skip
