"""Lightning's strategies that spread a model over processes, against one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gradwatch.records import StepRecord
from tests.capture.tools import list_keys, make_loop, read, watch_run
from tests.test_lightning import INSTALLED, make_trainer, read_run

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

WORLD, N_STEPS, BATCH = 2, 4, 3
RATE = 0.3

SCRIPT = f"""
import sys
from pathlib import Path
import {INSTALLED[0]} as pl
from tests import test_lightning_strategies as t
for folder in sys.argv[2:]:
    t.run(pl, sys.argv[1], Path(folder))
"""


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))


def make_data() -> Tensor:
    return torch.randn(WORLD * N_STEPS * BATCH, 4, generator=torch.Generator().manual_seed(9))


def make_module(pl: Any, kind: str) -> Any:
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def configure_model(self) -> None:
            if kind == "model_parallel":
                from torch.distributed.fsdp import fully_shard

                for part in (self.net[2], self.net):
                    fully_shard(part, mesh=self.device_mesh["data_parallel"])

        def train_dataloader(self) -> Any:
            part = TensorDataset(make_data()[self.global_rank :: WORLD])
            return DataLoader(part, batch_size=BATCH)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    return Module()


def run(pl: Any, kind: str, folder: Path) -> None:
    """What each process does: train with the callback or without, and keep the weights."""
    from gradwatch.lightning import GradWatchCallback

    watched = folder.name == "watched"
    strategy: Any = "ddp"
    if kind == "model_parallel":
        strategy = pl.strategies.ModelParallelStrategy(
            data_parallel_size=WORLD, tensor_parallel_size=1, process_group_backend="gloo"
        )
    callback = GradWatchCallback(every_n_steps=1, logdir=folder) if watched else pl.Callback()
    options = {"devices": WORLD, "strategy": strategy, "use_distributed_sampler": False}
    trainer = make_trainer(pl, callback, folder, **options)
    module = make_module(pl, kind)
    trainer.fit(module)
    weights = [getattr(param, "full_tensor", param.detach)() for param in module.parameters()]
    if watched:
        assert callback.report().records == N_STEPS
    if trainer.global_rank == 0:
        torch.save(weights, folder / "weights.pt")


def start(kind: str, *folders: Path) -> list[Any]:
    """Weights after each training, one after the other in processes of their own."""
    for folder in folders:
        folder.mkdir()
    script = folders[0] / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[1]
    inherited = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, str(script), kind, *map(str, folders)],
        cwd=root,
        env={**inherited, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / "weights.pt") for folder in folders]


def run_single() -> list[StepRecord]:
    host = nn.Module()
    host.net = make_net()
    optimizer = torch.optim.SGD(host.parameters(), lr=RATE)
    batches = make_data().split(WORLD * BATCH)

    def loop() -> None:
        for batch in batches:
            make_loop(host.net, optimizer, batch, steps=1)()

    return watch_run(host, optimizer, loop)


@pytest.mark.parametrize("kind", ["ddp", "model_parallel"])
def test_equal_to_one_process_and_unchanged(kind: str, tmp_path: Path) -> None:
    if kind == "model_parallel" and not hasattr(torch.cpu.Stream, "record_event"):
        pytest.skip("this torch cannot run fully_shard on a CPU")
    bare, watched = start(kind, tmp_path / "bare", tmp_path / "watched")
    assert all(torch.equal(tensor, other) for tensor, other in zip(bare, watched, strict=True))
    records = list(read_run(tmp_path / "watched").records())
    assert len(records) == N_STEPS
    for merged, single in zip(records, run_single(), strict=True):
        for key in list_keys(single):
            for name in ("grad_output_l2_norm", "output_l2_norm"):
                found, wanted = read(merged, name, key), read(single, name, key)
                assert found == pytest.approx(wanted, rel=1e-4), (name, key)
        for name in ("grad_l2_norm", "weight_l2_norm", "update_l2_norm"):
            assert merged.param(name) == pytest.approx(single.param(name), rel=1e-4), name
