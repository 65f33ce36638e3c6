"""Exceptions: training's own pass through unchanged; ours are said once and switch us off."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from gradwatch.capture import followed_calls, gradients, graph_clock, saturation
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import Session
from tests.capture.tools import assert_no_trace, assert_same, list_keys, read, take_state


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)
        self.error: BaseException | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        if self.error is not None:
            raise self.error
        return self.second(x)


class Raiser(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        raise ZeroDivisionError("in backward")


@pytest.fixture
def watched():
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    records: list = []
    session = Session(model, (optimizer,), Schedule(1), records.append)
    session.start()
    yield model, optimizer, session, records
    session.stop()
    assert_no_trace(model, (optimizer,))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, StopIteration])
def test_an_exception_in_forward_passes_through_and_watching_goes_on(watched, kind) -> None:
    model, optimizer, session, records = watched
    step(model, optimizer)
    model.error = kind("mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind) as caught:
            step(model, optimizer)
    assert caught.value is model.error
    model.error = None
    step(model, optimizer)
    step(model, optimizer)
    session.stop()
    assert session.failure is None
    assert [record.global_step for record in records] == [0, 1, 2]
    assert list_keys(records[-1]) == ["first", "tanh", "second"]
    assert all(read(record, "grad_output_l2_norm", "first") > 0 for record in records)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_after_an_exception_that_ends_the_training(watched, kind) -> None:
    model, optimizer, session, _ = watched
    model.error = kind("mine")
    with pytest.raises(kind):
        step(model, optimizer)
    session.stop()
    assert_no_trace(model, (optimizer,))


def test_an_exception_in_backward(watched) -> None:
    model, optimizer, session, records = watched
    step(model, optimizer)
    with pytest.raises(ZeroDivisionError):
        Raiser.apply(model(torch.randn(3, 4))).sum().backward()
    step(model, optimizer)
    step(model, optimizer)
    assert session.failure is None
    assert [record.step("passes") for record in records] == [1, 1, 1]


def test_an_exception_in_a_step_or_hook_of_the_users(watched) -> None:
    model, optimizer, session, records = watched

    def raise_once(*_) -> None:
        handle.remove()
        raise ValueError("in the user's hook")

    handle = model.second.register_forward_hook(raise_once)
    with pytest.raises(ValueError, match="user's hook"):
        step(model, optimizer)
    step(model, optimizer)
    assert session.failure is None
    assert len(records) == 1


PLACES = {
    "forward hook": (followed_calls, "find_role"),
    "activation": (saturation, "measure_saturation"),
    "backward hook": (gradients.statistics, "measure_zero_fraction"),
    "record": (Session, "deliver"),
    "between samples": (graph_clock.GraphClock, "tick"),
}


@pytest.mark.parametrize("place", sorted(PLACES))
def test_an_error_of_ours_is_said_once_and_training_is_unchanged(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(watch: bool):
        torch.manual_seed(0)
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session = Session(model, (optimizer,), Schedule(1), lambda record: None)
        if watch:
            session.start()
        for _ in range(4):
            step(model, optimizer)
        if watch:
            assert isinstance(session.failure, ArithmeticError)
            assert_no_trace(model, ())
            session.stop()
            assert_no_trace(model, (optimizer,))
        return take_state(model, (optimizer,))

    expected = run(False)

    def fail(*args, **kwargs) -> None:
        raise ArithmeticError("of ours")

    home, name = PLACES[place]
    original = getattr(home, name)

    def deliver(self, wait: bool = False) -> None:
        if self._records.pending and not self.failure:
            self.guard(fail)
        original(self, wait)

    monkeypatch.setattr(home, name, deliver if place == "record" else fail)
    with pytest.warns(RuntimeWarning, match="ArithmeticError: of ours") as caught:
        found = run(True)
    assert len(caught) == 1
    assert_same(found, expected)


def test_an_error_of_the_receiver_switches_off(watched) -> None:
    model, optimizer, session, _ = watched

    def fail(record) -> None:
        raise OSError("disk full")

    session.on_record = fail
    with pytest.warns(RuntimeWarning, match="disk full"):
        step(model, optimizer)
    step(model, optimizer)
    assert isinstance(session.failure, OSError)


def test_warnings_as_errors_do_not_stop_the_training(
    watched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, optimizer, *_ = watched
    monkeypatch.setattr(followed_calls, "find_role", lambda module: 1 / 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(model, optimizer)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_mode_of_the_users_is_left_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours inside forward, below a function mode that the user's forward entered."""

    class Mode(torch.overrides.TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            Mode.seen += 1
            return func(*args, **(kwargs or {}))

    class Host(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Net()

        def forward(self, x: Tensor) -> Tensor:
            with Mode():
                x = self.body(x)
                before = Mode.seen
                x = torch.tanh(x)
                assert Mode.seen == before + 1
            return x

    model = Host()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session = Session(model, (optimizer,), Schedule(1), lambda record: None)
    session.start()
    step(model, optimizer)
    monkeypatch.setattr(saturation, "measure_saturation", lambda *_: 1 / 0)
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
        step(model, optimizer)
    assert_no_trace(model)
    session.stop()
