"""GradWatchCallback in the Trainer of Hugging Face transformers."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import gradwatch
from gradwatch.errors import InvalidInput, NothingToJudge, UnhealthyGradients
from gradwatch.journal import LOG10_FLOOR
from gradwatch.log.writer import Run, read_runs
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

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from gradwatch.transformers import GradWatchCallback  # noqa: E402

N_STEPS = 8
SIZE = 8

pytestmark = [
    pytest.mark.models,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def quiet(one_thread: None) -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)


class Classifier(nn.Module):
    """What the Trainer asks of a model: a loss in a dictionary."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU, depth: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = build_chain(activation, depth)

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Examples(Dataset[dict[str, Tensor]]):
    """Random inputs with random labels, always the same ones."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.inputs = torch.randn(N_STEPS * SIZE, 16)
        self.labels = torch.randint(4, (N_STEPS * SIZE,))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"inputs": self.inputs[index], "labels": self.labels[index]}


class InOrder(transformers.Trainer):
    """Without shuffling, so that a plain loop sees the same batches."""

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(Examples())


def make_trainer(folder: Path, model: nn.Module, callbacks: list[Any], **options: Any) -> Any:
    settings = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": SIZE,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        **options,
    }
    args = transformers.TrainingArguments(output_dir=str(folder), **settings)
    return InOrder(model=model, args=args, train_dataset=Examples(), callbacks=callbacks)


def require_resume(folder: Path) -> None:
    """Skip where this Trainer cannot read its own checkpoint, whoever watches or does not.

    From 2.6 on, torch's default refuses the random state that older ones of them save.
    """
    bare = make_trainer(folder, Classifier(), [], num_train_epochs=2)
    try:
        bare.train(resume_from_checkpoint=True)
    except pickle.UnpicklingError:
        pytest.skip(
            f"transformers {transformers.__version__} cannot resume with torch {torch.__version__}"
        )


def read_run(folder: Path) -> Run:
    """The run with our records; the trainer's own have none."""
    (run,) = (run for run in read_runs(folder) if run.entries)
    return run


def watch_plain_loop(accumulate: int = 1) -> Any:
    model, examples = Classifier(), Examples()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.0)
    pairs = zip(examples.inputs.split(SIZE), examples.labels.split(SIZE), strict=True)
    with gradwatch.watch(model, optimizer, every_n_steps=1) as watching:
        for index, (inputs, labels) in enumerate(pairs):
            (model(inputs, labels)["loss"] / accumulate).backward()
            if (index + 1) % accumulate == 0:
                nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
                optimizer.step()
                optimizer.zero_grad()
    return watching


@pytest.mark.parametrize("accumulate", [1, 2])
def test_figures_are_those_of_a_plain_loop(tmp_path: Path, accumulate: int) -> None:
    callback = GradWatchCallback(every_n_steps=1)
    options = {"gradient_accumulation_steps": accumulate, "max_grad_norm": 1e-3}
    make_trainer(tmp_path, Classifier(), [callback], **options).train()
    ours, plain = get_records(callback), get_records(watch_plain_loop(accumulate))
    assert [record.global_step for record in ours] == list(range(N_STEPS // accumulate))
    for record, other in zip(ours, plain, strict=True):
        called = [  # by lines of its own
            [dataclasses.replace(layer, source="") for layer in each.layer_set.layers]
            for each in (record, other)
        ]
        assert called[0] == called[1]
        np.testing.assert_allclose(record.layer_values, other.layer_values, rtol=1e-5)
        np.testing.assert_allclose(record.param_values, other.param_values, rtol=1e-4, atol=1e-9)
    assert np.linalg.norm(ours[0].param("grad_l2_norm")) > 1e-2  # before clipping to 1e-3


@needs_regions
@pytest.mark.usefixtures("fresh_dynamo")
def test_layers_are_read_in_their_graph(tmp_path: Path) -> None:
    stance, records = torch._dynamo.eval_frame._stance, []
    for compiled in ("eager", "in_graph"):
        torch._dynamo.reset()
        model, backend = Classifier(), Backend()
        model.compile(backend=backend)
        callback = GradWatchCallback(every_n_steps=1, compiled=compiled)
        make_trainer(tmp_path, model, [callback]).train()
        records.append(get_records(callback))
        assert torch._dynamo.eval_frame._stance is stance
    assert backend.runs[True] == N_STEPS - FOLLOWED + COMPARED
    assert_same_records(*records)


@needs_regions
@pytest.mark.usefixtures("fresh_dynamo")
def test_a_language_model_with_padding_is_read_in_its_graph() -> None:
    """A mask of four dimensions, keys that heads share, a loss and logits."""
    size = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "use_cache": False}
    tokens, mask = torch.randint(50, (3, 8)), torch.ones(3, 8, dtype=torch.long)
    mask[1, 5:] = 0
    records = []
    for compiled in ("eager", "in_graph"):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**size, **heads)).train()
        optimizer, backend = torch.optim.SGD(model.parameters(), lr=0.1), Backend()
        model.compile(backend=backend)
        with gradwatch.watch(model, optimizer, every_n_steps=1, compiled=compiled) as watch:
            for _ in range(FOLLOWED + 1):
                optimizer.zero_grad()
                model(input_ids=tokens, attention_mask=mask, labels=tokens).loss.backward()
                optimizer.step()
        records.append(get_records(watch))
    assert backend.runs[True] == 1 + COMPARED
    assert_same_records(*records)


def test_trains_bit_identically(tmp_path: Path) -> None:
    results = []
    for callbacks in ([], [GradWatchCallback(every_n_steps=1)]):
        model = Classifier()
        trainer = make_trainer(tmp_path, model, callbacks)
        trainer.train()
        results.append(capture_results(model, [trainer.optimizer.optimizer], []))
    assert list_differences(*results) == []


def test_writes_a_run_beside_the_trainers(tmp_path: Path) -> None:
    callback = GradWatchCallback(every_n_steps=1)
    options = {"report_to": "tensorboard", "logging_strategy": "steps", "logging_steps": 1}
    options["optim"] = "sgd"
    make_trainer(tmp_path, Classifier(nn.Sigmoid, 12), [callback], **options).train()
    run = read_run(tmp_path)
    assert Path(run.path).name == "gradwatch"
    assert [record.global_step for record in run.records()] == list(range(N_STEPS))
    assert any("vanishing" in text.markdown.lower() for text in run.texts)
    folders = [path.parent for path in tmp_path.rglob("*tfevents*")]
    assert len(folders) == len(set(folders)) == 2


def test_shares_a_writer(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    writer = SummaryWriter(str(tmp_path / "shared"))
    callbacks = [
        GradWatchCallback(writer=writer, every_n_steps=1),
        TensorBoardCallback(tb_writer=writer),
    ]
    make_trainer(tmp_path, Classifier(), callbacks, gradient_accumulation_steps=2).train()
    (run,) = read_runs(tmp_path / "shared")
    assert len(list(run.records())) == N_STEPS // 2
    assert run.header is not None
    assert run.header.description.batch_size == 2 * SIZE
    assert len(list((tmp_path / "shared").glob("*tfevents*"))) == 1


def test_writes_nothing_unasked(tmp_path: Path) -> None:
    make_trainer(tmp_path, Classifier(), [GradWatchCallback(every_n_steps=1)]).train()
    assert list(tmp_path.rglob("*tfevents*")) == []


class Tracker(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """As the callbacks behind ``report_to`` are."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[str, float]] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
        if any(name.startswith("gradwatch/") for name in logs):
            self.seen[state.global_step] = logs


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Tracker:
    known = transformers.integrations.integration_utils.INTEGRATION_TO_CALLBACK
    monkeypatch.setitem(known, "tracker", Tracker)
    return Tracker()


def test_reports_to_the_trainers_trackers(
    tmp_path: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts: list[dict[str, Any]] = []
    wandb = SimpleNamespace(run=SimpleNamespace(alert=lambda **given: alerts.append(given)))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    histories = []
    for callbacks in ([], [tracker, GradWatchCallback(every_n_steps=1)]):
        model = Classifier(nn.Sigmoid, 12)
        trainer = make_trainer(tmp_path, model, callbacks, optim="sgd", logging_steps=2)
        trainer.args.logging_strategy = "steps"
        trainer.train()
        histories.append([sorted(entry) for entry in trainer.state.log_history])
    assert histories[0] == histories[1]
    assert list(tracker.seen) == list(range(N_STEPS))
    assert tracker.seen[0]["gradwatch/log10_attenuation"] < -5
    assert [alert["title"] for alert in alerts] == ["gradwatch: vanishing"]


def test_an_update_of_zero_is_a_floor_at_every_tracker(tmp_path: Path, tracker: Tracker) -> None:
    """And not a gap in the line."""
    callbacks = [tracker, GradWatchCallback(every_n_steps=1)]
    make_trainer(tmp_path, Classifier(), callbacks, learning_rate=0.0).train()
    figures = [logs["gradwatch/log10_smallest_update_ratio"] for logs in tracker.seen.values()]
    assert figures == [LOG10_FLOOR] * N_STEPS


def test_a_log_behind_an_address(tmp_path: Path) -> None:
    """Also one that ``fail_on`` reads again."""
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").store.clear()
    url = "memory://bucket/trainer"
    callback = GradWatchCallback(logdir=url, every_n_steps=1, fail_on=("vanishing",))
    make_trainer(tmp_path, Classifier(), [callback]).train()
    (run,) = read_runs(url)
    assert len(list(run.records())) == N_STEPS
    assert run.end is not None
    assert run.end.how == "detached"
    fsspec.filesystem("memory").store.clear()


def test_a_tracker_that_fails_stops_nothing(
    tmp_path: Path, tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.on_log = lambda *_, **__: 1 / 0  # type: ignore[method-assign]
    trainer = make_trainer(tmp_path, Classifier(), [tracker, GradWatchCallback(every_n_steps=4)])
    trainer.args.logging_steps = 100
    with contextlib.suppress(ZeroDivisionError):  # the Trainer's own last word to its trackers
        trainer.train()
    assert trainer.state.global_step == N_STEPS
    assert "training goes on" in caplog.text


def test_stops_a_training_that_is_to_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = GradWatchCallback(fail_on=("vanishing",))
    model = Classifier(nn.Sigmoid, 12)
    before = list_attachments(model.net)
    trainer = make_trainer(tmp_path, model, [callback], optim="sgd")
    with pytest.raises(UnhealthyGradients, match="GW101"):
        trainer.train()
    assert 0 < trainer.state.global_step < N_STEPS
    assert "GW101" in caplog.text
    model.zero_grad()
    assert list_differences(before, list_attachments(model.net)) == []


def test_another_kind_lets_it_pass(tmp_path: Path) -> None:
    callback = GradWatchCallback(fail_on=("nonfinite",))
    make_trainer(tmp_path, Classifier(nn.Sigmoid, 12), [callback], optim="sgd").train()
    assert [finding.kind for finding in callback.report().findings] == ["vanishing"]


def test_an_error_of_ours_is_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("gradwatch.verdict.engine.Doctor.observe", fail)
    trainer = make_trainer(tmp_path, Classifier(), [GradWatchCallback(fail_on=("dead",))])
    with pytest.warns(RuntimeWarning, match="ours"), pytest.raises(NothingToJudge, match="ours"):
        trainer.train()
    assert trainer.state.global_step == N_STEPS


def test_not_judged_is_no_pass(tmp_path: Path) -> None:
    callback = GradWatchCallback(fail_on=("vanishing",))
    with pytest.raises(NothingToJudge, match="seen to learn"):
        make_trainer(tmp_path, Classifier(), [callback], max_steps=2).train()


def test_a_finished_job_that_is_resumed_is_judged_by_its_whole_log(tmp_path: Path) -> None:
    def train(folder: str, **options: Any) -> None:
        logdir = tmp_path / folder
        callback = GradWatchCallback(fail_on=("vanishing",), logdir=logdir, every_n_steps=1)
        trainer = make_trainer(tmp_path, Classifier(), [callback], save_strategy="epoch")
        trainer.train(**options)

    train("log")
    require_resume(tmp_path)
    train("log", resume_from_checkpoint=True)
    with pytest.raises(NothingToJudge):
        train("another", resume_from_checkpoint=True)


def test_steps_continue_after_a_resume(tmp_path: Path) -> None:
    options = {"save_strategy": "epoch", "report_to": "tensorboard"}
    if "logging_dir" in {row.name for row in dataclasses.fields(transformers.TrainingArguments)}:
        options["logging_dir"] = str(tmp_path / "runs")  # else older ones name it by the second
    make_trainer(tmp_path, Classifier(), [GradWatchCallback(every_n_steps=1)], **options).train()
    require_resume(tmp_path)
    callback = GradWatchCallback(every_n_steps=1)
    resumed = make_trainer(tmp_path, Classifier(), [callback], **options, num_train_epochs=2)
    resumed.train(resume_from_checkpoint=True)
    assert get_records(callback)[0].global_step == N_STEPS
    run = read_run(tmp_path)
    assert [record.global_step for record in run.records()] == list(range(2 * N_STEPS))


def test_a_broken_training_can_be_begun_again(tmp_path: Path) -> None:
    callback = GradWatchCallback(every_n_steps=1)
    model = Classifier()
    trainer = make_trainer(tmp_path, model, [callback])
    forward = model.forward
    model.forward = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        trainer.train()
    model.forward = forward  # type: ignore[method-assign]
    trainer.train()
    assert callback.report().records == N_STEPS


def test_bad_settings_are_refused_at_once() -> None:
    with pytest.raises(InvalidInput):
        GradWatchCallback(fail_on=("sad",))
    with pytest.raises(NothingToJudge):
        GradWatchCallback().report()


@pytest.mark.parametrize("whole", [False, True])
def test_layers_that_are_replaced_after_the_optimizer_was_made(tmp_path: Path, whole: bool) -> None:
    """Also all of them: the trainer goes on, and the report says that nothing moves."""
    model, callback = Classifier(), GradWatchCallback(every_n_steps=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    replaced = build_chain(nn.ReLU, 4)
    if whole:
        model.net = replaced
    else:
        model.net[-1] = replaced[-1]
    trainer = make_trainer(tmp_path, model, [callback], num_train_epochs=3)
    trainer.optimizer = optimizer
    trainer.train()
    (finding,) = callback.report().findings
    assert (finding.kind, finding.cause) == ("unmoved", "not_optimized")
    names = [f"net.{i}" for i, layer in enumerate(model.net) if isinstance(layer, nn.Linear)]
    assert sorted(finding.layers) == (names if whole else names[-1:])


def test_accumulation_clipping_and_a_warm_up_are_no_error(tmp_path: Path) -> None:
    callback = GradWatchCallback(every_n_steps=1)
    options = {
        "num_train_epochs": 6,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.1,
        "lr_scheduler_type": "linear",
        "warmup_steps": 6,
    }
    make_trainer(tmp_path, Classifier(), [callback], **options).train()
    assert callback.report().records == 24
    assert callback.report().findings == ()


def train_watched(root: Path, kind: type[Any] = InOrder, **options: Any) -> Any:
    """The report on 32 steps of a trainer whose loop may be changed."""
    callback = GradWatchCallback(every_n_steps=1)
    model = Classifier()
    optimizers = options.pop("optimizers", lambda _: (None, None))(model)
    trainer = make_trainer(root, model, [callback], num_train_epochs=4, **options)
    trainer.__class__ = kind
    trainer.optimizer, trainer.lr_scheduler = optimizers
    trainer.train()
    return callback.report()


@pytest.mark.parametrize("is_early", [False, True])
def test_gradients_that_are_cleared_before_the_step(tmp_path: Path, is_early: bool) -> None:
    class Clears(InOrder):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if not is_early:
                args[0].zero_grad()
            loss = super().training_step(*args, **kwargs)
            if is_early:
                args[0].zero_grad()
            return loss

    report = train_watched(tmp_path, Clears)
    assert list_found(report.findings) == ([("mishandled", "cleared")] if is_early else [])


@pytest.mark.parametrize("length", [3, 400])
def test_a_schedule_that_ends_after_some_batches(tmp_path: Path, length: int) -> None:
    def make(model: nn.Module) -> Any:
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: max(1 - step / length, 0)
        )
        return optimizer, schedule

    report = train_watched(tmp_path, optimizers=make)
    assert list_found(report.findings) == ([("unmoved", "learning_rate")] if length == 3 else [])


@pytest.mark.parametrize("frozen", [False, True])
def test_layers_that_no_optimizer_holds(tmp_path: Path, frozen: bool) -> None:
    def make(model: nn.Module) -> Any:
        model.net[0].requires_grad_(not frozen)
        return torch.optim.AdamW(model.net[2:].parameters(), 0.01), None

    report = train_watched(tmp_path, optimizers=make)
    assert report.findings == ()
    assert list_found(report.notes) == ([] if frozen else [("unmoved", "not_optimized")])


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_step_that_never_reaches_the_weight(tmp_path: Path, is_lost: bool) -> None:
    class Lossy(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            before = self.param_groups[0]["params"][0].detach().clone()
            super().step(closure)
            if is_lost:
                self.param_groups[0]["params"][0].detach().copy_(before)

    report = train_watched(
        tmp_path, optimizers=lambda model: (Lossy(model.parameters(), lr=0.1), None)
    )
    assert list_found(report.findings) == ([("unmoved", "lost_update")] if is_lost else [])


@pytest.mark.parametrize("between", [call_detach, draw, go_by_numpy])
def test_the_line_of_a_cut_is_named(tmp_path: Path, between: Any) -> None:
    callback, model = GradWatchCallback(every_n_steps=1), Classifier()
    model.net = nn.Sequential(nn.Linear(16, 8), Coder(between), nn.Linear(3, 4))
    make_trainer(tmp_path, model, [callback], num_train_epochs=2).train()
    (finding,) = callback.report().findings
    assert finding.source.endswith(f"test_cuts.py:{find_line(between)}")
    assert {"net.1.enc.0", "net.1.enc.2"} <= set(finding.layers)
