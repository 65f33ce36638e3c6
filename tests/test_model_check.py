"""check(): real training steps on a copy, and nothing of the caller's touched."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gradwatch
from gradwatch.errors import InvalidInput, NothingToJudge
from tests.networks import make_cnn, make_mlp, make_unhealthy_mlp
from tests.traces import capture_results, list_attachments, list_differences

cross_entropy = nn.functional.cross_entropy


def test_healthy_and_unhealthy() -> None:
    healthy, unhealthy = make_mlp(), make_unhealthy_mlp()
    assert gradwatch.check(healthy.model, healthy.batches, cross_entropy).healthy
    report = gradwatch.check(unhealthy.model, unhealthy.batches, cross_entropy)
    assert [finding.kind for finding in report.findings] == ["vanishing"]
    assert report.records == 20


def test_a_layer_replaced_after_the_optimizer_was_made_is_no_pass() -> None:
    """Twenty steps are too few for GW801."""
    network = make_mlp()
    network.model[2] = nn.Linear(*reversed(network.model[2].weight.shape))
    report = gradwatch.check(network.model, network.batches, cross_entropy, network.optimizer)
    assert report.status == "not_judged"
    assert "2.weight and 2.bias: not judged, no optimizer holds it" in str(report)


def test_what_a_layer_learned_before_it_was_replaced_is_not_its_successors() -> None:
    network = make_mlp()
    with gradwatch.watch(network.model, network.optimizer, every_n_steps=1) as watch:
        network.train(6)
        network.model[2] = nn.Linear(*reversed(network.model[2].weight.shape))
        network.train(6)
    assert watch.report().status == "not_judged"


def test_is_the_training_that_it_stands_for() -> None:
    """The steps are those of a loop of one's own, with the optimizer's state carried on."""
    network = make_mlp().train(3)
    report = gradwatch.check(network.model, network.batches, cross_entropy, network.optimizer, 4)
    assert report.history is not None
    with gradwatch.watch(network.model, network.optimizer) as watch:
        for inputs, targets in network.batches:
            network.optimizer.zero_grad()
            cross_entropy(network.model(inputs), targets).backward()
            network.optimizer.step()
    history = watch.report().history
    assert history is not None
    for ours, plain in zip(report.history.records, history.records, strict=True):
        np.testing.assert_array_equal(ours.param_values, plain.param_values)
        np.testing.assert_array_equal(ours.layer_values, plain.layer_values)


# Nothing is touched --------------------------------------------------------------------------


def test_the_callers_things_stay_as_they_were() -> None:
    network = make_cnn().train(2)  # BatchNorm's buffers, dropout's random numbers, Adam's moments
    network.model[0].eval()
    things = (network.model, [network.optimizer], network.losses)
    before, attached = capture_results(*things), list_attachments(*things[:2])
    gradwatch.check(network.model, network.batches, cross_entropy, network.optimizer, steps=5)
    assert list_differences(before, capture_results(*things)) == []
    assert list_differences(attached, list_attachments(*things[:2])) == []


def test_the_random_state_stays_as_it_was_when_training_draws_and_breaks() -> None:
    def draw(*_: Any) -> Tensor:
        raise KeyError(random.random(), np.random.rand(), torch.rand(1))

    network = make_mlp()
    before = capture_results(network.model, [], [])
    with pytest.raises(KeyError):
        gradwatch.check(network.model, network.batches, draw)
    assert list_differences(before, capture_results(network.model, [], [])) == []


def test_a_loader_shuffles_afterwards_as_it_would_have() -> None:
    network = make_mlp()
    data = TensorDataset(torch.arange(64.0).repeat(16, 1).T, torch.zeros(64, dtype=torch.long))

    def list_order(checks: bool) -> list[float]:
        torch.manual_seed(3)
        own = torch.Generator().manual_seed(4)
        loaders = [DataLoader(data, 8, shuffle=True, generator=source) for source in (None, own)]
        for loader in loaders:
            if checks:
                gradwatch.check(network.model, loader, cross_entropy, steps=2)
        return [x[0].item() for loader in loaders for batch, _ in loader for x in batch]

    assert list_order(checks=True) == list_order(checks=False)


def test_a_loss_with_parameters_is_copied_too() -> None:
    network = make_mlp()

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return cross_entropy(output * self.scale, target)

    loss = Scaled()
    gradwatch.check(network.model, network.batches, loss, steps=2)
    assert loss.scale.grad is None


def test_a_loss_that_is_a_method_of_the_model_trains_the_copy() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.body(inputs)

        def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
            return cross_entropy(self.head(hidden), target)

    model = Model()
    report = gradwatch.check(model, make_mlp().batches, model.loss, steps=3)
    assert model.head.weight.grad is None
    assert report.history is not None
    norms = report.history.latest.record.param("grad_l2_norm")
    assert (norms > 0).all()


def test_works_where_gradients_are_switched_off() -> None:
    network = make_mlp()
    with torch.no_grad():
        assert gradwatch.check(network.model, network.batches, cross_entropy).healthy


def test_a_watched_model_can_be_checked() -> None:
    network = make_mlp()
    with gradwatch.watch(network.model, network.optimizer) as watch:
        network.train(2)
        report = gradwatch.check(network.model, network.batches, cross_entropy, steps=3)
        network.train(2)
    assert report.records == 3
    assert watch.report().records == 4


# Forms of input ------------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.net(first + second)


ONE, TWO = torch.ones(4, 3), torch.ones(4, 3)
TARGET = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("batch", "loss"),
    [
        ((ONE, TWO, TARGET), cross_entropy),
        ([ONE, TWO, TARGET], cross_entropy),
        ({"first": ONE, "second": TWO}, lambda output: output.square().mean()),
        ((ONE, TARGET), lambda model, batch: cross_entropy(model(batch[0], TWO), batch[1])),
    ],
)
def test_forms_of_a_batch(batch: Any, loss: Any) -> None:
    report = gradwatch.check(TwoInputs(), [batch], loss, steps=5)
    assert report.records == 5


@pytest.mark.parametrize("batch", [ONE, (ONE,), [ONE]])
def test_bare_inputs(batch: Any) -> None:
    report = gradwatch.check(nn.Linear(3, 1), [batch], lambda output: output.mean(), steps=2)
    assert report.records == 2


def test_a_generator_of_batches_is_used_once() -> None:
    def give() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield ONE, TARGET

    assert gradwatch.check(nn.Linear(3, 2), give(), cross_entropy, steps=3).records == 3


@pytest.mark.parametrize(
    "optimizer",
    [
        None,
        torch.optim.Adam,
        lambda params: torch.optim.LBFGS(params, max_iter=2),
        lambda params: torch.optim.SGD(params, lr=0.1),
    ],
)
def test_forms_of_an_optimizer(optimizer: Any) -> None:
    report = gradwatch.check(nn.Linear(3, 2), [(ONE, TARGET)], cross_entropy, optimizer, 3)
    assert report.records == 3


def test_thresholds_are_passed_on() -> None:
    unhealthy = make_unhealthy_mlp()
    thresholds = gradwatch.Thresholds(ignore_kinds=("vanishing",))
    assert gradwatch.check(
        unhealthy.model, unhealthy.batches, cross_entropy, thresholds=thresholds
    ).healthy


# Bad input -----------------------------------------------------------------------------------

PAIR = [(ONE, TARGET)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, PAIR, cross_entropy), "torch.nn.Module"),
        ((nn.ReLU(), PAIR, cross_entropy), "trainable parameters"),
        ((nn.Linear(3, 2), [], cross_entropy), "at least one batch"),
        ((nn.Linear(3, 2), iter(()), cross_entropy), "at least one batch"),
        ((nn.Linear(3, 2), (ONE, TARGET), cross_entropy), "Put a single batch into a list"),
        ((nn.Linear(3, 2), ONE, cross_entropy), "Put a single batch into a list"),
        ((nn.Linear(3, 2), 3, cross_entropy), "iterable of batches"),
        ((nn.Linear(3, 2), PAIR, "mse"), "loss function"),
        ((nn.Linear(3, 2), PAIR, lambda output, target: output), r"scalar.*\(4, 2\)"),
        ((nn.Linear(3, 2), PAIR, lambda output, target: 1.0), "scalar tensor, got float"),
        ((nn.Linear(3, 2), PAIR, cross_entropy, "adam"), "optimizer"),
        ((nn.Linear(3, 2), PAIR, cross_entropy, lambda params: None), "optimizer"),
        ((nn.Linear(3, 2), PAIR, cross_entropy, None, 0), "whole number from 1"),
        ((nn.Linear(3, 2), PAIR, cross_entropy, None, 2.5), "whole number from 1"),
    ],
)
def test_bad_input_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gradwatch.check(*arguments)


def test_the_optimizer_of_another_model_is_refused() -> None:
    other = torch.optim.SGD(nn.Linear(3, 2).parameters(), 0.1)
    with pytest.raises(InvalidInput, match="holds parameters"):
        gradwatch.check(nn.Linear(3, 2), PAIR, cross_entropy, other)


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = nn.Linear(3, 2)
    model.cache = model(ONE)  # type: ignore[assignment]
    with pytest.raises(InvalidInput, match="deepcopy"):
        gradwatch.check(model, PAIR, cross_entropy)


@pytest.mark.filterwarnings("ignore:gradwatch has switched itself off:RuntimeWarning")
def test_an_error_of_ours_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("gradwatch.verdict.engine.Doctor.observe", fail)
    with pytest.raises(NothingToJudge, match="ours"):
        gradwatch.check(nn.Linear(3, 2), PAIR, cross_entropy)


def test_the_trainings_own_error_passes_through() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        gradwatch.check(nn.Linear(5, 2), PAIR, cross_entropy)
