"""Counts that make cost: hooks and modes between samples, transfers, operations per tensor."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import gradwatch
from gradwatch.capture import device_values as ledger
from gradwatch.capture import forward, session
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import Session
from tests.capture.tools import has_global_hooks

DEPTH = 12

OPERATIONS_PER_TENSOR = 1
"""Torch operations that may be called for each watched tensor, views included: an output, its
gradient, a parameter, its gradient."""

OPERATIONS_PER_STEP = 80
"""Torch operations that are called once, however many layers there are."""


@pytest.fixture(autouse=True)
def show_our_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's mode does not see them; the counters of these tests are such modes, and must."""
    monkeypatch.setattr(session, "call_unseen", lambda function, args: function(*args))


def make_net(depth: int = DEPTH, act: type[nn.Module] = nn.Sigmoid) -> nn.Sequential:
    layers = (layer for _ in range(depth) for layer in (nn.Linear(8, 8), act()))
    return nn.Sequential(*layers)


def make_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    x = torch.randn(5, 8)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step


class Operations(TorchDispatchMode):
    """Counts the operations of a step by name, our own and the training's."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


def correct(counted: Counter[str]) -> Counter[str]:
    """The same counts with each ``detach`` once: to older versions of torch it is two."""
    with Operations() as single:
        torch.ones(1).detach()
    counted["aten.detach.default"] //= single.names["aten.detach.default"]
    return counted


def count_added(depth: int, act: type[nn.Module] = nn.Sigmoid) -> Counter[str]:
    """Operations that watching adds to one step, long after the first."""
    counts = []
    for every in (10**6, 1):
        model = make_net(depth, act)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        watched = Session(model, (optimizer,), Schedule(every, 0, math.inf), lambda record: None)
        watched.start()
        step = make_step(model, optimizer)
        for _ in range(4):
            step()
        with Operations() as operations:
            step()
        watched.stop()
        assert watched.failure is None
        counts.append(correct(operations.names))
    return counts[1] - counts[0]


@pytest.mark.parametrize("act", [nn.Sigmoid, nn.ReLU, nn.GELU])
def test_operations_per_watched_tensor(act: type[nn.Module]) -> None:
    total = sum(count_added(DEPTH, act).values())
    tensors = DEPTH * (2 + 2 + 2 + 2)  # two outputs, two parameters, and as many gradients
    assert total <= OPERATIONS_PER_TENSOR * tensors + OPERATIONS_PER_STEP


def test_operations_of_watching_are_counted_at_all() -> None:
    assert sum(count_added(DEPTH).values()) > DEPTH


def test_operations_grow_with_the_layers_and_no_faster() -> None:
    few, more, many = (sum(count_added(depth).values()) for depth in (5, 10, 20))
    assert many - more == 2 * (more - few)


def test_nothing_waits_for_the_device() -> None:
    """These are what ``.item()``, ``bool()`` and ``nonzero()`` of a tensor come down to."""
    added = count_added(DEPTH, nn.ReLU)
    assert added
    waiting = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select")
    assert [name for name in added if name.split(".")[1] in waiting] == []


def test_one_transfer_for_each_sampled_step(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    original = ledger._copy_to_host

    def copy(values: Tensor, device: torch.device) -> Any:
        sent.append(values.numel())
        return original(values, device)

    monkeypatch.setattr(ledger, "_copy_to_host", copy)
    model = make_net(act=nn.ReLU)
    optimizer = torch.optim.Adam(model.parameters())
    step = make_step(model, optimizer)
    with gradwatch.watch(model, optimizer, every_n_steps=1) as watch:
        for made in range(1, 6):
            step()
            assert len(sent) == made
    assert watch.report().records == 5
    assert min(sent) > 4 * len(list(model.parameters()))


def test_between_samples_there_is_one_hook_on_the_optimizer() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session = Session(model, (optimizer,), Schedule(1000, 1, math.inf), lambda record: None)
    session.start()
    step = make_step(model, optimizer)
    step()
    assert not has_global_hooks()
    assert torch._C._len_torch_function_stack() == 0
    assert torch._C._len_torch_dispatch_stack() == 0
    assert not optimizer._optimizer_step_pre_hooks
    assert len(optimizer._optimizer_step_post_hooks) == 1
    assert not any(param._backward_hooks for param in model.parameters())
    output = model(torch.randn(5, 8))
    assert output.grad_fn is not None
    session.stop()


def test_between_samples_our_python_runs_once_a_step() -> None:
    """A constant number of our functions is called, whatever the number of layers."""
    counts = []
    for depth in (2, 40):
        model = make_net(depth)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session = Session(model, (optimizer,), Schedule(1000, 1, math.inf), lambda record: None)
        session.start()
        step = make_step(model, optimizer)
        step()
        counts.append(count_own_calls(step))
        session.stop()
    assert counts[0] == counts[1]
    assert 0 < counts[0] <= 20  # two of them let go of a model that is gone


def count_own_calls(step: Callable[[], None]) -> int:
    """Python functions of the package that a step enters."""
    home, calls = str(Path(gradwatch.__file__).parent), 0

    def see(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(home)

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        step()
    finally:
        sys.setprofile(before)
    return calls


def test_between_samples_no_operation_is_added() -> None:
    counts = []
    for is_watched in (False, True):
        model = make_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session = Session(model, (optimizer,), Schedule(1000, 1, math.inf), lambda record: None)
        if is_watched:
            session.start()
        step = make_step(model, optimizer)
        step()
        with Operations() as operations:
            step()
        session.stop()
        counts.append(operations.names)
    assert counts[0] == counts[1]


def test_hooks_on_parameters_are_looked_for_once_in_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many passes it accumulates; a walk over all modules costs more than a small layer."""
    model, asked = make_net(3), []
    monkeypatch.setattr(forward, "_runs_hook_in_backward", asked.append)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session = Session(model, (optimizer,), Schedule(1), lambda record: None)
    session.start()
    for _ in range(4):
        model(torch.randn(5, 8)).square().mean().backward()
    optimizer.step()
    session.stop()
    assert [id(param) for param in asked] == [id(param) for param in model.parameters()]
