"""Copying, saving, exporting and scripting a model while it is watched and armed."""

from __future__ import annotations

import copy
import gc
import io
import math
import pickle
import weakref

import pytest
import torch
from torch import Tensor, nn

from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import Session
from tests.capture.tools import assert_no_trace, assert_same, list_keys, watch_run


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x)))


@pytest.fixture
def armed():
    """A model in the middle of a sampled step, its session and optimizer."""
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    session = Session(model, (optimizer,), Schedule(1), lambda record: None)
    session.start()
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    model(torch.randn(3, 4)).sum().backward()
    yield model, optimizer, session
    session.stop()
    assert session.failure is None
    assert_no_trace(model, (optimizer,))


def test_nothing_is_stored_on_the_model(armed) -> None:
    model, _, _ = armed
    plain = Net()
    for module, other in zip(model.modules(), plain.modules(), strict=True):
        assert module.__dict__.keys() == other.__dict__.keys()
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for param in model.parameters():
        assert not param._backward_hooks
        assert not param.__dict__


def test_deepcopy(armed) -> None:
    model, optimizer, _ = armed
    x = torch.randn(3, 4)
    twin = copy.deepcopy(model)
    assert_same(twin(x).detach(), model(x).detach())
    assert copy.deepcopy(optimizer).state_dict().keys() == optimizer.state_dict().keys()


def test_pickle_and_save(armed) -> None:
    model, optimizer, _ = armed
    x = torch.randn(3, 4)
    assert_same(pickle.loads(pickle.dumps(model))(x).detach(), model(x).detach())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert_same(torch.load(file, weights_only=False)(x).detach(), model(x).detach())
    again = pickle.loads(pickle.dumps(optimizer))
    assert not again._optimizer_step_post_hooks
    assert list(model.state_dict()) == list(Net().state_dict())


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("when", ["armed", "after backward", "between samples"])
def test_export(armed, strict: bool, when: str) -> None:
    model, optimizer, session = armed
    if when == "between samples":
        session.schedule.every_n_steps, session.schedule.first_steps = 100, 0
        session.schedule.growth = math.inf
    if when != "after backward":
        optimizer.step()
    x = torch.randn(3, 4)
    program = torch.export.export(model, (x,), strict=strict)
    expected = torch.export.export(Net(), (x,), strict=strict)
    names = [node.name for node in program.graph.nodes]
    assert names == [node.name for node in expected.graph.nodes]
    assert_same(program.module()(x).detach(), model(x).detach())


@pytest.mark.parametrize("when", ["before forward", "after backward"])
def test_a_sample_is_lost_to_a_strict_export_and_the_next_is_whole(when: str) -> None:
    """Dynamo fails over any global hook: ours are gone before it looks."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loop() -> None:
        for step in range(4):
            if step == 1 and when == "before forward":
                torch.export.export(model, (torch.randn(3, 4),), strict=True)
            optimizer.zero_grad()
            model(torch.randn(3, 4)).sum().backward()
            if step == 1 and when == "after backward":
                torch.export.export(model, (torch.randn(3, 4),), strict=True)
            optimizer.step()

    records = watch_run(model, optimizer, loop)
    assert [record.global_step for record in records] == [0, 2, 3]
    keys = ["body.0", "body.1", "body.2", "tanh", "head"]
    assert all(list_keys(record) == keys for record in records)


def test_script_and_trace(armed) -> None:
    model, _, _ = armed
    x = torch.randn(3, 4)
    assert_same(torch.jit.script(model)(x).detach(), model(x).detach())
    traced = torch.jit.trace(model, x)
    kinds = [node.kind() for node in traced.inlined_graph.nodes()]
    assert not any("norm" in kind or "count_nonzero" in kind for kind in kinds)
    assert_same(traced(x).detach(), model(x).detach())


def test_make_fx_and_fake_tensors(armed) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    model, _, _ = armed
    graph = make_fx(lambda x: model(x))(torch.randn(3, 4))
    assert not any("norm" in str(node.target) for node in graph.graph.nodes)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert model(mode.from_tensor(torch.randn(3, 4))).shape == (3, 2)


def test_symbolic_trace(armed) -> None:
    model, _, _ = armed
    traced = torch.fx.symbolic_trace(model)
    x = torch.randn(3, 4)
    assert_same(traced(x).detach(), model(x).detach())


def test_training_goes_on_after_all_that(armed) -> None:
    model, optimizer, session = armed
    torch.export.export(model, (torch.randn(3, 4),), strict=False)
    torch.jit.script(model)
    optimizer.step()
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    assert session.global_step == 3


def test_a_sampled_step_leaves_nothing_for_the_cycle_collector() -> None:
    """Small tensors that wait for it keep the allocator from giving large ones back."""
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    session = Session(model, (optimizer,), Schedule(1), lambda record: None)
    session.start()
    gc.disable()
    try:
        step = session._arming.step
        parts = (step, step.recorder, step.recorder.forward)
        held = [weakref.ref(part) for part in parts]
        del parts, step
        model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
        assert [ref() for ref in held] == [None] * 3
    finally:
        gc.enable()
        session.stop()
