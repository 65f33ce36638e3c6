"""On a GPU: no synchronisation but the transfer of a sampled step; precision; CUDA graphs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from gradwatch.records import StepRecord
from tests.capture.tools import Build, assert_harmless, watch_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # torch says so of its debug mode at every change of it, and warnings are errors here
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Whatever waits for the device raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def make_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(8 * 36, 16), nn.Sigmoid(), nn.Linear(16, 4),
    ).cuda()  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.rnn(x)
        return self.attn(x, x, x)[0]


def train_strictly(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, steps: int = 5
) -> list[StepRecord]:
    def loop() -> None:
        with no_synchronisation():
            for _ in range(steps):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()

    return watch_run(model, optimizer, loop)


def test_no_synchronisation() -> None:
    model = make_net()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    records = train_strictly(model, optimizer, torch.randn(4, 3, 8, 8, device="cuda"))
    assert len(records) == 5
    assert (records[0].param("grad_l2_norm") > 0).all()


def test_recurrent_and_attention() -> None:
    model = Recurrent().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    records = train_strictly(model, optimizer, torch.randn(4, 12, 8, device="cuda"))
    assert len(records) == 5
    assert "rnn:time" in {layer.fqn for layer in records[-1].layer_set.layers}


def test_a_learning_rate_on_the_device_travels_with_the_record() -> None:
    model = make_net()
    rate = torch.tensor(0.5, device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, capturable=True)
    records = train_strictly(model, optimizer, torch.randn(4, 3, 8, 8, device="cuda"), steps=1)
    assert [record.step("learning_rate") for record in records] == [0.5]


# torch warns of its own recording, watched or not
@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream does not match")
@pytest.mark.parametrize("watched", [False, True])
def test_capturing_a_graph_while_armed(watched: bool) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(4, 3, 8, 8, device="cuda")

    def loop() -> None:
        graphed = torch.cuda.make_graphed_callables(model, (x,))
        for _ in range(3):
            optimizer.zero_grad()
            graphed(x).square().mean().backward()
            optimizer.step()

    if watched:
        watch_run(model, optimizer, loop)
    else:
        loop()


def make_blocks() -> nn.Module:
    """What runs through kernels whose sums have one order."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
    return nn.Sequential(layer, nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)).cuda()


def make_training(precision: str) -> Build:
    x = torch.randn(8, 6, 16, device="cuda")

    def build():
        model = make_blocks()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        dtype = {"16": torch.float16, "bf16": torch.bfloat16}.get(precision)
        scaler = torch.amp.GradScaler("cuda", enabled=precision == "16")

        def loop() -> list[float]:
            losses = []
            for _ in range(20):
                optimizer.zero_grad()
                with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
                    loss = model(x).square().mean()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                losses.append(loss.item())
            return losses

        return model, optimizer, loop

    return build


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_training_is_bit_identical(precision: str) -> None:
    records = assert_harmless(make_training(precision))
    assert len(records) == 20
    assert (records[-1].param("update_l2_norm") > 0).all()


def test_statistics_agree_with_float64_on_the_host() -> None:
    model = make_blocks().eval()
    exact = copy.deepcopy(model).cpu().double()
    x = torch.randn(8, 6, 16, dtype=torch.float64)
    found = []
    for network, batch in ((model, x.float().cuda()), (exact, x)):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

        def step(network: nn.Module = network, batch: torch.Tensor = batch) -> None:
            network(batch).square().mean().backward()

        def loop(step=step, optimizer=optimizer) -> None:
            step()
            optimizer.step()

        found += watch_run(network, optimizer, loop)
    on_device, on_host = found
    for statistic in ("output_l2_norm", "grad_output_l2_norm", "grad_input_l2_norm"):
        assert on_device.layer(statistic) == pytest.approx(
            on_host.layer(statistic), rel=1e-4, nan_ok=True
        )
    # float32 cannot hold a step of 1e-3 of a weight to more digits
    for statistic, digits in (("grad_l2_norm", 1e-4), ("weight_l2_norm", 1e-6)):
        assert on_device.param(statistic) == pytest.approx(
            on_host.param(statistic), rel=digits, abs=1e-7
        )


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_code_runs_between_sampled_steps(mode: str) -> None:
    model = make_blocks().eval()
    model.compile(mode=mode)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(8, 6, 16, device="cuda")

    def loop() -> None:
        for _ in range(12):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    loop()
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    records = watch_run(model, optimizer, loop, every_n_steps=5, first_steps=2)
    assert [record.global_step for record in records] == [0, 1, 5, 10]
    assert (records[-1].layer("grad_output_l2_norm") > 0).any()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled


def test_a_whole_pass_in_a_graph() -> None:
    """A pass that is replayed runs no Python: nothing is seen of its layers, and nothing breaks."""
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(4, 3, 8, 8, device="cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    torch.cuda.synchronize()

    def loop() -> None:
        optimizer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            model(x).square().mean().backward()
        for _ in range(3):
            graph.replay()
            optimizer.step()

    records = watch_run(model, optimizer, loop)
    assert (records[-1].param("grad_l2_norm") > 0).all()
