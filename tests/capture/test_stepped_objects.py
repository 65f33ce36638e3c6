"""What steps and is no ``torch.optim.Optimizer``: found at ``step()``, and left as it was."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.errors import InvalidInput
from gradwatch.records import StepRecord
from gradwatch.watcher import Watch
from tests.capture.tools import assert_no_trace
from tests.networks import Network, make_mlp

RATE = 0.05


class Handmade:
    """Gradient descent with what every optimizer has, and nothing of torch's."""

    def __init__(self, params: Iterable[Tensor], **settings: Any) -> None:
        self.param_groups = [{"params": list(params), "lr": RATE, **settings}]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        if closure is not None:
            with torch.enable_grad():
                closure()
        for group in self.param_groups:
            for param in group["params"]:
                param.sub_(param.grad, alpha=group["lr"])

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None


class Averaging:
    """Steps another point than the one at which gradients are taken, as schedule-free ones do."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        self.base = base
        self.zero_grad = base.zero_grad

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.base.param_groups

    @torch.no_grad()
    def step(self) -> None:
        params = [param for group in self.param_groups for param in group["params"]]
        before = [param.clone() for param in params]
        self.base.step()
        for param, start in zip(params, before, strict=True):
            param.lerp_(start, 0.75)


class MasterCopy(Handmade):
    """One flat float64 tensor stands for all parameters, as a mixed-precision engine has it."""

    def __init__(self, params: Iterable[Tensor], **settings: Any) -> None:
        self.model_params = list(params)
        flat = torch.cat([param.detach().double().flatten() for param in self.model_params])
        self.optimizer = torch.optim.SGD([flat.requires_grad_()], lr=RATE)
        self.param_groups = self.optimizer.param_groups

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        (flat,) = self.param_groups[0]["params"]
        flat.grad = torch.cat([param.grad.double().flatten() for param in self.model_params])
        self.optimizer.step()
        parts = flat.split([param.numel() for param in self.model_params])
        for param, part in zip(self.model_params, parts, strict=True):
            param.copy_(part.view_as(param))

    def zero_grad(self) -> None:
        for param in self.model_params:
            param.grad = None


def make_network(kind: Any) -> Network:
    network = make_mlp()
    network.optimizer = kind(network.model.parameters())
    return network


def make_averaging(params: Iterable[Tensor]) -> Averaging:
    return Averaging(torch.optim.SGD(params, lr=4 * RATE))


def latest(watch: Watch) -> StepRecord:
    return watch._judgement._doctor.history.latest.record


def watch_three_steps(network: Network) -> StepRecord:
    with gradwatch.watch(network.model, network.optimizer) as watch:
        network.train(3)
        assert watch.report().records == watch.global_step == 3
        record = latest(watch)
    assert "step" not in vars(network.optimizer)
    assert_no_trace(network.model, ())
    return record


@pytest.mark.parametrize("kind", [Handmade, MasterCopy, make_averaging])
def test_figures_are_those_of_torchs_own(kind: Any) -> None:
    """All of these make the same steps of gradient descent."""
    expected = watch_three_steps(make_network(lambda params: torch.optim.SGD(params, lr=RATE)))
    found = watch_three_steps(make_network(kind))
    assert all(param.optimized for param in found.layer_set.params)
    for name in ("grad_l2_norm", "weight_l2_norm", "update_l2_norm"):
        np.testing.assert_allclose(found.param(name), expected.param(name), rtol=1e-3)
    if kind is not make_averaging:
        assert found.step("learning_rate") == expected.step("learning_rate")


@pytest.mark.parametrize("kind", [Handmade, MasterCopy, make_averaging])
def test_trains_bit_identically(kind: Any) -> None:
    plain, watched = make_network(kind).train(6), make_network(kind)
    with gradwatch.watch(watched.model, watched.optimizer, every_n_steps=2):
        watched.train(6)
    for param, other in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(param, other)


def test_a_closure_is_evaluated_as_ever() -> None:
    network = make_network(Handmade)
    x, y = network.batches[0]

    def closure() -> Tensor:
        network.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network.model(x), y)
        loss.backward()
        return loss

    with gradwatch.watch(network.model, network.optimizer) as watch:
        for _ in range(3):
            network.optimizer.step(closure)
    assert watch.report().records == watch.global_step == 3


def test_a_step_that_fails_is_no_step() -> None:
    network = make_network(Handmade)
    with gradwatch.watch(network.model, network.optimizer) as watch:
        network.train(1)
        network.optimizer.zero_grad()
        with pytest.raises(TypeError):
            network.optimizer.step()
        network.train(1)
    assert watch.global_step == 2


def test_copies_and_pickles_step_by_themselves() -> None:
    network = make_network(Handmade)
    with gradwatch.watch(network.model, network.optimizer) as watch:
        network.train(1)
        copies = copy.deepcopy(network.optimizer), pickle.loads(pickle.dumps(network.optimizer))
        for each in copies:
            (before, *_), params = each.param_groups[0]["params"], each.param_groups[0]["params"]
            for param in params:
                param.grad = torch.ones_like(param)
            start = before.detach().clone()
            each.step()
            assert not torch.equal(before, start)
        assert watch.global_step == 1


@pytest.mark.parametrize("own", [False, True])
def test_what_was_in_its_place_before_is_put_back(own: bool) -> None:
    network, calls = make_network(Handmade), []
    if own:
        inner = network.optimizer.step
        network.optimizer.step = lambda: (calls.append(1), inner())  # type: ignore[method-assign]
    before = vars(network.optimizer).get("step")
    with gradwatch.watch(network.model, network.optimizer) as watch:
        network.train(2)
    assert watch.global_step == 2
    assert vars(network.optimizer).get("step") is before
    assert len(calls) == 2 * own


def test_what_is_put_around_it_meanwhile_goes_on() -> None:
    network = make_network(Handmade)
    with gradwatch.watch(network.model, network.optimizer) as watch:
        inner = network.optimizer.step
        network.optimizer.step = lambda: inner()  # type: ignore[method-assign]
        network.train(2)
    before = [param.clone() for param in network.model.parameters()]
    network.train(1)
    assert watch.global_step == 2
    moved = zip(before, network.model.parameters(), strict=True)
    assert not any(torch.equal(param, other) for param, other in moved)


def test_a_forgotten_watch_leaves_it_as_it_was() -> None:
    network = make_network(MasterCopy)
    gradwatch.watch(network.model, network.optimizer)
    network.train(2)
    optimizer, model = network.optimizer, weakref.ref(network.model)
    optimizer.model_params.clear()  # type: ignore[attr-defined]
    del network
    gc.collect()
    assert model() is None
    assert "step" not in vars(optimizer)


def test_one_for_another_copy_of_the_model_is_refused() -> None:
    network, other = make_mlp(), make_mlp()
    with pytest.raises(InvalidInput, match="another copy"):
        gradwatch.watch(network.model, Handmade(other.model.parameters()))


def test_without_a_learning_rate_none_is_known() -> None:
    network = make_network(Handmade)
    network.optimizer.param_groups[0]["lr"] = torch.tensor(RATE)
    with gradwatch.watch(network.model, network.optimizer) as watch:
        network.train(1)
        assert latest(watch).step("learning_rate") == pytest.approx(RATE)
    network.optimizer.step = lambda: None  # type: ignore[method-assign]
    del network.optimizer.param_groups[0]["lr"]
    with gradwatch.watch(network.model, network.optimizer) as watch:
        network.train(1)
        assert np.isnan(latest(watch).step("learning_rate"))
