"""GradWatchCallback in the trainers of both Lightning packages."""

from __future__ import annotations

import copy
import csv
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gradwatch
from gradwatch.errors import InvalidInput, NothingToJudge, UnhealthyGradients
from gradwatch.journal import LOG10_FLOOR
from gradwatch.log.writer import Run, read_runs
from gradwatch.watcher import watch
from tests.compilation import COMPARED, FOLLOWED, Backend, assert_same_records, needs_regions
from tests.families.test_cuts import Coder, call_detach, draw, find_line, go_by_numpy
from tests.networks import build_chain
from tests.traces import (
    capture_results,
    get_records,
    list_attachments,
    list_differences,
    list_found,
)

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
INSTALLED = [package for package in PACKAGES if find_spec(package.partition(".")[0])]
if not INSTALLED:
    pytest.skip("neither of the two packages is installed", allow_module_level=True)
GradWatchCallback = import_module("gradwatch.lightning").GradWatchCallback

N_BATCHES = 8

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*GPU available but not used.*",
    "ignore:.*exists and is not empty.*",
    "ignore:.*resuming from a checkpoint that ended before the epoch.*",
    "ignore:.*but have no `val_dataloader`.*",
)


@pytest.fixture(autouse=True)
def quiet(one_thread: None, caplog: pytest.LogCaptureFixture) -> None:
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.ERROR)


@pytest.fixture(params=PACKAGES)
def pl(request: pytest.FixtureRequest) -> Any:
    """One of the two packages."""
    return pytest.importorskip(request.param)


@pytest.fixture
def lightning() -> Any:
    return import_module(INSTALLED[0])


class Handmade:
    """Gradient descent with what Lightning asks of an optimizer, and nothing of torch's."""

    def __init__(self, params: Iterator[Tensor]) -> None:
        self.param_groups = [{"params": list(params), "lr": 0.1}]
        self.state: dict[Any, Any] = {}
        self.defaults: dict[str, Any] = {}

    def step(self, closure: Any) -> None:
        closure()
        with torch.no_grad():
            for param in self.param_groups[0]["params"]:
                param.sub_(param.grad, alpha=0.1)

    def zero_grad(self) -> None:
        for param in self.param_groups[0]["params"]:
            param.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def make_data() -> DataLoader[Any]:
    torch.manual_seed(1)
    inputs, targets = torch.randn(N_BATCHES * 8, 16), torch.randint(4, (N_BATCHES * 8,))
    return DataLoader(TensorDataset(inputs, targets), batch_size=8)


def make_module(pl: Any, activation: type[nn.Module] = nn.ReLU, depth: int = 4) -> Any:
    """A classifier with a validation step, as one writes it."""

    class Classifier(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = build_chain(activation, depth)

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    return Classifier()


def make_trainer(pl: Any, callbacks: Any, root: Path, **options: Any) -> Any:
    settings = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(root),
        **options,
    }
    return pl.Trainer(callbacks=callbacks, **settings)


CLIPPED = ("step_grad_l2_norm", "loss_change", "past_loss_change")
"""Made of the gradient as the optimizer gets it, which Lightning clips in its closure."""


def assert_same_figures(ours: Any, plain: Any) -> None:
    """All numbers of all steps; names differ by the module's attribute ``net``."""
    first, second = get_records(ours), get_records(plain)
    assert [record.global_step for record in first] == [record.global_step for record in second]
    assert first
    for record, other in zip(first, second, strict=True):
        for name in record.layer_set.rows.param:
            if name not in CLIPPED:
                np.testing.assert_array_equal(record.param(name), other.param(name))
            assert np.array_equal(np.isnan(record.param(name)), np.isnan(other.param(name)))
        names = [layer.key.removeprefix("net.") for layer in record.layer_set.layers]
        assert names == [layer.key for layer in other.layer_set.layers]
        np.testing.assert_array_equal(record.layer_values, other.layer_values)


def watch_plain_loop(accumulate: int = 1, clip: float | None = None, epochs: int = 1) -> Any:
    """The same training without Lightning."""
    torch.manual_seed(0)
    model = build_chain(nn.ReLU, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = [batch for _ in range(epochs) for batch in make_data()]
    with gradwatch.watch(model, optimizer, every_n_steps=1) as watching:
        for index, (inputs, targets) in enumerate(batches):
            if index % accumulate == 0:
                optimizer.zero_grad()
            (nn.functional.cross_entropy(model(inputs), targets) / accumulate).backward()
            if (index + 1) % accumulate:
                continue
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
    return watching


def read_run(logdir: Path) -> Run:
    (run,) = read_runs(logdir)
    return run


# The two packages ----------------------------------------------------------------------------


def test_shares_the_tensorboard_logger_wherever_it_stands(pl: Any, tmp_path: Path) -> None:
    loggers = import_module(f"{pl.__name__}.loggers")
    board = loggers.TensorBoardLogger(tmp_path, name="board")
    logs = [loggers.CSVLogger(tmp_path, name="csv"), board]
    callback = GradWatchCallback(every_n_steps=1)
    trainer = make_trainer(pl, callback, tmp_path, logger=logs, log_every_n_steps=1)
    trainer.fit(make_module(pl, nn.Sigmoid, 12), make_data())

    assert len(list(Path(board.log_dir).glob("*tfevents*"))) == 1
    run = read_run(tmp_path / "board")
    assert [record.global_step for record in run.records()] == list(range(N_BATCHES))
    assert run.header is not None
    assert run.header.description.batch_size == 8
    assert any("vanishing" in text.markdown.lower() for text in run.texts)
    assert [finding.kind for finding in callback.report().findings] == ["vanishing"]
    with (Path(logs[0].log_dir) / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("gradwatch/log10_attenuation")]
    assert [int(row["step"]) for row in rows] == list(range(N_BATCHES))


def test_stops_a_training_that_is_to_fail(pl: Any, tmp_path: Path) -> None:
    callback = GradWatchCallback(fail_on=("vanishing",))
    module = make_module(pl, nn.Sigmoid, 12)
    before = list_attachments(module.net)
    trainer = make_trainer(pl, [callback], tmp_path)
    with pytest.raises(UnhealthyGradients, match="GW101") as caught:
        trainer.fit(module, make_data())
    assert [finding.kind for finding in caught.value.findings] == ["vanishing"]
    assert 0 < trainer.global_step < N_BATCHES
    module.zero_grad()
    assert list_differences(before, list_attachments(module.net)) == []


def test_trains_bit_identically(pl: Any, tmp_path: Path) -> None:
    results = []
    for callbacks in ([], [GradWatchCallback(every_n_steps=1)]):
        module = make_module(pl)
        trainer = make_trainer(pl, callbacks, tmp_path, max_epochs=2)
        trainer.fit(module, make_data(), make_data())
        results.append(capture_results(module.net, trainer.optimizers, []))
    assert list_differences(*results) == []


# Figures -------------------------------------------------------------------------------------


def test_figures_are_those_of_a_plain_loop(pl: Any, tmp_path: Path) -> None:
    callback = GradWatchCallback(every_n_steps=1)
    make_trainer(pl, callback, tmp_path).fit(make_module(pl), make_data())
    assert_same_figures(callback, watch_plain_loop())


def test_validation_and_sanity_check_are_not_counted(lightning: Any, tmp_path: Path) -> None:
    callback = GradWatchCallback(every_n_steps=1)
    trainer = make_trainer(
        lightning, callback, tmp_path, max_epochs=2, num_sanity_val_steps=2, val_check_interval=3
    )
    trainer.fit(make_module(lightning), make_data(), make_data())
    assert_same_figures(callback, watch_plain_loop(epochs=2))


def test_reads_after_accumulation_and_before_clipping(lightning: Any, tmp_path: Path) -> None:
    callback = GradWatchCallback(every_n_steps=1)
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 1e-3}
    make_trainer(lightning, callback, tmp_path, **options).fit(make_module(lightning), make_data())
    plain = watch_plain_loop(accumulate=2, clip=1e-3)
    assert_same_figures(callback, plain)
    total = np.linalg.norm(get_records(callback)[0].param("grad_l2_norm"))
    assert total > 1e-2  # what was clipped is 1e-3


def test_bfloat16_trains_and_is_measured(lightning: Any, tmp_path: Path) -> None:
    callback = GradWatchCallback(every_n_steps=1)
    options = {"precision": "bf16-mixed"}
    make_trainer(lightning, callback, tmp_path, **options).fit(make_module(lightning), make_data())
    report = callback.report()
    assert report.healthy
    assert report.records == N_BATCHES
    assert {layer.dtype for layer in get_records(callback)[0].layer_set.layers} >= {"bfloat16"}


def test_a_scaler_is_divided_out(lightning: Any, tmp_path: Path) -> None:
    plugins = import_module(f"{INSTALLED[0]}.plugins.precision")
    figures = []
    for scale in (1.0, 1024.0):
        callback = GradWatchCallback(every_n_steps=1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        precision = plugins.MixedPrecision("16-mixed", "cpu", scaler)
        trainer = make_trainer(lightning, callback, tmp_path, plugins=[precision])
        trainer.fit(make_module(lightning), make_data())
        first = get_records(callback)[0]
        assert first.step("loss_scale") == scale
        figures.append((first.param("grad_l2_norm"), first.layer("grad_output_l2_norm")))
    for figure, other in zip(*figures, strict=True):
        np.testing.assert_allclose(figure, other, rtol=0.01)


class Pair(nn.Module):
    """Two networks that take turns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = build_chain(nn.ReLU, 3, classes=16)
        self.critic = build_chain(nn.ReLU, 3, classes=1)


def train_pair(pair: Any, inputs: Tensor, step: Any, optimizers: list[Any]) -> None:
    """One batch of an adversarial training; ``step(loss, optimizer)`` makes the step."""
    generate, criticise = optimizers
    step(-pair.critic(pair.generator(inputs)).mean(), generate)
    fake = pair.generator(inputs).detach()
    step((pair.critic(fake) - pair.critic(inputs)).mean(), criticise)


def make_optimizers(pair: Any) -> list[torch.optim.Optimizer]:
    parts = (pair.generator, pair.critic)
    return [torch.optim.Adam(part.parameters(), 1e-3) for part in parts]


@pytest.mark.parametrize("toggles", [False, True])
def test_manual_optimization_with_two_optimizers(
    lightning: Any, tmp_path: Path, toggles: bool
) -> None:
    class Module(lightning.LightningModule, Pair):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
            train_pair(self, batch[0], self.step, self.optimizers())

        def step(self, loss: Tensor, optimizer: Any) -> None:
            if toggles:
                self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            if toggles:
                self.untoggle_optimizer(optimizer)

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return make_optimizers(self)

    callback = GradWatchCallback(every_n_steps=1)
    make_trainer(lightning, callback, tmp_path).fit(Module(), make_data())
    records = get_records(callback)
    assert callback.report().healthy
    assert [record.global_step for record in records] == list(range(N_BATCHES))
    assert all(param.trainable for record in records for param in record.layer_set.params)
    if not toggles:
        pair = Pair()
        optimizers = make_optimizers(pair)

        def step(loss: Tensor, optimizer: Any) -> None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        with gradwatch.watch(pair, optimizers, every_n_steps=1) as plain:
            for inputs, _ in make_data():
                train_pair(pair, inputs, step, optimizers)
        assert_same_figures(callback, plain)


# Runs ----------------------------------------------------------------------------------------


def test_steps_continue_after_a_resume(lightning: Any, tmp_path: Path) -> None:
    loggers = import_module(f"{INSTALLED[0]}.loggers")

    def fit(max_steps: int, ckpt_path: str | None) -> Any:
        callback = GradWatchCallback(every_n_steps=1)
        logger = loggers.TensorBoardLogger(tmp_path, name="board", version=0)
        trainer = make_trainer(
            lightning, callback, tmp_path, logger=logger, max_epochs=-1, max_steps=max_steps
        )
        trainer.fit(make_module(lightning), make_data(), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return callback

    fit(N_BATCHES, None)
    resumed = fit(2 * N_BATCHES, str(tmp_path / "last.ckpt"))
    steps = [record.global_step for record in read_run(tmp_path).records()]
    assert steps == list(range(2 * N_BATCHES))
    assert get_records(resumed)[0].global_step == N_BATCHES


def test_a_resume_without_a_step_of_ours_takes_the_trainers(lightning: Any, tmp_path: Path) -> None:
    first = make_trainer(lightning, [], tmp_path)
    first.fit(make_module(lightning), make_data())
    first.save_checkpoint(tmp_path / "plain.ckpt")
    callback = GradWatchCallback(every_n_steps=1)
    trainer = make_trainer(lightning, callback, tmp_path, max_epochs=2)
    trainer.fit(make_module(lightning), make_data(), ckpt_path=str(tmp_path / "plain.ckpt"))
    assert get_records(callback)[0].global_step == N_BATCHES


def test_a_checkpoint_loads_without_the_callback(pl: Any, tmp_path: Path) -> None:
    first = make_trainer(pl, GradWatchCallback(), tmp_path)
    first.fit(make_module(pl), make_data())
    first.save_checkpoint(tmp_path / "watched.ckpt")
    trainer = make_trainer(pl, [], tmp_path, max_epochs=2)
    trainer.fit(make_module(pl), make_data(), ckpt_path=str(tmp_path / "watched.ckpt"))
    assert trainer.global_step == 2 * N_BATCHES


def test_a_second_fit_is_judged_by_itself(lightning: Any, tmp_path: Path) -> None:
    callback = GradWatchCallback(every_n_steps=1)
    trainer = make_trainer(lightning, callback, tmp_path)
    trainer.fit(make_module(lightning, nn.Sigmoid, 12), make_data())
    assert not callback.report().healthy
    make_trainer(lightning, callback, tmp_path).fit(make_module(lightning), make_data())
    assert callback.report().healthy


@pytest.mark.parametrize("logger", [True, False])
def test_fast_dev_run(pl: Any, tmp_path: Path, logger: bool) -> None:
    callback = GradWatchCallback(fail_on=("vanishing",), logdir=tmp_path / "own")
    trainer = make_trainer(pl, callback, tmp_path, fast_dev_run=True, logger=logger)
    trainer.fit(make_module(pl), make_data(), make_data())
    assert callback.report().records == 1
    assert not (tmp_path / "own").exists()


def test_nothing_breaks_without_a_logger(
    lightning: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = GradWatchCallback()
    trainer = make_trainer(lightning, callback, tmp_path, logger=False)
    trainer.fit(make_module(lightning, nn.Sigmoid, 12), make_data())
    assert not callback.report().healthy
    assert "GW101" in caplog.text


def test_a_logdir_of_its_own(lightning: Any, tmp_path: Path) -> None:
    callback = GradWatchCallback(logdir=tmp_path / "own", every_n_steps=1)
    make_trainer(lightning, callback, tmp_path).fit(make_module(lightning), make_data())
    assert len(list(read_run(tmp_path / "own").records())) == N_BATCHES


@pytest.mark.parametrize("owner", ["callback", "logger"])
def test_a_log_behind_an_address(lightning: Any, tmp_path: Path, owner: str) -> None:
    """Also one that ``fail_on`` reads again, and one that the logger has chosen."""
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").store.clear()
    url, logger = f"memory://bucket/{owner}", False
    if owner == "logger":
        loggers = import_module(f"{INSTALLED[0]}.loggers")
        logger = loggers.TensorBoardLogger(url, name=None, version="")
    logdir = url if owner == "callback" else None
    callback = GradWatchCallback(logdir=logdir, every_n_steps=1, fail_on=("vanishing",))
    make_trainer(lightning, callback, tmp_path, logger=logger).fit(
        make_module(lightning), make_data()
    )
    (run,) = read_runs(url)
    assert len(list(run.records())) == N_BATCHES
    assert run.end is not None
    assert run.end.how == "detached"
    fsspec.filesystem("memory").store.clear()


def test_an_update_of_zero_is_a_floor_at_every_logger(lightning: Any, tmp_path: Path) -> None:
    """And not a gap in the line."""
    loggers = import_module(f"{INSTALLED[0]}.loggers")

    class Still(type(make_module(lightning))):  # type: ignore[misc]
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    logger = loggers.CSVLogger(tmp_path)
    callback = GradWatchCallback(every_n_steps=1)
    make_trainer(lightning, callback, tmp_path, logger=logger).fit(Still(), make_data())
    with (Path(logger.log_dir) / "metrics.csv").open(encoding="utf-8") as file:
        figures = [row["gradwatch/log10_smallest_update_ratio"] for row in csv.DictReader(file)]
    assert [float(figure) for figure in figures if figure] == [LOG10_FLOOR] * N_BATCHES


def make_company(name: str, package: str) -> tuple[Any, dict[str, Any]]:
    """A callback that does something unusual to the model, and the trainer's settings with it."""
    callbacks = import_module(f"{package}.callbacks")

    class Thawing(callbacks.BaseFinetuning):  # type: ignore[misc, name-defined]
        def freeze_before_training(self, pl_module: Any) -> None:
            self.freeze(pl_module.net[0])

        def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.net[0], optimizer)

    class AtTheEnd(callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            with torch.no_grad():
                pl_module.net(torch.zeros(2, 16))

    averaging = getattr(callbacks, "EMAWeightAveraging", callbacks.StochasticWeightAveraging)
    made = {
        "stochastic averages": lambda: callbacks.StochasticWeightAveraging(swa_lrs=0.05),
        "moving averages": lambda: averaging() if averaging.__name__[0] == "E" else averaging(0.1),
        "pruning": lambda: callbacks.ModelPruning("l1_unstructured", amount=0.2),
        "freezing": Thawing,
        "the end of an epoch": AtTheEnd,
    }
    return made[name](), {"accumulate_grad_batches": 2} if name.startswith("the end") else {}


@pytest.mark.parametrize(
    "name",
    ["stochastic averages", "moving averages", "pruning", "freezing", "the end of an epoch"],
)
@pytest.mark.filterwarnings("ignore")
def test_beside_a_callback_that_changes_the_model(
    lightning: Any, tmp_path: Path, name: str
) -> None:
    found = []
    for is_watched in (False, True):
        company, options = make_company(name, INSTALLED[0])
        callback = GradWatchCallback(every_n_steps=1)
        callbacks = [company, callback] if is_watched else [company]
        module = make_module(lightning)
        trainer = make_trainer(lightning, callbacks, tmp_path, max_epochs=4, **options)
        trainer.fit(module, make_data())
        found.append([param.detach() for param in module.parameters()])
        if is_watched:
            assert callback.report().records > trainer.global_step / 2
            assert callback._watch.failure is None
            assert callback._watch.global_step == trainer.global_step
    assert all(map(torch.equal, *found))


def test_the_loggers_directory_gets_no_second_file(lightning: Any, tmp_path: Path) -> None:
    loggers = import_module(f"{INSTALLED[0]}.loggers")
    logger = loggers.TensorBoardLogger(tmp_path, name=None, version="")
    callback = GradWatchCallback(logdir=tmp_path, every_n_steps=1)
    make_trainer(lightning, callback, tmp_path, logger=logger).fit(
        make_module(lightning), make_data()
    )
    assert len(list(tmp_path.glob("*tfevents*"))) == 1
    assert len(list(read_run(tmp_path).records())) == N_BATCHES


# Trouble -------------------------------------------------------------------------------------


def test_no_data_is_no_pass(lightning: Any, tmp_path: Path) -> None:
    callback = GradWatchCallback(fail_on=("vanishing",))
    make_trainer(lightning, callback, tmp_path).fit(make_module(lightning), make_data())
    trainer = make_trainer(lightning, callback, tmp_path, limit_train_batches=0)
    with pytest.raises(NothingToJudge):
        trainer.fit(make_module(lightning), make_data())


def test_not_judged_is_no_pass(lightning: Any, tmp_path: Path) -> None:
    callback = GradWatchCallback(fail_on=("vanishing",))
    trainer = make_trainer(lightning, callback, tmp_path, limit_train_batches=2)
    with pytest.raises(NothingToJudge, match="seen to learn"):
        trainer.fit(make_module(lightning), make_data())
    assert callback.report().status == "not_judged"


@pytest.mark.parametrize("further_steps", [0, 1])
def test_a_finished_job_that_is_resumed_is_judged_by_its_whole_log(
    lightning: Any, tmp_path: Path, further_steps: int
) -> None:
    loggers = import_module(f"{INSTALLED[0]}.loggers")
    path = str(tmp_path / "last.ckpt")

    def fit(max_steps: int, ckpt_path: str | None, board: str) -> Any:
        callback = GradWatchCallback(every_n_steps=1, fail_on=("vanishing",))
        logger = loggers.TensorBoardLogger(tmp_path, name=board, version=0)
        options = {"logger": logger, "max_epochs": -1, "max_steps": max_steps}
        trainer = make_trainer(lightning, callback, tmp_path, **options)
        trainer.fit(make_module(lightning), make_data(), ckpt_path=ckpt_path)
        return trainer

    fit(N_BATCHES, None, "board").save_checkpoint(path)
    assert fit(N_BATCHES + further_steps, path, "board").global_step == N_BATCHES + further_steps
    with pytest.raises(NothingToJudge):
        fit(N_BATCHES + further_steps, path, "another")


def test_an_error_of_ours_is_no_pass(
    lightning: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("gradwatch.verdict.engine.Doctor.observe", fail)
    trainer = make_trainer(lightning, GradWatchCallback(), tmp_path)
    with pytest.warns(RuntimeWarning, match="ours"):
        trainer.fit(make_module(lightning), make_data())
    assert trainer.global_step == N_BATCHES

    trainer = make_trainer(lightning, GradWatchCallback(fail_on=("dead",)), tmp_path)
    with pytest.warns(RuntimeWarning, match="ours"), pytest.raises(NothingToJudge, match="ours"):
        trainer.fit(make_module(lightning), make_data())
    assert trainer.global_step == N_BATCHES


def test_the_trainings_own_error_passes_through(lightning: Any, tmp_path: Path) -> None:
    callback = GradWatchCallback(fail_on=("vanishing",))
    module = make_module(lightning)
    before = list_attachments(module.net)
    steps = iter(range(3))
    train = module.training_step

    def break_down(batch: Any, batch_idx: int) -> Tensor:
        if next(steps) == 2:
            raise KeyError("theirs")
        return train(batch, batch_idx)

    module.training_step = break_down
    with pytest.raises(KeyError, match="theirs"):
        make_trainer(lightning, callback, tmp_path).fit(module, make_data())
    module.zero_grad()
    assert list_differences(before, list_attachments(module.net)) == []


def test_a_finding_is_an_alert_of_the_loggers_tracker(lightning: Any, tmp_path: Path) -> None:
    loggers = import_module(f"{INSTALLED[0]}.loggers")
    alerts: list[dict[str, Any]] = []

    class Tracker(loggers.CSVLogger):  # type: ignore[misc, name-defined]
        @property
        def experiment(self) -> Any:
            inner = super().experiment
            inner.alert = lambda **given: alerts.append(given)
            return inner

    callback = GradWatchCallback(per_layer_scalars=True)
    logger = Tracker(tmp_path)
    trainer = make_trainer(lightning, callback, tmp_path, logger=logger)
    trainer.fit(make_module(lightning, nn.Sigmoid, 12), make_data())
    assert [alert["title"] for alert in alerts] == ["gradwatch: vanishing"]
    head = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0]
    assert "gradwatch_layers/log10_grad_output_l2_norm/net.0" in head


def test_a_logger_that_fails_stops_nothing(
    lightning: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loggers = import_module(f"{INSTALLED[0]}.loggers")

    class Broken(loggers.CSVLogger):  # type: ignore[misc, name-defined]
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            if any(name.startswith("gradwatch") for name in metrics):
                raise OSError("disk full")

    trainer = make_trainer(lightning, GradWatchCallback(), tmp_path, logger=Broken(tmp_path))
    trainer.fit(make_module(lightning), make_data())
    assert trainer.global_step == N_BATCHES
    assert "disk full" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"fail_on": ("sad",)},
        {"fail_on": "sad"},
        {"every_n_steps": 0},
        {"budget": 2},
        {"compiled": True},
    ],
)
def test_bad_settings_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        GradWatchCallback(**options)


@needs_regions
@pytest.mark.usefixtures("fresh_dynamo")
def test_layers_are_read_in_their_graph(lightning: Any, tmp_path: Path) -> None:
    """A part that is compiled for itself, as one does since ``self.log`` is not compiled."""
    stance, records = torch._dynamo.eval_frame._stance, []
    for compiled in ("eager", "in_graph"):
        torch._dynamo.reset()
        module, backend = make_module(lightning), Backend()
        module.net = torch.compile(module.net, backend=backend)
        callback = GradWatchCallback(every_n_steps=1, compiled=compiled)
        make_trainer(lightning, callback, tmp_path).fit(module, make_data())
        records.append(get_records(callback))
        assert torch._dynamo.eval_frame._stance is stance
    assert backend.runs[True] == N_BATCHES - FOLLOWED + COMPARED
    assert_same_records(*records)


def test_a_report_needs_a_training() -> None:
    with pytest.raises(NothingToJudge):
        GradWatchCallback().report()


def test_copies_have_the_settings_and_no_watch(lightning: Any, tmp_path: Path) -> None:
    callback = GradWatchCallback(every_n_steps=1, fail_on=("dead",))
    make_trainer(lightning, callback, tmp_path).fit(make_module(lightning), make_data())
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert (twin.every_n_steps, twin.fail_on) == (1, ("dead",))
        with pytest.raises(NothingToJudge):
            twin.report()
        make_trainer(lightning, twin, tmp_path).fit(make_module(lightning), make_data())
        assert twin.report().records == N_BATCHES
    assert callback.report().records == N_BATCHES


# Several processes ---------------------------------------------------------------------------

DISTRIBUTED = f"""
import sys, torch
from pathlib import Path
import {INSTALLED[0]} as pl
from {INSTALLED[0]}.loggers import TensorBoardLogger
from tests import test_lightning as t
from torch import nn
"""
DISTRIBUTED += """

is_unhealthy = sys.argv[2] == "unhealthy"
activation, depth = (nn.Sigmoid, 12) if is_unhealthy else (nn.ReLU, 4)
fail_on = ("vanishing",) if is_unhealthy else ()
callback = t.GradWatchCallback(every_n_steps=1, fail_on=fail_on)
trainer = t.make_trainer(
    pl, callback, Path(sys.argv[1]), devices=2, strategy="ddp",
    logger=TensorBoardLogger(sys.argv[1], name="board", version=0),
)
try:
    trainer.fit(t.make_module(pl, activation, depth), t.make_data())
except t.UnhealthyGradients:
    Path(sys.argv[1], f"stopped{trainer.global_rank}").touch()
else:
    Path(sys.argv[1], f"rank{trainer.global_rank}").write_text(str(callback.report().records))
"""


def run_distributed(folder: Path, kind: str) -> None:
    script = folder / "distributed.py"
    script.write_text(DISTRIBUTED)
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, str(script), str(folder), kind],
        cwd=root,
        env={**_environment(), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.mark.distributed
@pytest.mark.slow
def test_two_processes_write_one_file(tmp_path: Path) -> None:
    run_distributed(tmp_path, "healthy")
    assert len(list(tmp_path.rglob("*tfevents*"))) == 1
    steps = [record.global_step for record in read_run(tmp_path / "board").records()]
    assert steps == list(range(N_BATCHES // 2))
    records = [(tmp_path / f"rank{rank}").read_text() for rank in range(2)]
    assert records == [str(N_BATCHES // 2)] * 2


@pytest.mark.distributed
@pytest.mark.slow
def test_all_processes_stop_together(tmp_path: Path) -> None:
    run_distributed(tmp_path, "unhealthy")
    assert {path.name for path in tmp_path.glob("stopped*")} == {"stopped0", "stopped1"}


# A trainer's unusual days ----------------------------------------------------------------------


def test_a_later_callback_leaves_it_to_the_one_that_is_there(
    lightning: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = GradWatchCallback(), GradWatchCallback(fail_on=("nonfinite",))
    trainer = make_trainer(lightning, [first, second], tmp_path)
    trainer.fit(make_module(lightning), make_data())
    assert sum("watched already" in record.message for record in caplog.records) == 1
    assert second.report().records == first.report().records > 0


def test_a_callback_leaves_it_to_a_watch_around_the_fit(lightning: Any, tmp_path: Path) -> None:
    module, callback = make_module(lightning), GradWatchCallback()
    with watch(module) as watching:
        make_trainer(lightning, callback, tmp_path).fit(module, make_data())
        assert not watching.is_detached
    assert callback.report().records == watching.report().records


def test_a_fit_that_does_nothing_keeps_the_report(lightning: Any, tmp_path: Path) -> None:
    module, callback = make_module(lightning), GradWatchCallback()
    trainer = make_trainer(lightning, callback, tmp_path)
    trainer.fit(module, make_data())
    seen = callback.report().records
    trainer.fit(module, make_data())
    assert callback.report().records == seen > 0


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`")
def test_a_fit_without_an_optimizer_of_the_trainers(lightning: Any, tmp_path: Path) -> None:
    """Lightning then has a stand-in that holds no parameter of the model."""
    module, callback = make_module(lightning), GradWatchCallback()
    module.configure_optimizers = lambda: None
    make_trainer(lightning, callback, tmp_path).fit(module, make_data())
    assert callback.report().records > 0


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned `None`")
@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("fail_on", [(), ("vanishing",)])
def test_a_fit_in_which_nothing_can_learn(
    lightning: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, fail_on: tuple[str, ...]
) -> None:
    class Baseline(type(make_module(lightning))):  # type: ignore[misc]
        def training_step(self, *_: Any) -> None:
            return None

        def configure_optimizers(self) -> None:
            self.requires_grad_(False)

    trainer = make_trainer(lightning, [GradWatchCallback(fail_on=fail_on)], tmp_path)
    with pytest.raises(NothingToJudge) if fail_on else nullcontext():
        trainer.fit(Baseline(), make_data())
    assert sum("without a watch" in record.message for record in caplog.records) == 1


def test_an_optimizer_of_ones_own(lightning: Any, tmp_path: Path) -> None:
    """Lightning takes what does as torch's optimizers do."""
    module, callback = make_module(lightning), GradWatchCallback(every_n_steps=1)
    own = Handmade(module.parameters())
    module.configure_optimizers = lambda: own
    make_trainer(lightning, [callback], tmp_path).fit(module, make_data())
    assert callback.report().records == N_BATCHES
    assert "step" not in vars(own)


@pytest.mark.parametrize("whole", [False, True])
def test_layers_that_are_replaced_after_the_optimizer_was_made(
    lightning: Any, tmp_path: Path, whole: bool
) -> None:
    module, callback = make_module(lightning), GradWatchCallback(every_n_steps=1)
    replaced = build_chain(nn.ReLU, 4)

    def replace() -> None:
        if whole:
            module.net = replaced
        else:
            module.net[-1] = replaced[-1]

    class Replaces(lightning.Callback):  # type: ignore[misc]
        def on_train_start(self, *_: Any) -> None:
            replace()

    trainer = make_trainer(lightning, [Replaces(), callback], tmp_path, max_epochs=3)
    trainer.fit(module, make_data())
    (finding,) = callback.report().findings
    assert (finding.kind, finding.cause) == ("unmoved", "not_optimized")
    names = [f"net.{i}" for i, layer in enumerate(module.net) if isinstance(layer, nn.Linear)]
    assert sorted(finding.layers) == (names if whole else names[-1:])


Found = list[tuple[str, str | None]]


def fit_watched(pl: Any, root: Path, module: Any, *callbacks: Any, **options: Any) -> Any:
    callback = GradWatchCallback(every_n_steps=1)
    trainer = make_trainer(pl, [*callbacks, callback], root, **options)
    trainer.fit(module, make_data())
    return callback.report()


@pytest.mark.parametrize("frozen", [False, True])
def test_layers_that_no_optimizer_holds(lightning: Any, tmp_path: Path, frozen: bool) -> None:
    class Part(type(make_module(lightning))):  # type: ignore[misc]
        def configure_optimizers(self) -> torch.optim.Optimizer:
            self.net[0].requires_grad_(not frozen)
            return torch.optim.SGD(self.net[2:].parameters(), lr=0.1)

    report = fit_watched(lightning, tmp_path, Part(), max_epochs=4)
    assert report.findings == ()
    assert list_found(report.notes) == ([] if frozen else [("unmoved", "not_optimized")])


@pytest.mark.parametrize("is_stepped", [False, True])
def test_one_of_two_optimizers_that_is_never_stepped(
    lightning: Any, tmp_path: Path, is_stepped: bool
) -> None:
    class Halves(type(make_module(lightning))):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
            front, back = self.optimizers()
            front.zero_grad()
            back.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(self.net(batch[0]), batch[1]))
            back.step()
            if is_stepped:
                front.step()

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            halves = self.net[:2], self.net[2:]
            return [torch.optim.SGD(half.parameters(), lr=0.1) for half in halves]

    report = fit_watched(lightning, tmp_path, Halves(), max_epochs=7)
    assert list_found(report.findings) == ([] if is_stepped else [("unmoved", "not_stepped")])


@pytest.mark.parametrize("unscales", [False, True])
def test_clipping_of_scaled_gradients(lightning: Any, tmp_path: Path, unscales: bool) -> None:
    class Clips(type(make_module(lightning))):  # type: ignore[misc]
        def clip(self) -> None:
            nn.utils.clip_grad_norm_(self.parameters(), 0.2)

        def on_after_backward(self) -> None:  # still scaled
            if not unscales:
                self.clip()

        def on_before_optimizer_step(self, _: Any) -> None:  # unscaled by the plugin
            if unscales:
                self.clip()

    plugins = import_module(f"{INSTALLED[0]}.plugins.precision")
    precision = plugins.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    report = fit_watched(lightning, tmp_path, Clips(), max_epochs=4, plugins=[precision])
    found = list_found([*report.findings, *report.notes])
    assert (("mishandled", "not_unscaled") in found) == (not unscales)


@pytest.mark.parametrize("late", [False, True])
def test_gradients_that_are_cleared_before_the_step(
    lightning: Any, tmp_path: Path, late: bool
) -> None:
    class Clears(type(make_module(lightning))):  # type: ignore[misc]
        def on_after_backward(self) -> None:
            if not late:
                self.zero_grad()

        def on_train_batch_end(self, *_: Any) -> None:
            if late:
                self.zero_grad()

    report = fit_watched(lightning, tmp_path, Clears(), max_epochs=6)
    assert list_found(report.findings) == ([] if late else [("mishandled", "cleared")])


def test_a_scaler_that_always_skips_is_no_pass(lightning: Any, tmp_path: Path) -> None:
    class Breaks(type(make_module(lightning))):  # type: ignore[misc]
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            return loss if self.trainer.current_epoch < 3 else loss * torch.inf

    plugins = import_module(f"{INSTALLED[0]}.plugins.precision")
    precision = plugins.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    report = fit_watched(lightning, tmp_path, Breaks(), max_epochs=12, plugins=[precision])
    assert report.status == "not_judged"
    assert report.unstepped > 45


@pytest.mark.parametrize("between", [call_detach, draw, go_by_numpy])
def test_the_line_of_a_cut_is_named(lightning: Any, tmp_path: Path, between: Any) -> None:
    class Coded(type(make_module(lightning))):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(16, 8), Coder(between), nn.Linear(3, 4))

    (finding,) = fit_watched(lightning, tmp_path, Coded(), max_epochs=2).findings
    assert finding.source.endswith(f"test_cuts.py:{find_line(between)}")
    assert {"net.1.enc.0", "net.1.enc.2"} <= set(finding.layers)


def make_manual(pl: Any, clears: bool) -> Any:
    """Manual optimization, in which clearing is the module's own business."""

    class Manual(type(make_module(pl))):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
            optimizer = self.optimizers()
            if clears:
                optimizer.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(self.net(batch[0]), batch[1]))
            optimizer.step()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return Manual()


@pytest.mark.parametrize("clears", [True, False])
def test_manual_optimization_that_does_not_clear(
    lightning: Any, tmp_path: Path, clears: bool
) -> None:
    callback = GradWatchCallback(every_n_steps=1)
    make_trainer(lightning, [callback], tmp_path).fit(make_manual(lightning, clears), make_data())
    found = [(finding.kind, finding.cause) for finding in callback.report().findings]
    assert found == ([] if clears else [("mishandled", "not_cleared")])


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_scheduler_of_epochs_that_is_stepped_per_batch(
    lightning: Any, tmp_path: Path, interval: str
) -> None:
    class Scheduled(type(make_module(lightning))):  # type: ignore[misc]
        def configure_optimizers(self) -> dict[str, Any]:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: max(1 - step / 3, 0)
            )
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": interval},
            }

    callback = GradWatchCallback(every_n_steps=1)
    options = {"max_epochs": 4, "gradient_clip_val": 0.5}
    trainer = make_trainer(lightning, [callback], tmp_path, **options)
    trainer.fit(Scheduled(), make_data())
    found = [(finding.kind, finding.cause) for finding in callback.report().findings]
    assert found == ([] if interval == "epoch" else [("unmoved", "learning_rate")])


@pytest.mark.parametrize("finder", ["rate", "batch size"])
def test_a_finder_in_the_middle_is_not_seen(lightning: Any, tmp_path: Path, finder: str) -> None:
    """Steps and records are the trainer's own, which has forgotten its trial steps."""
    callbacks = import_module(f"{INSTALLED[0]}.callbacks")

    class Finder(callbacks.LearningRateFinder):  # type: ignore[misc]
        def on_fit_start(self, *_: object) -> None:
            pass

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch != 1:
                return
            if finder == "rate":
                self.lr_find(trainer, pl_module)
            else:
                scale_batches(trainer, pl_module)

    def scale_batches(trainer: Any, module: Any) -> None:
        sizes = callbacks.BatchSizeFinder(steps_per_trial=2, init_val=8, max_trials=2)
        sizes._batch_arg_name = "batch_size"
        sizes.scale_batch_size(trainer, module)

    def train(*others: Any) -> Any:
        module, callback = make_module(lightning), GradWatchCallback(every_n_steps=1)
        module.batch_size, module.lr = 8, 0.1
        module.train_dataloader = module.val_dataloader = make_data
        trainer = make_trainer(lightning, [*others, callback], tmp_path, max_epochs=2)
        trainer.fit(module)
        steps = [record.global_step for record in get_records(callback)]
        assert steps == list(range(trainer.global_step))
        assert len(steps) >= N_BATCHES
        return callback

    settings = {"update_attr": False, "num_training_steps": 7, "early_stop_threshold": None}
    assert train(Finder(**settings)).report().status == train().report().status
