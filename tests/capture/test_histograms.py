"""Pre-activation histograms: counted at the first sampled step and every tenth, from the inputs."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import HISTOGRAM_EVERY, Session
from gradwatch.records import HISTOGRAM_EDGES, StepRecord


def record_steps(model: nn.Module, x: torch.Tensor, steps: int) -> list[StepRecord]:
    records: list[StepRecord] = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    session = Session(model, (optimizer,), Schedule(1), records.append)
    session.start()
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
    session.stop()
    assert session.failure is None
    return records


def test_counts_are_those_of_the_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(32, 8) * 5
    (record,) = record_steps(model, x, 1)
    z = model[0](x).detach().clamp(HISTOGRAM_EDGES[0], HISTOGRAM_EDGES[-1])
    expected, _ = np.histogram(z.numpy(), bins=np.array(HISTOGRAM_EDGES, dtype=np.float32))
    np.testing.assert_array_equal(record.histograms["1"], expected)
    assert record.histograms["1"].sum() == z.numel()


def test_every_tenth_sampled_step_has_them() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 1))
    records = record_steps(model, torch.randn(8, 4), 2 * HISTOGRAM_EVERY + 1)
    drawn = [record.global_step for record in records if record.histograms]
    assert drawn == [0, HISTOGRAM_EVERY, 2 * HISTOGRAM_EVERY]


def test_inputs_that_were_overwritten_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 1))
    (record,) = record_steps(model, torch.randn(8, 4), 1)
    assert record.histograms == {}


def test_several_calls_of_a_step_add_up() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 1))
    records: list[StepRecord] = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session = Session(model, (optimizer,), Schedule(1), records.append)
    session.start()
    for _ in range(3):
        model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    session.stop()
    assert records[0].histograms["1"].sum() == 3 * 8 * 4
