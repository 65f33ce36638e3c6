"""On a GPU: no synchronisation but the transfer of a sampled step; CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import Session
from gradwatch.records import StepRecord

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def strict_sync() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def make_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(8 * 36, 16), nn.Sigmoid(), nn.Linear(16, 4),
    ).cuda()  # fmt: skip


def test_no_synchronisation(strict_sync: None) -> None:
    model = make_net()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.randn(4, 3, 8, 8, device="cuda")
    records: list[StepRecord] = []
    session = Session(model, (optimizer,), Schedule(1), records.append)
    session.start()
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    torch.cuda.set_sync_debug_mode("default")
    session.stop()
    assert session.failure is None
    assert len(records) == 5
    assert (records[0].param("grad_l2_norm") > 0).all()


def test_recurrent_and_attention(strict_sync: None) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(8, 8, batch_first=True)
            self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x, _ = self.rnn(x)
            return self.attn(x, x, x)[0]

    model = Net().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(4, 12, 8, device="cuda")
    records: list[StepRecord] = []
    session = Session(model, (optimizer,), Schedule(1), records.append)
    session.start()
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    torch.cuda.set_sync_debug_mode("default")
    session.stop()
    assert session.failure is None
    assert len(records) == 3


def test_capturing_a_graph_while_armed() -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(4, 3, 8, 8, device="cuda")
    session = Session(model, (optimizer,), Schedule(1), lambda record: None)
    session.start()
    graphed = torch.cuda.make_graphed_callables(model, (x,))
    for _ in range(3):
        optimizer.zero_grad()
        graphed(x).square().mean().backward()
        optimizer.step()
    session.stop()
    assert session.failure is None
