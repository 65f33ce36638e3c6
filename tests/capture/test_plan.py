"""A step that is executed from a plan gives the record that following each call would give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.capture.planning import MAX_MISMATCHES, Planner
from gradwatch.records import StepRecord
from tests.capture.tools import has_global_hooks
from tests.networks import NETWORKS
from tests.zoo import CASES

STEPS = 7
ZOO = (
    *("gpt_tied_head", "lora_on_attention", "wavenet_gates", "dead_functional_relu"),
    *(
        "gan_two_optimizers",
        "gradient_accumulation",
        "lstm_cell_in_loop",
        "checkpoint_non_reentrant",
    ),
    *("autocast_transformer_loss_1e5", "attention_unit_normal_d64"),
    *("evaluation_between_steps", "bfloat16_autocast_convnet", "equilibrium_cell", "lbfgs_closure"),
)
BY_NAME = {case.name: case for case in CASES}


class EnoughError(Exception):
    """A training has made its steps."""


class Run:
    """The records of a training, and how its steps were seen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, plans: bool = True) -> None:
        self.records: list[StepRecord] = []
        self.n_planned = 0
        self.mismatches: list[str] = []
        learn = Planner.learn

        def count(planner: Planner, recorder: Any) -> bool:
            if recorder.execution is not None:
                self.n_planned += 1
                self.mismatches += [recorder.execution.mismatch] * bool(recorder.execution.mismatch)
            return learn(planner, recorder)

        monkeypatch.setattr(Planner, "learn", count)
        if not plans:
            monkeypatch.setattr(Planner, "choose", lambda *_: None)

    def train(self, model: nn.Module, optimizers: Any, loop: Callable[[], None]) -> Run:
        with gradwatch.watch(model, optimizers, every_n_steps=1) as watch:
            loop()
        assert watch.failure is None
        assert not has_global_hooks()
        history = watch.report().history
        assert history is not None
        self.records = list(history.records)
        return self

    @property
    def steps(self) -> list[int]:
        return [record.global_step for record in self.records]


def assert_alike(left: list[StepRecord], right: list[StepRecord]) -> None:
    assert [record.global_step for record in left] == [record.global_step for record in right]
    for record, other in zip(left, right, strict=True):
        assert record.layer_set == other.layer_set
        for name in ("layer_values", "param_values", "step_values"):
            np.testing.assert_allclose(getattr(record, name), getattr(other, name), rtol=1e-6)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_the_same_records(name: str) -> None:
    runs = []
    for plans in (True, False):
        network = NETWORKS[name]()
        with pytest.MonkeyPatch.context() as patch:
            run = Run(patch, plans)
            run.train(network.model, network.optimizer, lambda: network.train(STEPS))  # noqa: B023
        assert run.n_planned == (STEPS - 3 if plans else 0)
        runs.append(run.records)
    assert_alike(*runs)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("name", ZOO)
def test_a_run_of_the_zoo_gives_the_same_records(name: str) -> None:
    runs = []
    for plans in (True, False):
        training = BY_NAME[name].build()
        with pytest.MonkeyPatch.context() as patch:
            run = Run(patch, plans)
            run.train(training.model, training.optimizers, lambda: stop_early(training))  # noqa: B023
        assert bool(run.n_planned) == plans
        runs.append(run.records)
    assert_alike(*runs)


def stop_early(training: Any) -> None:
    made = 0

    def count(*_: object) -> None:
        nonlocal made
        made += 1
        if made == STEPS:
            raise EnoughError

    counter = training.optimizers[0].register_step_post_hook(count)
    try:
        training.run()
    except EnoughError:
        pass
    finally:
        counter.remove()


# Steps that are otherwise ------------------------------------------------------------------


class Changing(nn.Module):
    """Takes another way from some step on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.way = 0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        if self.way == 1:
            x = torch.tanh(x)
        if self.way == 2:
            x = self.third(x)
        if self.way == 3:
            raise KeyError("theirs")
        return self.second(x)


def run_changing(monkeypatch: pytest.MonkeyPatch, change: Callable[[Changing, int], None]) -> Run:
    torch.manual_seed(0)
    model = Changing()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def loop() -> None:
        for step in range(12):
            change(model, step)
            optimizer.zero_grad()
            try:
                model(torch.randn(8, 4)).square().mean().backward()
            except KeyError:
                model.way = 0
                model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()

    return Run(monkeypatch).train(model, optimizer, loop)


@pytest.mark.parametrize("way", [1, 2])
def test_another_way_costs_one_record_and_is_followed(
    monkeypatch: pytest.MonkeyPatch, way: int
) -> None:
    def change(model: Changing, step: int) -> None:
        model.way = way if step >= 6 else 0

    run = run_changing(monkeypatch, change)
    assert len(run.mismatches) == 1
    assert run.steps == [step for step in range(12) if step != 6]
    assert run.n_planned > 4  # the new way is planned as well
    names = {layer.fqn for layer in run.records[-1].layer_set.layers}
    assert ("third" in names) == (way == 2)
    assert ("tanh" in names) == (way == 1)


def test_a_layer_that_is_frozen_has_another_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: Changing, step: int) -> None:
        model.first.requires_grad_(step < 6)

    run = run_changing(monkeypatch, change)
    assert run.steps == [step for step in range(12) if step != 6]
    (index,) = [
        i for i, layer in enumerate(run.records[-1].layer_set.layers) if layer.fqn == "first"
    ]
    assert np.isnan(run.records[-1].layer("grad_output_l2_norm")[index])


def test_a_forward_that_failed_is_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: Changing, step: int) -> None:
        model.way = 3 if step == 6 else 0

    run = run_changing(monkeypatch, change)
    assert run.steps == [step for step in range(12) if step != 6]


def test_a_training_that_never_repeats_itself_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: Changing, step: int) -> None:
        model.way = (0, 0, 0, 2)[step % 4]

    run = run_changing(monkeypatch, change)
    assert len(run.mismatches) <= MAX_MISMATCHES
    assert len(run.steps) >= 12 - MAX_MISMATCHES


def test_an_exchanged_module_is_listed_and_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: Changing, step: int) -> None:
        if step == 6:
            model.first = nn.Linear(4, 4, bias=False)

    run = run_changing(monkeypatch, change)
    assert run.steps == [step for step in range(12) if step != 6]  # armed before the exchange
    assert run.n_planned > 4
