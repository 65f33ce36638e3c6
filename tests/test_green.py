"""A pass is a proof: what was not seen to learn is never green, live or from the log.

Each family of programs that once came out green stands here with an honest twin that stays so. The
page "What a pass means" lists them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.checkpoint import checkpoint

import gradwatch
from gradwatch.cli import main
from gradwatch.errors import NothingToJudge, UnhealthyGradients

STEPS = 60

Program = Callable[[Path], gradwatch.Watch]
"""Trains under a watch that logs into a directory."""

_unproven: list[Program] = []
_honest: list[Program] = []


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def unproven(program: Program) -> Program:
    _unproven.append(program)
    return program


def honest(program: Program) -> Program:
    _honest.append(program)
    return program


def build(width: int = 16, last: nn.Module | None = None) -> nn.Sequential:
    tail = [last] if last is not None else []
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4), *tail)


def build_deep() -> nn.Sequential:
    stages = [layer for _ in range(12) for layer in (nn.Linear(8, 8), nn.Sigmoid())]
    return nn.Sequential(*stages, nn.Linear(8, 4))


def draw(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(32, 8, generator=generator)
    return x, x[:, :4].argmax(1)


def sgd(model: nn.Module, rate: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), rate)


def fit(
    logdir: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    find_loss: Callable[[int], Tensor],
    steps: int = STEPS,
) -> gradwatch.Watch:
    """An ordinary loop."""
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(steps):
            optimizer.zero_grad()
            find_loss(step).backward()
            optimizer.step()
    return watch


def classify(model: nn.Module) -> Callable[[int], Tensor]:
    def find_loss(step: int) -> Tensor:
        x, y = draw(step)
        return cross_entropy(model(x), y)

    return find_loss


# 1. Gradients that no backward() brings --------------------------------------------------------


def fit_by_grad(logdir: Path, model: nn.Module) -> gradwatch.Watch:
    optimizer, params = sgd(model), list(model.parameters())
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(STEPS):
            grads = torch.autograd.grad(classify(model)(step), params)
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad
            optimizer.step()
    return watch


@unproven
def autograd_grad_of_a_deep_sigmoid_network(logdir: Path) -> gradwatch.Watch:
    return fit_by_grad(logdir, build_deep())


@honest
def autograd_grad(logdir: Path) -> gradwatch.Watch:
    return fit_by_grad(logdir, build())


def fit_marked(logdir: Path, model: nn.Module) -> gradwatch.Watch:
    params = list(model.parameters())
    with gradwatch.watch(model, logdir=logdir) as watch:
        for step in range(STEPS):
            grads = torch.autograd.grad(classify(model)(step), params)
            with torch.no_grad():
                for param, grad in zip(params, grads, strict=True):
                    param.grad = grad
                    param -= 0.1 * grad
            watch.step()
    return watch


@unproven
def updates_by_hand_of_a_deep_sigmoid_network(logdir: Path) -> gradwatch.Watch:
    return fit_marked(logdir, build_deep())


@honest
def updates_by_hand(logdir: Path) -> gradwatch.Watch:
    return fit_marked(logdir, build())


# 2. Reentrant checkpoints ----------------------------------------------------------------------


def fit_checkpointed(logdir: Path, model: nn.Sequential) -> gradwatch.Watch:
    def find_loss(step: int) -> Tensor:
        x, y = draw(step)
        hidden = x.requires_grad_()
        for layer in model[:-1]:
            hidden = checkpoint(layer, hidden, use_reentrant=True)
        return cross_entropy(model[-1](hidden), y)

    return fit(logdir, model, sgd(model), find_loss)


@unproven
def reentrant_checkpoints_of_a_deep_sigmoid_network(logdir: Path) -> gradwatch.Watch:
    return fit_checkpointed(logdir, build_deep())


@honest
def reentrant_checkpoints(logdir: Path) -> gradwatch.Watch:
    return fit_checkpointed(logdir, build())


# 3. The whole network stands still --------------------------------------------------------------


def fit_closing(logdir: Path, last: nn.Module, closes: bool) -> gradwatch.Watch:
    """From step 12 on the bias before the output's activation closes it, if it does."""
    model = build(last=last)
    optimizer = sgd(model)
    target = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))

    def find_loss(step: int) -> Tensor:
        if closes and step == 12:
            with torch.no_grad():
                model[2].bias.fill_(-200.0)
        x, _ = draw(step)
        return mse_loss(model(x), (x @ target).sigmoid())

    return fit(logdir, model, optimizer, find_loss, steps=400)


@unproven
def an_output_relu_that_closes(logdir: Path) -> gradwatch.Watch:
    return fit_closing(logdir, nn.ReLU(), closes=True)


@unproven
def an_output_sigmoid_that_closes(logdir: Path) -> gradwatch.Watch:
    return fit_closing(logdir, nn.Sigmoid(), closes=True)


@unproven
def an_output_tanh_that_closes(logdir: Path) -> gradwatch.Watch:
    return fit_closing(logdir, nn.Tanh(), closes=True)


@honest
def an_output_sigmoid(logdir: Path) -> gradwatch.Watch:
    return fit_closing(logdir, nn.Sigmoid(), closes=False)


@honest
def a_minimum_above_zero(logdir: Path) -> gradwatch.Watch:
    """Full-batch least squares on noise: the gradient ends at 0 and the loss does not."""
    model = nn.Sequential(nn.Linear(8, 4))
    x, noise = torch.randn(64, 8), torch.randn(64, 4)
    return fit(logdir, model, sgd(model), lambda _: mse_loss(model(x), x[:, :4] + noise), 600)


# 4. Something else is trained -------------------------------------------------------------------


@unproven
def a_copy_is_trained(logdir: Path) -> gradwatch.Watch:
    model = build()
    return fit(logdir, model, sgd(model), classify(copy.deepcopy(model)))


@unproven
def frozen_after_the_watch_began(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer, head = sgd(model), nn.Linear(4, 4)
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        model.requires_grad_(False)
        for step in range(STEPS):
            x, y = draw(step)
            cross_entropy(head(model(x)), y).backward()
            optimizer.step()
    return watch


@unproven
def an_optimizer_that_steps_alone(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer = sgd(model)
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for _ in range(STEPS):
            optimizer.step()
    return watch


@unproven
def a_loss_times_zero(logdir: Path) -> gradwatch.Watch:
    model = build()
    return fit(logdir, model, sgd(model), lambda step: 0 * classify(model)(step))


@unproven
def a_loss_of_something_else(logdir: Path) -> gradwatch.Watch:
    model, other = build(), nn.Parameter(torch.ones(4))

    def find_loss(step: int) -> Tensor:
        model(draw(step)[0])
        return other.square().sum()

    return fit(logdir, model, sgd(model), find_loss)


@honest
def frozen_before_the_watch_began(logdir: Path) -> gradwatch.Watch:
    model = build()
    model[0].requires_grad_(False)
    return fit(logdir, model, sgd(model[2]), classify(model))


# 5. Too little data -----------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_too_few_records_are_no_proof(steps: int, tmp_path: Path) -> None:
    model = build()
    watch = fit(tmp_path, model, sgd(model), classify(model), steps)
    expect_no_pass(watch, tmp_path)


def test_a_restart_of_one_step_hides_nothing(tmp_path: Path) -> None:
    model = build_deep()
    fit(tmp_path, model, sgd(model), classify(model), 40)
    optimizer = sgd(model)
    with gradwatch.watch(model, optimizer, logdir=tmp_path, global_step=40) as watch:
        classify(model)(40).backward()
        optimizer.step()
    expect_no_pass(watch, tmp_path)
    assert main(["check", str(tmp_path)]) == 1  # the vanishing of the steps before


def test_check_with_two_steps() -> None:
    batches = [draw(step) for step in range(2)]
    report = gradwatch.check(build(), batches, cross_entropy, steps=2)
    assert report.status == "not_judged"
    with pytest.raises(NothingToJudge):
        report.raise_if()


# 6. We failed -----------------------------------------------------------------------------------


def test_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()

    def break_later(step: int) -> Tensor:
        if step == 12:

            def fail(*_: object) -> None:
                raise ZeroDivisionError("planted")

            monkeypatch.setattr("gradwatch.capture.param_readings.read_gradients", fail)
        return classify(model)(step)

    with pytest.warns(RuntimeWarning, match="planted"):
        watch = fit(tmp_path, model, sgd(model), break_later)
    expect_no_pass(watch, tmp_path)


# All of them --------------------------------------------------------------------------------------


def expect_no_pass(watch: gradwatch.Watch, logdir: Path) -> None:
    report = watch.report()
    assert report.status in ("unhealthy", "not_judged")
    assert not report.healthy
    with pytest.raises((NothingToJudge, UnhealthyGradients)):
        report.raise_if()
    assert main(["check", str(logdir)]) in (1, 2)


@pytest.mark.parametrize("program", _unproven, ids=lambda program: program.__name__)
def test_no_pass_without_proof(program: Program, tmp_path: Path) -> None:
    expect_no_pass(program(tmp_path), tmp_path)


@honest
def rare_words(logdir: Path) -> gradwatch.Watch:
    """An embedding most of whose rows are never used, and a bias before BatchNorm."""
    model = nn.Sequential(
        nn.Embedding(500, 8), nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)
    )

    def find_loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        words = torch.randint(0, 20, (64,), generator=generator)
        return cross_entropy(model(words), words % 4)

    return fit(logdir, model, sgd(model), find_loss)


@honest
def accumulated_and_clipped(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(STEPS):
            for part in range(2):
                (classify(model)(2 * step + part) / 2).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
    return watch


@honest
def half_precision(logdir: Path) -> gradwatch.Watch:
    model = build()

    def find_loss(step: int) -> Tensor:
        x, y = draw(step)
        with torch.autocast("cpu", torch.bfloat16):
            return cross_entropy(model(x), y)

    return fit(logdir, model, sgd(model), find_loss)


@pytest.mark.parametrize("program", _honest, ids=lambda program: program.__name__)
def test_an_honest_training_passes(program: Program, tmp_path: Path) -> None:
    report = program(tmp_path).report()
    assert report.status == "healthy", report
    report.raise_if()
    assert main(["check", str(tmp_path)]) == 0
