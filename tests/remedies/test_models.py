"""Models of many kinds: what fits is tried, what does not is said, nothing crashes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adagrad, AdamW

import gradwatch
from gradwatch.errors import InvalidInput
from gradwatch.remedies.optimizers import rebuild_optimizer
from tests.remedies.networks import N_CLASSES, find_trial, make_batches


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(8))
        self.head = nn.Linear(16, N_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.sigmoid(layer(x))
        return self.head(x)


class SharedActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(8))
        self.act = nn.Sigmoid()
        self.head = nn.Linear(16, N_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = self.act(layer(x))
        return self.head(x)


class TanhBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.3 * self.linear(x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.cell = nn.LSTM(8, 12, batch_first=True)
        self.head = nn.Linear(12, N_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(self.embed(x))[0][:, -1])


class TestModels:
    def test_functional_activations_cannot_be_swapped_but_normalised(self) -> None:
        trials = gradwatch.try_remedies(
            Functional(), make_batches(16), nn.CrossEntropyLoss(), steps=10
        )
        swap = find_trial(trials, "ReLU + He")
        assert not swap.applicable
        assert "the 8 calls of sigmoid in the model's forward" in swap.reason
        assert find_trial(trials, "BatchNorm inserted").speedup > 1000

    def test_a_shared_activation_is_swapped_once(self) -> None:
        trials = gradwatch.try_remedies(
            SharedActivation(), make_batches(16), nn.CrossEntropyLoss(), steps=10
        )
        swap = find_trial(trials, "ReLU + He")
        assert swap.description.startswith("replace the Sigmoid module `act` by ReLU")
        assert swap.speedup > 1000
        assert find_trial(trials, "residual connections").speedup > 1000

    def test_blocks_with_functions_get_skips(self) -> None:
        model = nn.Sequential(*[TanhBlock() for _ in range(8)], nn.Linear(16, N_CLASSES))
        trials = gradwatch.try_remedies(model, make_batches(16), nn.CrossEntropyLoss(), steps=10)
        skips = find_trial(trials, "residual connections")
        assert skips.description == "add the input of the 8 blocks 0 to 7"
        assert skips.speedup > 1000

    def test_recurrent(self) -> None:
        batches = [(torch.randint(0, 10, (8, 12)), torch.randint(0, 10, (8,)))]
        trials = gradwatch.try_remedies(
            Recurrent(), batches, nn.CrossEntropyLoss(), lambda params: AdamW(params), steps=6
        )
        start = find_trial(trials, "Xavier initialisation")
        assert "the LSTM module `cell` with Xavier, orthogonal recurrent" in start.description
        assert {trial.name for trial in trials if trial.applicable} == {
            "as it is",
            "lower learning rate",
            "Xavier initialisation",
        }

    def test_attention(self) -> None:
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        model = nn.Sequential(layer, nn.Linear(16, 4))
        batches = [(torch.randn(4, 6, 16), torch.randn(4, 6, 4))]
        optimizer = Adagrad(model.parameters())
        trials = gradwatch.try_remedies(model, batches, nn.MSELoss(), optimizer, steps=6)
        names = {trial.name for trial in trials if trial.applicable}
        assert names == {"as it is", "lower learning rate", "Xavier and He initialisation"}

    def test_images_get_norms_of_their_kind_and_normalised_channels(self) -> None:
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(64, N_CLASSES),
        )
        batches = [(torch.rand(8, 3, 8, 8) * 255, torch.randint(0, 10, (8,)))]
        trials = gradwatch.try_remedies(model, batches, nn.CrossEntropyLoss(), steps=6)
        assert find_trial(trials, "inputs normalised").applicable
        norm = find_trial(trials, "LayerNorm inserted")
        assert norm.description == "insert LayerNorm after layer 0 (Conv2d)"

    def test_one_that_looks_into_its_layers_is_not_applicable_rather_than_broken(self) -> None:
        class Peeking(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc, self.act, self.out = nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, N_CLASSES)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.out(self.act(self.fc(x))) + self.fc.weight.sum()

        trials = gradwatch.try_remedies(
            Peeking(), make_batches(8, 2), nn.CrossEntropyLoss(), steps=5
        )
        norm = find_trial(trials, "BatchNorm inserted")
        assert not norm.applicable
        assert "AttributeError" in norm.reason

    def test_an_optimizer_that_calls_back_under_a_watch_of_the_callers(self) -> None:
        model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        optimizer = LBFGS(model.parameters(), max_iter=3)
        batches = [(torch.randn(16, 8), torch.randn(16, 2))]
        with gradwatch.watch(model, optimizer) as watch:
            trials = gradwatch.try_remedies(model, batches, nn.MSELoss(), optimizer, steps=5)
        assert watch.global_step == 0
        assert find_trial(trials, "ReLU + He").applicable
        assert trials[0].is_baseline

    def test_frozen_weights_keep_their_values(self) -> None:
        model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, N_CLASSES))
        model[0].requires_grad_(False)
        trials = gradwatch.try_remedies(model, make_batches(16), nn.CrossEntropyLoss(), steps=5)
        start = next(trial for trial in trials if trial.change == "initialisation")
        assert start.description.startswith("re-initialise layer 2 (Linear) with LeCun")

    def test_tied_weights_keep_their_values(self) -> None:
        model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10))
        model[3].weight = model[0].weight
        batches = [(torch.randint(0, 10, (32,)), torch.randint(0, 10, (32,)))]
        trials = gradwatch.try_remedies(model, batches, nn.CrossEntropyLoss(), steps=5)
        start = find_trial(trials, "He initialisation")
        assert start.description.startswith("re-initialise layer 1 (Linear) with He;")

    def test_the_users_own_error_is_raised(self) -> None:
        def fail(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError("mine")

        with pytest.raises(ZeroDivisionError, match="mine"):
            gradwatch.try_remedies(nn.Linear(4, 2), make_batches(4, 1), fail)

    def test_no_batch(self) -> None:
        with pytest.raises(InvalidInput, match="at least one batch"):
            gradwatch.try_remedies(nn.Linear(4, 2), [], nn.MSELoss())


class TestRebuiltOptimizer:
    def test_groups_keep_their_options_and_take_in_what_is_new(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        optimizer = SGD(
            [
                {"params": model[0].parameters(), "lr": 0.5},
                {"params": [model[1].weight], "weight_decay": 0.1},
            ],
            lr=0.01,
            momentum=0.9,
        )
        before = {id(param) for param in model.parameters()}
        left_out, dropped = model[1].bias, model[1].weight
        model[0] = nn.Sequential(model[0], nn.LayerNorm(4))
        model[1] = nn.Sequential(nn.Linear(4, 4, bias=False))
        model.register_parameter("kept", left_out)
        rebuilt = rebuild_optimizer(optimizer, model, before)
        assert type(rebuilt) is SGD
        first, second = rebuilt.param_groups
        assert (first["lr"], second["lr"], second["weight_decay"]) == (0.5, 0.01, 0.1)
        assert {group["momentum"] for group in rebuilt.param_groups} == {0.9}
        held = [param for group in rebuilt.param_groups for param in group["params"]]
        assert any(param is model[0][1].weight for param in first["params"])
        assert any(param is model[1][0].weight for param in held)
        assert not any(param is dropped or param is left_out for param in held)
