"""Timers and signals that fire while functions of ours run: what they raise is the training's."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.capture import functions, statistics
from gradwatch.capture.arming import Arming
from gradwatch.capture.cuts import CutFinder
from gradwatch.interruption import is_foreign
from tests.capture.tools import assert_no_trace

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")

SIGNALS = int(os.environ.get("GRADWATCH_SIGNALS", "60"))


class EnoughError(Exception):
    """A time limit of the training's."""


class Counted:
    """A handler that raises; counts how often."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind
        self.raised = 0

    def __call__(self, *_: Any) -> None:
        self.raised += 1
        raise self.kind


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def make_training() -> tuple[nn.Module, torch.optim.Optimizer]:
    parts = [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(4)]
    model = nn.Sequential(*parts, nn.Linear(8, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(4, 8)).sum().backward()
    optimizer.step()


def count_caught(handler: Counted, count: int, folder: Path) -> int:
    """Train for so many signals; how many of them the training has caught."""
    caught = 0
    model, optimizer = make_training()
    draw = random.Random(1)
    step(model, optimizer)  # torch imports parts of itself, and swallows what is raised meanwhile
    with gradwatch.watch(model, optimizer, every_n_steps=1, logdir=folder) as watching:
        while handler.raised < count:
            before = handler.raised
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-4, 8e-3))
                while handler.raised == before:
                    step(model, optimizer)
            except handler.kind:
                caught += 1
                torch.set_grad_enabled(True)  # torch's own no_grad may be cut short, too
            signal.setitimer(signal.ITIMER_REAL, 0)
    assert watching.failure is None
    assert_no_trace(model, (optimizer,))
    return caught


@pytest.mark.parametrize("kind", [EnoughError, TimeoutError, KeyboardInterrupt])
def test_random_signals_reach_the_training(
    kind: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but those that Python drops: what is raised in a callback of the garbage collector."""
    dropped: list[object] = []

    def note(unraisable: Any) -> None:
        assert issubclass(unraisable.exc_type, kind)
        dropped.append(unraisable.object)

    monkeypatch.setattr(sys, "unraisablehook", note)
    handler = Counted(kind)
    signal.signal(signal.SIGALRM, handler)
    caught = count_caught(handler, SIGNALS, tmp_path)
    assert caught + len(dropped) == handler.raised
    assert len(dropped) <= SIGNALS / 10


@pytest.mark.parametrize("kind", [EnoughError, RuntimeError, ValueError])
def test_a_handler_inside_a_function_of_ours(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def handle(number: int, frame: object) -> None:
        raise kind("theirs")

    def interrupt(*_: Any) -> None:
        signal.raise_signal(signal.SIGALRM)

    signal.signal(signal.SIGALRM, handle)
    model, optimizer = make_training()
    with gradwatch.watch(model, optimizer) as watching:
        step(model, optimizer)
        with monkeypatch.context() as patch:
            patch.setattr(statistics, "measure_l2_norm", interrupt)
            with pytest.raises(kind, match="theirs"):
                step(model, optimizer)
        assert watching.failure is None
        step(model, optimizer)
    assert watching.failure is None
    assert_no_trace(model, (optimizer,))


def test_a_signal_before_a_record_is_made_does_not_mislead_the_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The record that waited is made later, and describes calls that the next step is to plan."""

    def handle(number: int, frame: object) -> None:
        raise EnoughError

    signal.signal(signal.SIGALRM, handle)
    model, optimizer = make_training()
    with gradwatch.watch(model, optimizer, every_n_steps=1) as watching:
        for _ in range(6):
            step(model, optimizer)
        with monkeypatch.context() as patch:
            patch.setattr(Arming, "note_end", lambda *_: signal.raise_signal(signal.SIGALRM))
            with pytest.raises(EnoughError):
                step(model, optimizer)
        for _ in range(4):
            step(model, optimizer)
        assert watching.failure is None
    assert watching.report().records > 8


class Interrupting(torch.Tensor):
    """A signal comes while somebody asks where it lies."""

    def data_ptr(self) -> int:
        signal.raise_signal(signal.SIGALRM)
        return 0

    def untyped_storage(self) -> Any:
        signal.raise_signal(signal.SIGALRM)


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_a_handler_where_a_tensor_may_have_no_memory(kind: type[Exception]) -> None:
    """Torch says that with the same exceptions."""
    handler = Counted(kind)
    signal.signal(signal.SIGALRM, handler)
    tensor = torch.ones(2).as_subclass(Interrupting)
    with pytest.raises(kind):
        functions._note_operands(set(), (tensor,), {})
    with pytest.raises(kind):
        CutFinder({}).find_owners(tensor)
    assert handler.raised == 2


def test_an_error_of_ours_is_not_taken_for_a_signals() -> None:
    signal.signal(signal.SIGALRM, Counted(EnoughError))
    with pytest.raises(AttributeError) as found:
        statistics.measure_l2_norm(None)  # type: ignore[arg-type]
    assert not is_foreign(found.value)


if __name__ == "__main__":
    import tempfile

    warnings.simplefilter("error")
    for error in (EnoughError, TimeoutError, RuntimeError, KeyboardInterrupt):
        counter = Counted(error)
        signal.signal(signal.SIGALRM, counter)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as place:
            found = count_caught(counter, int(sys.argv[1]), Path(place))
        print(error.__name__, found, counter.raised, f"{time.perf_counter() - began:.1f} s")
