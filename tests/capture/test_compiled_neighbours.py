"""Other models' compiled code during a sampled step: it is compiled and runs as without a watch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import gradwatch
from gradwatch.capture.compilation import HAS_STANCE
from gradwatch.capture.compiled_calls import MAX_OBJECTS, leads_to
from tests.capture.tools import list_keys, watch_run

pytestmark = [
    pytest.mark.usefixtures("fresh_dynamo"),
    pytest.mark.skipif(not HAS_STANCE, reason="torch.compiler.set_stance came with torch 2.6"),
]

STEPS = 6


class Backend:
    """Counts what it compiles, and the runs of it."""

    def __init__(self) -> None:
        self.compiled = self.runs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        self.compiled += 1

        def run(*args: Any) -> Any:
            self.runs += 1
            return graph(*args)

        return run


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


LAYERS = ["first", "tanh", "second"]


def make_net(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net()


def compile_neighbour(way: str, backend: Backend) -> Callable[[Tensor], Tensor]:
    net = make_net(1)
    if way == "in_place":
        net.compile(backend=backend, fullgraph=True)
        return net
    if way == "wrapped":
        return torch.compile(net, backend=backend, fullgraph=True)
    return torch.compile(lambda x: net(x).softmax(1), backend=backend, fullgraph=True)


class Cut(Net):
    """Takes a part of its layers, which registers them once more."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([self.first, self.second])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:2]:
            x = layer(x)
        return x


class Loss(nn.Module):
    """A perceptual loss: another network looks at what the watched one has made."""

    def __init__(self, judge: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.judges = [judge]

    def forward(self, y: Tensor) -> Tensor:
        return self.judges[0](y.relu()).square().mean()


def train(
    forward: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    neighbour: Callable[[Tensor], Tensor],
    place: str,
) -> list[float]:
    torch.manual_seed(2)
    losses, loss_fn = [], Loss(neighbour)
    for _ in range(STEPS):
        x = torch.randn(5, 4)
        if place == "before forward":
            x = neighbour(x).detach()
        y = forward(x)
        loss = loss_fn(y) if place == "in the loss" else y.relu().square().mean()
        if place == "between":
            loss = loss + neighbour(y).mean()
        loss.backward()
        if place == "after backward":
            neighbour(y.detach())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def run(way: str, place: str, is_watched: bool) -> tuple[int, int, list[float]]:
    """What the neighbour's backend has compiled and run, and the training's losses."""
    torch._dynamo.reset()
    backend, own = Backend(), Backend()
    model = make_net(0)
    forward = torch.compile(model, backend=own, fullgraph=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses: list[float] = []

    def loop() -> None:
        losses.extend(train(forward, optimizer, compile_neighbour(way, backend), place))

    records = watch_run(forward, optimizer, loop, 2, first_steps=3) if is_watched else loop()
    sampled = [record.global_step for record in records or ()]
    assert sampled == ([0, 1, 2, 4] if is_watched else [])
    assert all(list_keys(record)[:3] == LAYERS for record in records or ())
    assert own.runs == STEPS - len(sampled)
    return backend.compiled, backend.runs, losses


@pytest.mark.parametrize("way", ["wrapped", "in_place", "function"])
@pytest.mark.parametrize("place", ["before forward", "between", "in the loss", "after backward"])
def test_a_neighbour_stays_compiled(way: str, place: str) -> None:
    alone, beside_a_watch = run(way, place, False), run(way, place, True)
    assert alone == beside_a_watch
    assert alone[1] == STEPS


def test_code_that_leads_to_the_model_runs_eagerly_wherever_it_is_called() -> None:
    """A whole training step, compiled, through an object that has the model among other things."""

    class Trainer:
        def __init__(self) -> None:
            self.parts = {"model": make_net(0)}
            self.optimizer = torch.optim.SGD(self.parts["model"].parameters(), lr=0.1)
            self.compute_loss = torch.compile(self.compute, backend=own)

        def compute(self, x: Tensor) -> Tensor:
            return self.parts["model"](x).square().mean()

        def fit(self) -> None:
            for _ in range(STEPS):
                self.optimizer.zero_grad()
                self.compute_loss(torch.randn(5, 4)).backward()
                self.optimizer.step()

    own = Backend()
    trainer = Trainer()
    records = watch_run(
        trainer.parts["model"], trainer.optimizer, trainer.fit, every_n_steps=3, first_steps=1
    )
    assert [list_keys(record) for record in records] == [LAYERS] * 2
    assert own.runs == STEPS - 2


def test_code_that_hides_the_model_is_found_out_after_one_step() -> None:
    """An iterator does not say what it holds; the step that saw nothing of the model does."""
    backend = Backend()
    model = make_net(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    models = itertools.repeat(model)
    forward = torch.compile(lambda x: next(models)(x), backend=backend)

    def loop() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            forward(torch.ones(5, 4)).square().mean().backward()
            optimizer.step()

    records = watch_run(model, optimizer, loop)
    assert list_keys(records[-1]) == LAYERS


def test_two_watches_whose_steps_overlap_leave_the_stance_as_it_was() -> None:
    import gradwatch

    before = torch._dynamo.eval_frame._stance
    models = [make_net(0), make_net(1)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    watches = [gradwatch.watch(*pair) for pair in zip(models, optimizers, strict=True)]
    with torch.compiler.set_stance("default"):
        for model in models:
            model(torch.ones(2, 4)).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        for watch in watches:
            watch.detach()
    assert torch._dynamo.eval_frame._stance.stance == before.stance == "default"
    counter = CompileCounter()
    torch.compile(make_net(2), backend=counter)(torch.ones(2, 4))
    assert counter.frame_count == 1


def test_what_refers_to_too_much_may_lead_anywhere() -> None:
    many = [[number] for number in range(MAX_OBJECTS)]
    few = many[:10]
    assert leads_to(lambda: many, {id(many[0])})
    assert leads_to(lambda: many, set())
    assert not leads_to(lambda: few, set())


def test_a_neighbour_that_registers_modules_is_compiled_once() -> None:
    """A hook of ours on that would be another state of torch, and make dynamo compile again."""
    backend, net = Backend(), make_net(0)
    neighbour = torch.compile(Cut(), backend=backend, fullgraph=True)
    neighbour(torch.randn(3, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def loop() -> None:
        for _ in range(2):
            net(neighbour(torch.randn(3, 4)).detach()).sum().backward()
            optimizer.step()

    assert len(watch_run(net, optimizer, loop)) == 2
    assert (backend.compiled, backend.runs) == (1, 3)


def test_two_watches_at_once_leave_a_neighbour_compiled() -> None:
    backend, nets = Backend(), [make_net(seed) for seed in range(2)]
    neighbour = compile_neighbour("wrapped", backend)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in nets]
    with ExitStack() as stack:
        for net, optimizer in zip(nets, optimizers, strict=True):
            stack.enter_context(gradwatch.watch(net, optimizer, every_n_steps=1))
        for _ in range(2):
            for net, optimizer in zip(nets, optimizers, strict=True):
                net(neighbour(torch.randn(3, 4)).detach()).sum().backward()
                optimizer.step()
    assert (backend.compiled, backend.runs) == (1, 4)
