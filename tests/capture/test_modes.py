"""Evaluation between steps, double backward, functional calls, vmap, threads, replicas."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.capture.tools import (
    assert_harmless,
    list_keys,
    make_loop,
    read,
    read_param,
    watch_run,
)


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    parts = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 2)
    return nn.Sequential(*parts).double()


def make_data(count: int = 8) -> Tensor:
    return torch.randn(count, 4, dtype=torch.float64)


EVALUATIONS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "eval only": torch.enable_grad,
}


@pytest.mark.parametrize("kind", sorted(EVALUATIONS))
@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_evaluation_passes_are_not_counted(kind: str, when: str) -> None:
    """Before forward, between forward and backward, and between backward and step."""

    def build(evaluates: bool = True):
        model, x = make_net(), make_data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def evaluate(now: str) -> None:
            if evaluates and now == when:
                model.eval()
                with EVALUATIONS[kind]():
                    model(10 * x)
                model.train()

        def loop() -> list[float]:
            losses = []
            for _ in range(3):
                optimizer.zero_grad()
                evaluate("before")
                loss = model(x).square().mean()
                evaluate("between")
                loss.backward()
                evaluate("after")
                optimizer.step()
                losses.append(loss.item())
            return losses

        return model, optimizer, loop

    records = assert_harmless(build)
    expected = assert_harmless(lambda: build(False))
    for record, other in zip(records, expected, strict=True):
        for key in list_keys(other):
            for name in ("grad_output_l2_norm", "output_l2_norm", "zero_fraction"):
                found, wanted = read(record, name, key), read(other, name, key)
                if when != "between" or kind != "eval only":
                    assert found == pytest.approx(wanted, rel=1e-9, nan_ok=True), (key, name)
        assert record.step("passes") == 1
        assert record.param_values == pytest.approx(other.param_values, rel=1e-9, nan_ok=True)


def test_training_in_eval_mode_is_training() -> None:
    model, x = make_net().eval(), make_data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = watch_run(model, optimizer, make_loop(model, optimizer, x))[0]
    assert read(record, "grad_output_l2_norm", "0") > 0


def make_smooth() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()


class Smooth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6).double(), nn.Linear(6, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.first(x)
        return self.second(torch.tanh(self.kept))


def penalise(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    y = model(x)
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y.mean() + (grad.norm(dim=1) - 1).square().mean()


def test_gradient_penalty() -> None:
    """``autograd.grad`` with ``create_graph`` inside the loss is no backward pass of its own."""

    def build():
        model, x = Smooth(), make_data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def loop() -> list[float]:
            losses = []
            for _ in range(3):
                optimizer.zero_grad()
                loss = penalise(model, x)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            del model.kept
            return losses

        return model, optimizer, loop

    record = assert_harmless(build)[0]
    assert record.step("passes") == 1
    torch.manual_seed(1)
    model, x = Smooth(), make_data()
    loss = penalise(model, x)
    model.kept.retain_grad()
    loss.backward()
    expected = model.kept.grad.norm().item()
    assert read(record, "grad_output_l2_norm", "first") == pytest.approx(expected, rel=1e-6)
    expected = model.first.weight.grad.norm().item()
    assert read_param(record, "grad_l2_norm", "first.weight") == pytest.approx(expected, rel=1e-6)


def test_backward_of_a_backward() -> None:
    def build():
        model, x = make_smooth(), make_data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

        def loop() -> list[float]:
            losses = []
            for _ in range(3):
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward(create_graph=True)
                sum(p.grad.square().sum() for p in model.parameters()).backward()
                optimizer.step()
                losses.append(loss.item())
            for param in model.parameters():
                param.grad = None
            return losses

        return model, optimizer, loop

    with pytest.warns(UserWarning, match="create_graph"):
        records = assert_harmless(build)
    assert len(records) == 3


def test_retained_graph_with_two_backwards_is_two_passes() -> None:
    model, x = make_smooth(), make_data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def loop() -> None:
        y = model(x)
        y.mean().backward(retain_graph=True)
        y.square().mean().backward()
        optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    expected = model[0].weight.grad.norm().item()
    assert read_param(record, "grad_l2_norm", "0.weight") == pytest.approx(expected, rel=1e-6)
    assert len(list_keys(record)) == 3


def test_functional_call_and_vmap_and_func_grad() -> None:
    def build():
        model, x = make_smooth(), make_data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def loop() -> list[float]:
            losses = []
            for _ in range(3):
                optimizer.zero_grad()
                params = dict(model.named_parameters())
                single = torch.func.vmap(
                    torch.func.grad(
                        lambda p, sample: torch.func.functional_call(model, p, (sample,)).sum()
                    ),
                    in_dims=(None, 0),
                )(params, x)
                batched = torch.func.vmap(model)(x).mean()
                loss = torch.func.functional_call(model, params, (x,)).square().mean()
                loss = loss + single["0.bias"].square().mean() + batched
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            return losses

        return model, optimizer, loop

    records = assert_harmless(build)
    assert len(records) == 3
    assert list_keys(records[0]) == ["0", "1", "2"]
    assert read(records[0], "grad_output_l2_norm", "2") > 0


def test_another_thread_may_use_the_model() -> None:
    model, x = make_smooth(), make_data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                model(x).sum()
        except BaseException as error:
            errors.append(error)

    def loop() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        make_loop(model, optimizer, x, steps=5)()
        thread.join()

    records = watch_run(model, optimizer, loop)
    assert not errors
    assert all(list_keys(record) == ["0", "1", "2"] for record in records)
    assert all(record.layer_set.notes == () for record in records)


class Towers(nn.Module):
    """Two towers, one of which may run in a thread of its own."""

    def __init__(self, in_thread: bool) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)
        self.in_thread = in_thread
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        if not self.in_thread:
            return self.head(self.left(x) + self.right(x))
        with ThreadPoolExecutor(1) as pool:
            right = pool.submit(self.right, x)
        return self.head(self.left(x) + right.result())


@pytest.mark.parametrize("in_thread", [False, True])
def test_what_forward_runs_in_another_thread_is_said_not_to_be_seen(in_thread: bool) -> None:
    def build():
        model, x = Towers(in_thread), make_data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, optimizer, make_loop(model, optimizer, x)

    records = assert_harmless(build)
    note = "layers that forward runs in other threads are not seen"
    for record in records:
        assert list_keys(record) == (["left", "head"] if in_thread else ["left", "right", "head"])
        assert record.layer_set.notes == ((note,) if in_thread else ())
        assert read_param(record, "grad_l2_norm", "right.weight") > 0


def test_data_parallel_wrapper_keeps_the_names_of_the_model() -> None:
    model, x = make_smooth(), make_data()
    wrapper = nn.DataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = watch_run(wrapper, optimizer, make_loop(wrapper, optimizer, x))[0]
    assert list_keys(record) == ["0", "1", "2"]
    assert record.layer_set.params[0].fqn == "0.weight"


def test_evaluation_with_a_graph_keeps_no_graph_alive() -> None:
    """A forward whose result is dropped is freed at once, though the step is sampled."""
    freed = []

    class Probe(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            ctx.token = Token()
            return x.clone()

        @staticmethod
        def backward(ctx, grad: Tensor) -> Tensor:
            return grad

    class Token:
        def __del__(self) -> None:
            freed.append(1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return Probe.apply(torch.sigmoid(self.body(x)))

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loop() -> None:
        for count in range(1, 4):
            model(torch.randn(2, 4))
            assert len(freed) == count

    watch_run(model, optimizer, loop)


class Warns(nn.Module):
    """Torch warns of the lines in it, at depths of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.softmax = nn.Softmax()  # without dim: torch warns of whoever calls the module

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.softmax(self.linear(x))
        return F.mse_loss(F.softmax(hidden), x[:, :1])


def list_warnings(watched: bool) -> set[tuple[str, str]]:
    """Text and file of each."""
    torch.manual_seed(0)
    model = Warns()
    optimizer = SGD(model.parameters(), lr=0.1)

    def loop() -> None:
        for _ in range(3):
            model(torch.randn(3, 4)).backward()
            optimizer.step()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if watched:
            watch_run(model, optimizer, loop)
        else:
            loop()
    return {(str(warning.message), warning.filename) for warning in caught}


def test_warnings_of_torch_name_the_lines_that_they_name_without_us() -> None:
    assert list_warnings(True) == list_warnings(False)
    assert len(list_warnings(True)) == 3


def test_a_users_filter_by_module_fits_while_watched() -> None:
    torch.manual_seed(0)
    model = Warns()
    optimizer = SGD(model.parameters(), lr=0.1)

    def loop() -> None:
        model(torch.randn(3, 4)).backward()
        optimizer.step()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for module in (__name__, "torch.nn.modules.module"):
            warnings.filterwarnings("ignore", module=module.replace(".", r"\."))
        watch_run(model, optimizer, loop)


class LoggedFunctions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class LoggedOperations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Attentive(nn.Module):
    """Whose statistics take products of matrices: inside an LSTM, and of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        return torch.tanh(F.scaled_dot_product_attention(y, y, y)).pow(2).mean()


@pytest.mark.parametrize("kind", [LoggedFunctions, LoggedOperations])
def test_modes_of_the_users_do_not_see_ours(kind: Any) -> None:
    seen = []
    for watched in (False, True):
        torch.manual_seed(0)
        model, mode = Attentive(), kind()
        optimizer = SGD(model.parameters(), lr=0.1)

        def loop(model: nn.Module = model, mode: Any = mode, optimizer: SGD = optimizer) -> None:
            for _ in range(2):
                with mode:
                    model(torch.randn(2, 3, 4)).backward()
                    optimizer.step()

        if watched:
            watch_run(model, optimizer, loop)
        else:
            loop()
        seen.append(mode.seen)
    assert seen[0] == seen[1]
