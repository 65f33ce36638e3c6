"""Trackers get the figures in a plain loop, through Lightning's loggers and from the Trainer.

Each runs offline, where it is installed; a finding is an alert where the tracker has alerts.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import gradwatch
from gradwatch.alerts import Alerts
from gradwatch.journal import LOG10_FLOOR
from tests.networks import make_unhealthy_mlp

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 8
FIGURE = "gradwatch/log10_attenuation"
LAYER = "gradwatch_layers/log10_grad_output_l2_norm/"


def find_tracker(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed, or not beside this torch")


def train_plain(log: Callable[..., object], **options: Any) -> None:
    network = make_unhealthy_mlp()
    settings = {"every_n_steps": 1, "per_layer_scalars": True, **options}
    with gradwatch.watch(network.model, network.optimizer, log=log, **settings) as watch:
        network.train(STEPS)
    assert watch.failure is None


def find_logger(name: str) -> Any:
    lightning = find_tracker("lightning")
    kind = getattr(import_module("lightning.pytorch.loggers"), name, None)
    return kind or pytest.skip(f"Lightning {lightning.__version__} has no {name}")


def train_lightning(logger: Any, folder: Path) -> None:
    from gradwatch.lightning import GradWatchCallback
    from tests.test_lightning import make_data, make_module, make_trainer

    callback = GradWatchCallback(every_n_steps=1, per_layer_scalars=True)
    lightning = import_module("lightning.pytorch")
    module = make_module(lightning, nn.Sigmoid, 12)
    make_trainer(lightning, callback, folder, logger=logger).fit(module, make_data())


def train_transformers(report_to: str, folder: Path) -> None:
    find_tracker("transformers")
    from gradwatch.transformers import GradWatchCallback
    from tests.test_transformers import Classifier, make_trainer

    callback = GradWatchCallback(every_n_steps=1, per_layer_scalars=True)
    model = Classifier(nn.Sigmoid, 12)
    make_trainer(folder, model, [callback], optim="sgd", report_to=report_to).train()


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = find_tracker("wandb")
    alerts: list[dict[str, Any]] = []
    run = wandb.init(mode="offline", dir=tmp_path, project="gradwatch")
    alert = run.alert
    monkeypatch.setattr(run, "alert", lambda **given: (alerts.append(given), alert(**given)))
    train_plain(wandb.log, on_change=Alerts(lambda: [wandb.run]).hear)
    assert run.summary[FIGURE] < -5
    assert run.step == STEPS - 1
    assert [given["title"] for given in alerts] == ["gradwatch: vanishing"]
    run.finish()


@pytest.mark.parametrize("way", ["plain", "lightning", "transformers"])
def test_mlflow(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a database: newer releases refuse to write to plain files."""
    mlflow = find_tracker("mlflow")
    address = f"sqlite:///{tmp_path}/tracked.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(address)
    if way == "plain":
        with mlflow.start_run():
            train_plain(mlflow.log_metrics)
    elif way == "lightning":
        train_lightning(find_logger("MLFlowLogger")(tracking_uri=address), tmp_path)
    else:
        train_transformers("mlflow", tmp_path)
    client = mlflow.MlflowClient(address)
    names = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(names)
    history = client.get_metric_history(run.info.run_id, FIGURE)
    assert [metric.step for metric in history] == list(range(STEPS))
    assert all(LOG10_FLOOR <= metric.value < -5 for metric in history)
    assert any(name.startswith(LAYER) for name in run.data.metrics)


def read_comet(folder: Path) -> Iterator[dict[str, Any]]:
    (archive,) = folder.glob("*.zip")
    with zipfile.ZipFile(archive) as opened:
        for line in opened.read("messages.json").splitlines():
            message = json.loads(line)
            if message["type"] == "metric_msg":
                yield message["payload"]["metric"]


@pytest.mark.parametrize("way", ["plain", "transformers"])
def test_comet(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in Lightning, whose logger keeps nothing where it is offline."""
    comet = find_tracker("comet_ml")
    sent: list[str] = []
    notify = lambda self, title, *_, **__: sent.append(title)  # noqa: E731
    monkeypatch.setattr(comet.OfflineExperiment, "send_notification", notify, raising=False)
    for name, value in {"OFFLINE_DIRECTORY": str(tmp_path), "START_ONLINE": "0"}.items():
        monkeypatch.setenv(f"COMET_{name}", value)
    if way == "plain":
        experiment = comet.OfflineExperiment(project_name="gradwatch")
        train_plain(
            lambda figures, step: experiment.log_metrics(figures, step=step),
            on_change=Alerts(lambda: [experiment]).hear,
        )
    else:
        train_transformers("comet_ml", tmp_path)
        experiment = comet.get_running_experiment()
    experiment.end()
    metrics = list(read_comet(tmp_path))
    steps = [metric["step"] for metric in metrics if metric["metricName"].endswith(FIGURE)]
    assert steps == list(range(STEPS))
    assert any(LAYER in metric["metricName"] for metric in metrics)  # below "train/" by the Trainer
    assert [title for title in sent if "gradwatch" in title] == ["gradwatch: vanishing"]


def test_neptune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the Trainer, whose callback asks the server for a number before all else."""
    neptune = find_tracker("neptune")
    monkeypatch.chdir(tmp_path)
    run = neptune.init_run(mode="offline", project="of/ours")

    def log(figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            run[name].append(value, step=step)

    train_plain(log)
    run.stop()
    (written,) = (tmp_path / ".neptune").rglob("data-*.log")
    assert written.read_bytes().count(b"log10_attenuation") == STEPS


@pytest.mark.parametrize("way", ["plain", "transformers"])
def test_clearml(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARML_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    clearml = find_tracker("clearml")
    clearml.Task.set_offline(True)
    if way == "plain":
        task = clearml.Task.init("gradwatch", "plain", auto_connect_frameworks=False)

        def log(figures: dict[str, float], step: int) -> None:
            for name, value in figures.items():
                task.get_logger().report_scalar(*name.split("/", 1), value, step)

        train_plain(log)
        task.close()
    else:
        train_transformers("clearml", tmp_path)
    (lines,) = (path.read_text(encoding="utf-8") for path in tmp_path.rglob("metrics.jsonl"))
    assert lines.count("log10_attenuation") == STEPS
