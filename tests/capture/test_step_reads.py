"""Loops over time that carry a state themselves: the gradient at each stretch of steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradwatch.records import StepRecord
from tests.capture.tools import make_loop, watch_run

Steps = Callable[[Tensor], list[Tensor]]

WAYS: dict[str, tuple[Steps, int]] = {
    "select": (lambda u: [u[:, step] for step in range(u.shape[1])], 1),
    "unbind": (lambda u: list(u.unbind(1)), 1),
    "slices": (lambda u: [u[:, step : step + 1].squeeze(1) for step in range(u.shape[1])], 1),
    "split": (lambda u: [part.squeeze(1) for part in u.split(1, 1)], 1),
    "transposed": (lambda u: list(u.transpose(0, 1)), 1),
}


class Loop(nn.Module):
    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.write, self.read = nn.Linear(3, 5), nn.Linear(5, 2)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        self.written = self.write(x)
        if self.written.requires_grad:
            self.written.retain_grad()
        state = {"h": torch.zeros(len(x), 5)}
        for step in self.steps(self.written):
            state["h"] = torch.tanh(0.5 * state["h"] + step)
        return self.read(state["h"])


def watch(model: nn.Module, steps: int = 1, length: int = 16) -> list[StepRecord]:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return watch_run(
        model, optimizer, make_loop(model, optimizer, torch.randn(6, length, 3), steps=steps)
    )


def read_steps(record: StepRecord, fqn: str = "write") -> list[float]:
    grads = record.layer("grad_output_l2_norm").tolist()
    layers = zip(record.layer_set.layers, grads, strict=True)
    return [grad for layer, grad in layers if layer.fqn == f"{fqn}:time"]


@pytest.mark.parametrize("way", WAYS)
def test_gradient_of_each_stretch_of_time_is_that_of_autograd(way: str) -> None:
    steps, axis = WAYS[way]
    model = Loop(steps)
    record = watch(model)[-1]
    pairs = model.written.grad.square().sum((0, 2)).reshape(8, 2).mean(1).sqrt()
    assert read_steps(record) == pytest.approx(pairs.tolist(), rel=1e-5)
    (write,) = (layer for layer in record.layer_set.layers if layer.fqn == "write")
    assert write.step_axis == axis


def test_planned_steps_read_what_followed_ones_do() -> None:
    records = watch(Loop(WAYS["select"][0]), steps=6)
    assert [len(read_steps(record)) for record in records] == [8] * 6
    assert all(0 < row[0] < row[-1] for row in map(read_steps, records))


def test_a_state_that_is_detached_leaves_nothing_to_the_first_steps() -> None:
    class Cut(Loop):
        def forward(self, x: Tensor) -> Tensor:
            states = [torch.zeros(len(x), 5)]
            for step in self.steps(self.write(x)):
                states.append(states[-1].detach() + step)
            return self.read(torch.stack(states)[-1])

    *early, last = read_steps(watch(Cut(WAYS["select"][0]))[-1])
    assert early == [0.0] * 7
    assert last > 0


def test_positions_that_are_read_side_by_side_are_no_time_steps() -> None:
    class Sum(Loop):
        def forward(self, x: Tensor) -> Tensor:
            return self.read(torch.stack([step.tanh() for step in self.write(x).unbind(1)]).sum(0))

    assert read_steps(watch(Sum(WAYS["unbind"][0]))[-1]) == []


def test_a_loop_backwards_in_time_is_left_alone() -> None:
    backwards = Loop(lambda u: list(u.unbind(1))[::-1])
    assert read_steps(watch(backwards)[-1]) == []


@pytest.mark.parametrize("cell", [nn.RNN(5, 5, batch_first=True), nn.GRUCell(5, 5)])
def test_what_a_recurrent_module_reads_is_its_own(cell: nn.Module) -> None:
    class Before(Loop):
        def __init__(self) -> None:
            super().__init__(WAYS["unbind"][0])
            self.cell = cell

        def forward(self, x: Tensor) -> Tensor:
            written, state = self.write(x), torch.zeros(len(x), 5)
            if isinstance(self.cell, nn.RNN):
                return self.read(self.cell(written)[0][:, -1])
            for step in written.unbind(1):
                state = self.cell(step, state)
            return self.read(state)

    assert read_steps(watch(Before())[-1]) == []
