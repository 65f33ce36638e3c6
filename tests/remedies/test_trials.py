"""What must come out of trials on known diseases; and what they leave alone."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

import gradwatch
from gradwatch.display.trial_table import write_trials
from gradwatch.verdict.trials import Trial
from tests.remedies.networks import find_trial, make_batches, make_chain


@pytest.fixture(scope="module")
def sigmoid_trials() -> list[Trial]:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32)
    images, labels = (images - images.mean()) / images.std(), torch.tensor(digits.target)
    torch.manual_seed(0)
    model = make_chain(nn.Sigmoid)
    batches = list(zip(images.split(64)[:28], labels.split(64)[:28], strict=True))
    optimizer = SGD(model.parameters(), lr=0.03)
    return gradwatch.try_remedies(model, batches, nn.CrossEntropyLoss(), optimizer)


class TestSigmoidNetwork:
    def test_the_best_makes_early_layers_move_a_thousand_times_as_much(
        self, sigmoid_trials: list[Trial]
    ) -> None:
        best = sigmoid_trials[0]
        assert best.outcome == "healthy"
        assert best.change == "activation"
        assert best.speedup >= 1000
        assert best.after.loss_end < best.after.loss_start - 0.3
        assert best.after.loss_end < best.before.loss_end - 0.3
        assert best.after.attenuation > 1000 * best.before.attenuation
        assert [finding.kind for finding in best.before.findings] == ["vanishing"]
        assert best.after.findings == ()

    def test_it_says_what_was_changed_where(self, sigmoid_trials: list[Trial]) -> None:
        relu = find_trial(sigmoid_trials, "ReLU + He")
        assert relu.description == (
            "replace the 11 Sigmoid modules `act1` to `act11` by ReLU; re-initialise the 11 Linear "
            "modules `fc1` to `fc11` with He and the Linear module `fc12` with LeCun; set their "
            "biases to 0"
        )

    def test_the_untouched_model_is_one_of_them(self, sigmoid_trials: list[Trial]) -> None:
        (baseline,) = [trial for trial in sigmoid_trials if trial.is_baseline]
        assert baseline.name == "as it is"
        assert baseline.before == baseline.after
        assert all(trial.before == baseline.before for trial in sigmoid_trials)
        assert sigmoid_trials.index(baseline) > 2

    def test_what_does_not_fit_comes_last_with_the_reason(
        self, sigmoid_trials: list[Trial]
    ) -> None:
        last = sigmoid_trials[-1]
        assert (last.name, last.applicable) == ("inputs normalised", False)
        assert "normalised already" in last.reason

    def test_the_table_leads_with_the_advice(self, sigmoid_trials: list[Trial]) -> None:
        text = write_trials(sigmoid_trials, width=100)
        best = sigmoid_trials[0]
        assert text.startswith(f"Best of what was tried, 40 steps each: {best.name}. Replace the")
        assert "as it is" in text
        assert "inputs normalised: not applicable" in text
        assert all(len(line) <= 100 for line in text.splitlines())


def test_a_small_initialisation_is_remedied_by_initialisation() -> None:
    model = make_chain(nn.ReLU)
    for param in model.parameters():
        nn.init.normal_(param, std=0.01)
    optimizer = SGD(model.parameters(), lr=0.03)
    trials = gradwatch.try_remedies(model, make_batches(), nn.CrossEntropyLoss(), optimizer)
    best = trials[0]
    assert (best.name, best.change, best.outcome) == (
        "He initialisation",
        "initialisation",
        "healthy",
    )
    assert best.after.loss_end < best.before.loss_end
    assert best.speedup >= 1000
    assert find_trial(trials, "ReLU + He").reason == "the activations are ReLU already"


def test_a_healthy_model_is_best_left_as_it_is() -> None:
    model = make_chain(nn.ReLU, depth=3)
    trials = gradwatch.try_remedies(model, make_batches(), nn.CrossEntropyLoss(), steps=15)
    assert trials[0].is_baseline
    assert write_trials(trials).startswith("Healthy as it is")


def test_too_large_steps_are_remedied_by_smaller_ones_and_blow_ups_come_last() -> None:
    model = make_chain(nn.ReLU, depth=6)
    for name, param in model.named_parameters():
        if name.endswith("weight"):
            nn.init.kaiming_normal_(param)
    optimizer = SGD(model.parameters(), lr=2.0)
    trials = gradwatch.try_remedies(
        model, make_batches(), nn.CrossEntropyLoss(), optimizer, steps=20
    )
    outcomes = [trial.outcome for trial in trials if trial.applicable]
    (baseline,) = [trial for trial in trials if trial.is_baseline]
    assert baseline.outcome == "blew up"
    assert trials[0].change == "learning_rate"
    assert outcomes == sorted(outcomes, key=["healthy", "better", "no better", "blew up"].index)


def test_saturating_inputs_are_remedied_by_normalising_them() -> None:
    model = make_chain(nn.Tanh, depth=5, width=16)
    batches = [(inputs * 100 + 500, labels) for inputs, labels in make_batches(16)]
    trials = gradwatch.try_remedies(model, batches, nn.CrossEntropyLoss(), steps=20)
    normalised = find_trial(trials, "inputs normalised")
    assert normalised.outcome == "healthy"
    assert normalised.description.startswith("standardise the inputs, which lie between")
    assert trials.index(normalised) < [trial.is_baseline for trial in trials].index(True)


class TestNothingOfTheCallersChanges:
    @pytest.fixture
    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Sigmoid(), nn.Dropout(), nn.Linear(16, 10)
        )

    def test_weights_buffers_gradients_state_and_hooks(self, model: nn.Module) -> None:
        batches = make_batches(16, 3)
        optimizer = Adam(model.parameters(), lr=1e-2)
        nn.CrossEntropyLoss()(model(batches[0][0]), batches[0][1]).backward()
        optimizer.step()
        handle = model[0].register_forward_hook(lambda *_: None)
        state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        grads = [param.grad.clone() for param in model.parameters()]
        data = copy.deepcopy(batches)
        gradwatch.try_remedies(model, batches, nn.CrossEntropyLoss(), optimizer, steps=5)
        after = (model.state_dict(), optimizer.state_dict())
        assert str(after) == str(state)
        for param, grad in zip(model.parameters(), grads, strict=True):
            assert torch.equal(param.grad, grad)
        for (inputs, _), (inputs_before, _) in zip(batches, data, strict=True):
            assert torch.equal(inputs, inputs_before)
        assert list(model[0]._forward_hooks) == [handle.id]
        assert not any(
            module._forward_pre_hooks or module._backward_hooks for module in model.modules()
        )
        assert [type(layer) for layer in model] == [
            nn.Linear,
            nn.BatchNorm1d,
            nn.Sigmoid,
            nn.Dropout,
            nn.Linear,
        ]
        assert model.training

    def test_random_state(self, model: nn.Module) -> None:
        before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
        gradwatch.try_remedies(model, make_batches(16, 3), nn.CrossEntropyLoss(), steps=3)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]

    def test_the_same_twice(self, model: nn.Module) -> None:
        batches = make_batches(16, 3)
        first = gradwatch.try_remedies(model, batches, nn.CrossEntropyLoss(), steps=5)
        torch.rand(7)
        again = gradwatch.try_remedies(model, batches, nn.CrossEntropyLoss(), steps=5)
        assert [str(trial) for trial in first] == [str(trial) for trial in again]
