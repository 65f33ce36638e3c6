"""A step that is executed from a plan gives the record that following each call would give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradwatch
from gradwatch.capture.call_rows import MAX_HELD, OUTPUTS, CallRows, RowMemory
from gradwatch.capture.device_values import Ledger
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


def assert_alike(left: list[StepRecord], right: list[StepRecord], rtol: float = 1e-6) -> None:
    assert [record.global_step for record in left] == [record.global_step for record in right]
    for record, other in zip(left, right, strict=True):
        assert record.layer_set == other.layer_set
        for name in ("layer_values", "param_values", "step_values"):
            np.testing.assert_allclose(getattr(record, name), getattr(other, name), rtol=rtol)


pytestmark = pytest.mark.usefixtures("one_thread")


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


# Functions that nobody sees ----------------------------------------------------------------


class Reached(nn.Module):
    """Activations and an attention that are called as functions; counts the modes in forward."""

    def __init__(self, packs: bool = False) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.act, self.up, self.down = nn.GELU(), nn.Linear(8, 8), nn.Linear(8, 8)
        self.packs = packs
        self.modes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(torch._C._len_torch_function_stack())
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.norm(x + self.out(attended.transpose(1, 2).flatten(2)))
        x = torch.sigmoid(self.act(self.up(x)))
        if self.packs:
            with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
                return self.down(F.relu(x) * 2)
        return self.down(F.relu(x))


def run_reached(packs: bool, plans: bool) -> tuple[Run, list[int]]:
    torch.manual_seed(0)
    model = Reached(packs)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)

    def loop() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(3, 5, 8)).square().mean().backward()
            optimizer.step()

    with pytest.MonkeyPatch.context() as patch:
        return Run(patch, plans).train(model, optimizer, loop), model.modes


@pytest.mark.parametrize("packs", [False, True])
def test_functions_are_reached_from_modules_without_a_mode(packs: bool) -> None:
    """But for those whose tensors a hook of the user's has packed: only it may unpack them."""
    planned, modes = run_reached(packs, plans=True)
    followed, _ = run_reached(packs, plans=False)
    assert planned.n_planned == STEPS - 3
    assert modes == [1, 1, 1] + [int(packs)] * (STEPS - 3)
    assert_alike(planned.records, followed.records)
    names = {layer.fqn for layer in planned.records[-1].layer_set.layers}
    assert {"sigmoid", "act", "relu", "attention"} <= names


class InPlace(nn.Module):
    """Changes what a module has returned; from some step on also a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.changes = False

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).mul_(2)
        if self.changes:
            hidden = hidden * 2
            hidden.register_hook(lambda grad: grad.mul_(2))
        return self.second(hidden.add_(1))


def run_in_place(change_at: int, plans: bool) -> Run:
    torch.manual_seed(0)
    model = InPlace()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def loop() -> None:
        for step in range(12):
            model.changes = step >= change_at
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()

    with pytest.MonkeyPatch.context() as patch:
        return Run(patch, plans).train(model, optimizer, loop)


@pytest.mark.parametrize("change_at", [0, 12])
def test_what_is_changed_in_place_is_read_before(change_at: int) -> None:
    planned, followed = (run_in_place(change_at, plans) for plans in (True, False))
    assert planned.n_planned > 4
    common = [record for record in followed.records if record.global_step in planned.steps]
    assert len(common) >= 11  # the first change of a gradient, which no followed step shows
    assert_alike(planned.records, common)


def test_a_change_in_place_that_begins_late_costs_one_record() -> None:
    rows = CallRows(Ledger(), RowMemory())
    values = torch.ones(3)
    rows.put(OUTPUTS, 0, 0, ("layer", 0), values)
    values.mul_(2)
    rows.flush()
    assert rows.has_lost
    again = CallRows(ledger := Ledger(), rows._memory)
    again.put(OUTPUTS, 0, 0, ("layer", 0), values)
    values.mul_(2)
    again.flush()
    assert not again.has_lost
    assert ledger.values[0].tolist() == [12.0]  # squares of what it was


def test_what_waits_is_bounded() -> None:
    ledger = Ledger()
    rows = CallRows(ledger, RowMemory())
    one_more = MAX_HELD // torch.ones(1024).nbytes + 1
    for number in range(one_more):
        rows.put(OUTPUTS, number, 0, None, torch.ones(1024))
    assert len(ledger.statistics) == one_more


def test_a_small_view_does_not_keep_a_large_tensor() -> None:
    rows = CallRows(Ledger(), RowMemory())
    large = torch.zeros(2**20)
    for number, tensor in enumerate((large[:8], torch.zeros(8))):
        rows.put(OUTPUTS, number, 0, None, tensor)
    sizes = [entry[5].untyped_storage().nbytes() for entry in rows._entries]
    assert sizes == [8 * large.element_size()] * 2


class Spoilt(nn.Module):
    """Changes what an activation keeps for a backward that never comes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        torch.sigmoid(self.first(x)).mul_(2)
        return self.second(x)


def test_what_only_a_backward_would_refuse_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Spoilt()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def loop() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()

    run = Run(monkeypatch).train(model, optimizer, loop)
    assert run.steps == list(range(STEPS))
    assert run.n_planned


class Overwritten(torch.autograd.Function):
    """Its backward writes to what arrives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        below = grad @ weight, grad.t() @ x
        grad.mul_(3)
        return below


class Overwriting(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return Overwritten.apply(x, self.weight)


def test_what_arrives_is_read_before_a_function_writes_to_it() -> None:
    runs = []
    for plans in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), Overwriting(4, 4, bias=False), nn.Linear(4, 2))
        optimizer, x = torch.optim.SGD(model.parameters(), lr=0.01), torch.randn(8, 4)

        def loop() -> None:
            for _ in range(STEPS):
                optimizer.zero_grad()  # noqa: B023
                model(x).square().mean().backward()  # noqa: B023
                optimizer.step()  # noqa: B023

        with pytest.MonkeyPatch.context() as patch:
            run = Run(patch, plans).train(model, optimizer, loop)
        assert bool(run.n_planned) == plans
        runs.append(run.records)
    planned, followed = runs
    assert len(planned) >= STEPS - 1  # one is lost where what waits is changed
    by_step = {record.global_step: record for record in followed}
    assert_alike(planned, [by_step[record.global_step] for record in planned])
