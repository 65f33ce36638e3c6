"""torch.compile: no graph break, no recompilation; compiled code runs between sampled steps."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from gradwatch.capture import compilation
from gradwatch.capture.compilation import HAS_STANCE, UNSEEN
from tests.capture.tools import list_keys, read, read_param, watch_run

needs_stance = pytest.mark.skipif(
    not HAS_STANCE, reason="torch.compiler.set_stance came with torch 2.6"
)


@pytest.fixture(autouse=True)
def uncounted(fresh_dynamo: None) -> None:
    counters.clear()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.first(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.second = Block(), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.block(x))


def train(forward, model: nn.Module, optimizer, steps: int) -> list[float]:
    torch.manual_seed(4)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = forward(torch.randn(5, 4)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


WAYS = ["wrapped", "in_place", "part", "function"]


@needs_stance
@pytest.mark.parametrize("way", WAYS)
def test_compiled_between_sampled_steps(way: str) -> None:
    counter = CompileCounter()
    options = {"backend": counter, "fullgraph": True}

    def build():
        torch.manual_seed(0)
        model = Net()
        watched: nn.Module = model
        forward = model
        if way == "wrapped":
            watched = forward = torch.compile(model, **options)
        elif way == "in_place":
            model.compile(**options)
        elif way == "part":
            model.block.compile(**options)
        else:
            forward = torch.compile(lambda x: model(x), **options)
        return watched, forward, torch.optim.SGD(model.parameters(), lr=0.1)

    model, forward, optimizer = build()
    expected = train(forward, model, optimizer, 12)
    compilations = counter.frame_count
    assert compilations == 1
    torch._dynamo.reset()
    counter.clear()
    counters.clear()
    model, forward, optimizer = build()
    losses: list[float] = []
    records = watch_run(
        model,
        optimizer,
        lambda: losses.extend(train(forward, model, optimizer, 12)),
        every_n_steps=4,
        first_steps=2,
    )
    assert losses == pytest.approx(expected, rel=1e-5)
    assert counter.frame_count == 1
    assert not counters["graph_break"]
    assert [record.global_step for record in records] == [0, 1, 4, 8]
    for record in records:
        assert list_keys(record) == ["block.first", "block:sigmoid", "second"]
        assert read(record, "grad_output_l2_norm", "block.first") > 0


@needs_stance
@pytest.mark.parametrize("way", ["wrapped", "in_place", "function"])
def test_compiled_after_the_first_step_was_armed(way: str) -> None:
    counter = CompileCounter()
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loop() -> None:
        forward = model
        if way == "wrapped":
            forward = torch.compile(model, backend=counter, fullgraph=True)
        elif way == "in_place":
            model.compile(backend=counter, fullgraph=True)
        else:
            forward = torch.compile(lambda x: model(x), backend=counter, fullgraph=True)
        train(forward, model, optimizer, 12)

    records = watch_run(model, optimizer, loop, every_n_steps=4, first_steps=2)
    assert [record.global_step for record in records] == [0, 1, 4, 8]
    assert all(len(list_keys(record)) == 3 for record in records)
    assert counter.frame_count == 1
    assert not counters["graph_break"]


@needs_stance
def test_unsampled_steps_run_the_compiled_code() -> None:
    """A backend that counts the runs of what it compiled."""
    runs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]):
        def run(*args):
            runs.append(1)
            return graph(*args)

        return run

    model = Net()
    compiled = torch.compile(model, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = lambda: train(compiled, compiled, optimizer, 10)  # noqa: E731
    watch_run(compiled, optimizer, loop, every_n_steps=5, first_steps=0)
    assert len(runs) == 8


def test_names_are_those_of_the_model_that_was_compiled() -> None:
    model = Net()
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = watch_run(compiled, optimizer, lambda: train(compiled, model, optimizer, 1))[0]
    assert record.layer_set.params[0].fqn == "block.first.weight"


@needs_stance
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.slow
def test_inductor(mode: str) -> None:
    """The real compiler, losses as without us."""
    results = []
    for watched in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = Net()
        forward = torch.compile(model, fullgraph=True, mode=mode)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses: list[float] = []
        run = lambda: losses.extend(train(forward, model, optimizer, 6))  # noqa: B023, E731
        if watched:
            records = watch_run(forward, optimizer, run, every_n_steps=3, first_steps=0)
            assert [record.global_step for record in records] == [0, 3]
        else:
            run()
        results.append(losses)
    assert results[0] == pytest.approx(results[1], rel=1e-5)


@pytest.mark.parametrize("way", ["wrapped", "in_place", "part"])
def test_an_older_torch_sees_parameters_only(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and leaves the compiled code alone on every step."""
    monkeypatch.setattr(compilation, "HAS_STANCE", False)
    counter = CompileCounter()
    model = Net()
    watched: nn.Module = model
    if way == "wrapped":
        watched = torch.compile(model, backend=counter, fullgraph=True)
    else:
        (model if way == "in_place" else model.block).compile(backend=counter, fullgraph=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = lambda: train(watched, model, optimizer, 6)  # noqa: E731
    records = watch_run(watched, optimizer, loop, every_n_steps=3, first_steps=2)
    assert [record.global_step for record in records] == [0, 1, 3]
    for record in records:
        assert list_keys(record) == []
        assert record.layer_set.notes == (UNSEEN,)
        assert read_param(record, "grad_l2_norm", "block.first.weight") > 0
        assert read_param(record, "update_l2_norm", "block.first.weight") > 0
    assert counter.frame_count == 1
    assert not counters["graph_break"]


def test_an_older_torch_sees_the_layers_of_what_is_not_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compilation, "HAS_STANCE", False)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = watch_run(model, optimizer, lambda: train(model, model, optimizer, 1))[0]
    assert list_keys(record) == ["block.first", "block:sigmoid", "second"]
    assert record.layer_set.notes == ()
