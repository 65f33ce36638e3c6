"""The recipes of docs/frameworks.md, run as they stand there."""

from __future__ import annotations

import ast
import importlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import gradwatch

PAGE = (Path(__file__).parents[2] / "docs" / "frameworks.md").read_text(encoding="utf-8")
MOST_LINES = 10

pytestmark = pytest.mark.filterwarnings("ignore")


def read_recipe(title: str) -> str:
    """The block below a heading; the page's first one without."""
    part = PAGE.partition(f"\n## {title}\n")[2] if title else PAGE
    return re.search(r"```python\n(.*?)```", part, flags=re.DOTALL).group(1)  # type: ignore[union-attr]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's first block makes."""
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(read_recipe(""), found)
    return found


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As torchrun sets the scene for a job of a single process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    values = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": port}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def run(title: str, names: dict[str, Any], *packages: str) -> None:
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed, or not beside this torch")
        names[package.partition(".")[0]] = importlib.import_module(package.partition(".")[0])
    exec(read_recipe(title), names)


def assert_watched(watch: gradwatch.Watch, steps: int) -> None:
    """All of the training was seen, under the names that the model has by itself."""
    assert watch.failure is None
    assert watch.is_detached
    assert watch.global_step == steps
    report = watch.report()
    assert report.records > 5
    history = report.history
    assert history is not None
    params = {param.fqn for param in history.latest.record.layer_set.params}
    assert params == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert report.status == "healthy"


def test_recipes_are_short() -> None:
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        lines = [line for line in block.splitlines() if line.strip()]
        assert len(lines) < MOST_LINES, block
        ast.parse(block)


def test_torchrun(names: dict[str, Any], one_rank: None) -> None:
    run("torchrun", names)
    assert_watched(names["watch"], 20)


def test_fabric(names: dict[str, Any]) -> None:
    names["Fabric"] = pytest.importorskip("lightning.fabric").Fabric
    run("Fabric", names)
    assert_watched(names["watch"], 20)


def test_accelerate(names: dict[str, Any]) -> None:
    run("Accelerate", names, "accelerate")
    assert_watched(names["watch"], 20)


def test_deepspeed(names: dict[str, Any], one_rank: None) -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    run("DeepSpeed", names, "deepspeed")
    assert_watched(names["watch"], 20)


def test_ignite(names: dict[str, Any]) -> None:
    run("Ignite", names, "ignite.engine")
    assert_watched(names["watch"], 40)


def test_skorch(names: dict[str, Any]) -> None:
    run("skorch", names, "skorch", "skorch.callbacks")
    x, y = (torch.cat(parts) for parts in zip(*names["loader"], strict=True))
    net = names["net"].set_params(max_epochs=2, batch_size=16, train_split=None, verbose=0)
    net.fit(x.numpy(), y.numpy())
    (callback,) = net.callbacks
    assert_watched(callback.watch, 40)


def test_fastai(names: dict[str, Any]) -> None:
    run("fastai", names, "fastai.learner", "fastai.callback.core")
    fastai = names["fastai"]
    pairs = [pair for x, y in names["loader"] for pair in zip(x, y, strict=True)]
    loaders = fastai.data.core.DataLoaders.from_dsets(pairs, pairs[:16], bs=16, shuffle=False)
    callback = names["Watching"]()
    learn = fastai.learner.Learner(loaders, names["model"], loss_func=names["loss_fn"])
    with learn.no_logging():
        learn.fit(1, lr=1e-2, cbs=[callback])
    assert_watched(callback.watch, 20)


def test_torchtune(names: dict[str, Any]) -> None:
    """A recipe has its model and optimizer where the page says, and trains as this one does."""
    run("torchtune", names, "torchtune.models.llama3")
    build = names["torchtune"].models.llama3.llama3
    recipes = Path(names["torchtune"].__file__).parents[1] / "recipes"
    text = (recipes / "full_finetune_single_device.py").read_text(encoding="utf-8")
    assert "self._model = " in text
    assert "self._optimizer = " in text

    class Recipe:
        def __init__(self) -> None:
            self._model = build(
                vocab_size=16, num_layers=1, num_heads=2, num_kv_heads=1, embed_dim=16,
                max_seq_len=8, intermediate_dim=32,
            )  # fmt: skip
            self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-2)

        def train(self) -> None:
            tokens = torch.randint(16, (4, 8))
            for _ in range(8):
                logits: Tensor = self._model(tokens)
                nn.functional.cross_entropy(
                    logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
                ).backward()
                self._optimizer.step()
                self._optimizer.zero_grad()

    watch = names["train"](Recipe())
    assert watch.failure is None
    assert watch.report().status == "healthy"
    assert watch.global_step == 8


def test_composer(names: dict[str, Any]) -> None:
    composer = pytest.importorskip("composer", reason="composer does not import beside this torch")
    names["model"] = composer.models.ComposerClassifier(names["model"], num_classes=2)
    names["optimizer"] = torch.optim.SGD(names["model"].parameters(), lr=0.1)
    names["loader"] = DataLoader(
        [pair for x, y in names["loader"] for pair in zip(x, y, strict=True)], 16
    )
    run("Composer", names, "composer")
    assert names["watch"].global_step == 20


def test_schedulefree(names: dict[str, Any]) -> None:
    run("Schedule-free and handmade optimizers", names, "schedulefree")
    assert_watched(names["watch"], 20)
    assert "step" not in vars(names["optimizer"])
