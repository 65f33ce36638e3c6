"""Trainings watched with the compiled package: the records of Python, and no trace of it."""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import gradwatch
from gradwatch.capture import native
from gradwatch.capture.gradients import GradientReader
from gradwatch.capture.native import NativeTable
from tests.capture.test_plan import BY_NAME, ZOO, Run, assert_alike, stop_early
from tests.networks import NETWORKS
from tests.traces import capture_results, list_attachments, list_differences

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 7
ERROR_OF_TORCH = 4e-6
"""Of a norm of 30,000 elements that are added up in float32: 1.8e-6 with AVX512 on an AMD EPYC."""


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each flush of compiled code."""
    found: list[int] = []
    flush = NativeTable.flush

    def count(table: NativeTable, ledger: Any) -> None:
        before = len(ledger.statistics)
        flush(table, ledger)
        found.append(len(ledger.statistics) - before)

    monkeypatch.setattr(NativeTable, "flush", count)
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_the_same_records(name: str, package: Any, readings: list[int]) -> None:
    runs = []
    for chosen in (None, package):
        network = NETWORKS[name]()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "PACKAGE", chosen)
            run = Run(patch)
            run.train(network.model, network.optimizer, lambda: network.train(STEPS))  # noqa: B023
        assert run.n_planned == STEPS - 3
        runs.append(run.records)
    assert_alike(*runs)
    assert sum(readings) > STEPS * len(list(network.model.children()))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("name", ZOO)
def test_a_run_of_the_zoo_gives_the_same_records(name: str, package: Any) -> None:
    runs = []
    for chosen in (None, package):
        training = BY_NAME[name].build()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "PACKAGE", chosen)
            run = Run(patch)
            run.train(training.model, training.optimizers, lambda: stop_early(training))  # noqa: B023
        runs.append(run.records)
    assert_alike(*runs, rtol=ERROR_OF_TORCH)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_trains_bit_identically(name: str, installed: Any) -> None:
    plain = NETWORKS[name]().train(40)
    expected = capture_results(plain.model, [plain.optimizer], plain.losses)
    watched = NETWORKS[name]()
    attached = list_attachments(watched.model, [watched.optimizer])
    with gradwatch.watch(watched.model, watched.optimizer, every_n_steps=1) as watch:
        watched.train(40)
    actual = capture_results(watched.model, [watched.optimizer], watched.losses)
    assert list_differences(expected, actual) == []
    assert watch.failure is None
    assert watch.report().records == 40
    watched.optimizer.zero_grad()
    assert list_differences(attached, list_attachments(watched.model, [watched.optimizer])) == []


class Own(torch.autograd.Function):
    """A function of the user's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2


class Mixed(nn.Module):
    """Half precision, a function of the user's, two outputs, memory with gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(4, 4)
        self.narrow = nn.Linear(4, 4).half()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.tanh(Own.apply(self.first(x)))[:, ::2]
        inner = inner + self.narrow(self.second(inner).half()).float()
        states, _ = self.lstm(inner[:, None].expand(-1, 3, -1))
        result: Tensor = states[:, -1]
        return result


def test_what_is_refused_is_read_in_python(package: Any, readings: list[int]) -> None:
    runs = []
    for chosen in (None, package):
        torch.manual_seed(0)
        model, x = Mixed(), torch.randn(5, 6)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)

        def loop() -> None:
            for _ in range(STEPS):
                optimizer.zero_grad()  # noqa: B023
                model(x).square().mean().backward()  # noqa: B023
                optimizer.step()  # noqa: B023

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "PACKAGE", chosen)
            runs.append(Run(patch).train(model, optimizer, loop).records)
    assert_alike(*runs)
    assert sum(readings)


class Counter(TorchDispatchMode):
    """Operations that a mode of the user's sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **kwargs or {})


class FunctionCounter(TorchFunctionMode):
    """Functions that a mode of the user's sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(getattr(func, "__name__", ""))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("make_mode", [Counter, FunctionCounter])
def test_a_mode_of_the_users_does_not_see_us(make_mode: Any, installed: Any) -> None:
    seen = []
    for is_watched in (False, True):
        network = NETWORKS["mlp"]()
        mode = make_mode()
        with contextlib.ExitStack() as stack:
            if is_watched:
                stack.enter_context(
                    gradwatch.watch(network.model, network.optimizer, every_n_steps=1)
                )
            stack.enter_context(mode)
            network.train(STEPS)
        seen.append(mode.seen)
    assert seen[0] == seen[1]


def test_an_error_of_ours_ends_the_watch_and_not_the_training(
    installed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(reader: GradientReader) -> bool:
        raise RuntimeError("ours")

    monkeypatch.setattr(GradientReader, "_counts", fail)
    network = NETWORKS["mlp"]()
    with pytest.warns(RuntimeWarning, match="ours"):  # noqa: SIM117
        with gradwatch.watch(network.model, network.optimizer, every_n_steps=1) as watch:
            network.train(STEPS)
    assert watch.failure is not None
    assert len(network.losses) == STEPS


def test_an_interruption_by_the_user_goes_on(
    installed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(reader: GradientReader) -> bool:
        raise KeyboardInterrupt

    network = NETWORKS["mlp"]()
    with gradwatch.watch(network.model, network.optimizer, every_n_steps=1):
        network.train(1)
        monkeypatch.setattr(GradientReader, "_counts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            network.train(1)


@pytest.mark.filterwarnings("ignore")  # dynamo's own, about what it traces
@pytest.mark.parametrize("is_installed", [False, True])
def test_a_backward_inside_compiled_code_goes_on(is_installed: bool, package: Any) -> None:
    losses, graphs = [], []

    def note(graph: Any, inputs: Any) -> Any:
        graphs[-1] += 1
        return graph.forward

    for is_watched in (False, True):
        torch._dynamo.reset()
        graphs.append(0)
        network = NETWORKS["mlp"]()
        run_backward = torch.compile(lambda loss: loss.backward(), backend=note)
        with contextlib.ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(native, "PACKAGE", package if is_installed else None)
            stack.enter_context(torch._dynamo.config.patch(compiled_autograd=True))
            if is_watched:
                watch = gradwatch.watch(network.model, network.optimizer, every_n_steps=1)
                stack.enter_context(watch)
            for batch in network.batches:
                network.optimizer.zero_grad()
                loss = network.loss(network.model, batch)
                run_backward(loss)
                network.optimizer.step()
                losses.append(loss.item())
    assert graphs[0] == graphs[1]  # nothing of ours was compiled
    assert watch.failure is None
    assert watch.report().records == len(network.batches)
    assert losses[: len(network.batches)] == losses[len(network.batches) :]


def test_hooks_on_a_graph_that_lives_on_do_nothing(installed: Any) -> None:
    network = NETWORKS["mlp"]()
    x, _ = network.batches[0]
    with gradwatch.watch(network.model, network.optimizer, every_n_steps=1) as watch:
        network.train(STEPS)
        loss = network.model(x).sum()
    loss.backward()
    assert watch.failure is None


def test_a_step_is_free_with_its_graph(installed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = NETWORKS["mlp"]()
    readers: list[weakref.ref[GradientReader]] = []
    begin = GradientReader.__init__

    def note(reader: GradientReader, *args: Any) -> None:
        readers.append(weakref.ref(reader))
        begin(reader, *args)

    monkeypatch.setattr(GradientReader, "__init__", note)
    gc.disable()
    try:
        with gradwatch.watch(network.model, network.optimizer, every_n_steps=1):
            network.train(STEPS)
        assert len(readers) >= STEPS
        assert not any(reader() for reader in readers)
    finally:
        gc.enable()


def test_a_package_with_another_interface_is_passed_over(
    installed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert native.find_package() is installed
    monkeypatch.setattr(installed, "INTERFACE", -1)
    assert native.find_package() is None
    monkeypatch.setitem(sys.modules, "gradwatch_native", None)
    assert native.find_package() is None
