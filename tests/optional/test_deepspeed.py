"""DeepSpeed's ZeRO 1 to 3 on two processes (gloo), and in the Trainer of transformers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch

pytest.importorskip("deepspeed", reason="deepspeed is not installed, or not beside this torch")

STEPS = 8


def build() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def train(stage: int, rank: int) -> dict[str, Any]:
    """A report and the last record's norms."""
    import deepspeed

    adam = {"type": "Adam", "params": {"lr": 1e-2, "torch_adam": True}}
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0}
    config = {"train_batch_size": 16, "optimizer": adam, "zero_optimization": zero}
    engine, *_ = deepspeed.initialize(model=build(), config=config)
    torch.manual_seed(1 + rank)
    x, y = torch.randn(8, 16), torch.randint(4, (8,))
    with gradwatch.watch(engine, engine.optimizer, every_n_steps=1) as watch:
        for _ in range(STEPS):
            engine.backward(nn.functional.cross_entropy(engine(x), y))
            engine.step()
    assert watch.failure is None
    report = watch.report()
    record = report.history.latest.record
    names = ("grad_l2_norm", "weight_l2_norm", "update_l2_norm")
    return {
        "records": report.records,
        "status": report.status,
        "text": " ".join(str(report).split()),
        "fqns": [param.fqn for param in record.layer_set.params],
        **{name: record.param(name).tolist() for name in names},
    }


def prepare_rank(rank: int, count: int, port: str) -> None:
    """As a launcher sets the scene."""
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in values.items()})
    os.environ.update(MASTER_ADDR="localhost", DS_ACCELERATOR="cpu")
    torch.set_num_threads(1)


def run_rank(rank: int, port: str, folder: str) -> None:
    prepare_rank(rank, 2, port)
    found = {stage: train(stage, rank) for stage in (1, 2, 3)}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


def find_port() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """This file as a program."""
    path = str(Path(__file__).parents[2])
    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By stage of ZeRO, what rank 0 has seen."""
    folder, port = tmp_path_factory.mktemp("ranks"), find_port()
    ranks = [start(str(rank), port, str(folder)) for rank in (0, 1)]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    found: dict[str, dict[str, Any]] = json.loads((folder / "0.json").read_text())
    return found


@pytest.mark.parametrize("stage", ["1", "2"])
def test_zero_is_watched_through_the_engines_optimizer(
    stages: dict[str, dict[str, Any]], stage: str
) -> None:
    found = stages[stage]
    assert found["fqns"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert (found["records"], found["status"]) == (STEPS, "healthy")
    for name in ("weight_l2_norm", "update_l2_norm"):
        assert np.isfinite(found[name]).all()
        np.testing.assert_allclose(found[name], stages["1"][name], rtol=1e-5)


def test_of_zero_3_the_gradients_are_seen_and_the_rest_is_said(
    stages: dict[str, dict[str, Any]],
) -> None:
    found = stages["3"]
    assert found["records"] == STEPS
    np.testing.assert_allclose(found["grad_l2_norm"], stages["1"]["grad_l2_norm"], rtol=1e-4)
    assert np.isnan(found["update_l2_norm"]).all()
    assert found["status"] == "not_judged"
    assert "ZeRO-3 holds the elements of 4 parameters in shards" in found["text"]


def train_in_trainer(stage: int, folder: Path) -> dict[str, Any]:
    """A report of the Trainer's callback."""
    from gradwatch.transformers import GradWatchCallback
    from tests.test_transformers import Classifier, make_trainer

    callback = GradWatchCallback(every_n_steps=1)
    config = {
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "train_micro_batch_size_per_gpu": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    make_trainer(folder, Classifier(), [callback], deepspeed=config).train()
    report = callback.report()
    text = " ".join(str(report).split())
    return {"records": report.records, "status": report.status, "text": text}


def run_trainer(port: str, folder: str) -> None:
    prepare_rank(0, 1, port)
    found = {stage: train_in_trainer(stage, Path(folder)) for stage in (1, 2, 3)}
    (Path(folder) / "trainer.json").write_text(json.dumps(found))


def test_in_the_trainer_of_transformers(tmp_path: Path) -> None:
    """In a process of its own: DeepSpeed keeps its process group for good."""
    pytest.importorskip("transformers")
    assert start("trainer", find_port(), str(tmp_path)).wait(timeout=300) == 0
    found = json.loads((tmp_path / "trainer.json").read_text())
    assert [found[stage]["records"] for stage in "123"] == [8, 8, 8]
    assert [found[stage]["status"] for stage in "123"] == ["healthy", "healthy", "not_judged"]
    said = ["ZeRO-3 holds the elements of 8 parameters" in found[stage]["text"] for stage in "123"]
    assert said == [False, False, True]


if __name__ == "__main__":
    if sys.argv[1] == "trainer":
        run_trainer(*sys.argv[2:])
    else:
        run_rank(int(sys.argv[1]), *sys.argv[2:])
