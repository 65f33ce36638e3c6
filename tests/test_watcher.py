"""watch(): its life around a training, what it writes, whom it tells, and what it refuses."""

from __future__ import annotations

import gc
import weakref
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.alerts import Alerts
from gradwatch.errors import AlreadyWatched, InvalidInput, NothingToJudge
from gradwatch.log.writer import read_runs
from gradwatch.verdict.episodes import Change
from tests.capture.tools import assert_no_trace
from tests.networks import Network, make_mlp, make_unhealthy_mlp
from tests.traces import list_attachments, list_differences


def fail(*_: Any) -> None:
    raise ZeroDivisionError("ours")


@pytest.fixture
def network() -> Network:
    return make_mlp()


# Steps ---------------------------------------------------------------------------------------


def test_first_steps_and_then_at_growing_waits(network: Network) -> None:
    with gradwatch.watch(network.model, network.optimizer, every_n_steps=7) as watch:
        network.train(30)
    history = watch.report().history
    assert history is not None
    steps = [record.global_step for record in history.records]
    assert steps == [*range(6), 7, 10, 15, 21, 28]
    assert watch.global_step == 30


def test_steps_marked_by_hand(network: Network) -> None:
    with gradwatch.watch(network.model) as watch:
        for _ in range(4):
            network.train(1)
            watch.step()
    assert watch.report().records == watch.global_step == 4


def test_step_is_refused_where_an_optimizer_counts(network: Network) -> None:
    watch = gradwatch.watch(network.model, network.optimizer)
    with pytest.raises(InvalidInput, match="without an optimizer"):
        watch.step()
    watch.detach()


def test_a_resumed_run_goes_on_counting(network: Network) -> None:
    with gradwatch.watch(network.model, network.optimizer, global_step=105) as watch:
        network.train(10)
    report = watch.report()
    assert (report.first_step, report.last_step, report.records) == (109, 109, 1)
    assert watch.global_step == 115


def test_an_optimizer_given_twice_counts_once(network: Network) -> None:
    optimizers = [network.optimizer, network.optimizer]
    with gradwatch.watch(network.model, optimizers) as watch:
        network.train(3)
    assert watch.report().records == watch.global_step == 3


# Report --------------------------------------------------------------------------------------


def test_report_is_there_before_during_and_after() -> None:
    network = make_unhealthy_mlp()
    watch = gradwatch.watch(network.model, network.optimizer)
    with pytest.raises(NothingToJudge):
        watch.report().raise_if()
    network.train(6)
    during = watch.report()
    network.train(6)
    watch.detach()
    network.train(2)
    after = watch.report()
    assert [finding.kind for finding in during.findings] == ["vanishing"]
    assert (during.records, after.records) == (6, 8)
    assert after.findings[0].cause == "activation_derivative"


def test_thresholds_decide() -> None:
    network = make_unhealthy_mlp()
    thresholds = gradwatch.Thresholds(ignore_kinds=("vanishing",))
    with gradwatch.watch(network.model, network.optimizer, thresholds=thresholds) as watch:
        network.train(10)
    assert watch.report().healthy
    assert watch.thresholds is thresholds


def test_the_name_of_the_run_is_in_the_report(network: Network) -> None:
    with gradwatch.watch(network.model, network.optimizer, run="baseline") as watch:
        network.train(1)
    assert watch.report().run == "baseline"


# No trace ------------------------------------------------------------------------------------


def test_detach_leaves_no_trace_and_may_be_repeated(network: Network) -> None:
    before = list_attachments(network.model, [network.optimizer])
    watch = gradwatch.watch(network.model, network.optimizer)
    assert list_attachments(network.model, [network.optimizer]) != before
    network.train(2)
    watch.detach()
    watch.detach()
    network.optimizer.zero_grad()
    after = list_attachments(network.model, [network.optimizer])
    assert list_differences(before, after) == []


def test_the_trainings_own_error_passes_through(network: Network) -> None:
    before = list_attachments(network.model, [network.optimizer])
    watch = gradwatch.watch(network.model, network.optimizer)
    with pytest.raises(KeyError, match="theirs"), watch:
        network.train_and_break(2)
    network.optimizer.zero_grad()
    after = list_attachments(network.model, [network.optimizer])
    assert list_differences(before, after) == []
    assert watch.report().records == 2


def test_a_watch_keeps_no_model_alive() -> None:
    network = make_mlp()
    with gradwatch.watch(network.model, network.optimizer) as watch:
        network.train(1)
    alive = weakref.ref(network.model)
    del network
    watch.report()
    del watch
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    "make", [nn.ModuleList, lambda parts: nn.ModuleDict(zip("ab", parts, strict=True))]
)
def test_a_bundle_that_nobody_else_holds_is_watched_to_the_end(make: Any) -> None:
    parts = nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 1)
    optimizer = torch.optim.SGD([p for part in parts for p in part.parameters()], lr=0.1)
    watch = gradwatch.watch(make(parts), optimizer)
    gc.collect()
    for _ in range(3):
        parts[1](parts[0](torch.ones(2, 4))).sum().backward()
        optimizer.step()
    alive = weakref.ref(parts[0])
    watch.detach()
    assert watch.report().records == 3
    del parts, optimizer
    gc.collect()
    assert alive() is None


# Logs ----------------------------------------------------------------------------------------


def test_without_a_logdir_nothing_is_written(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with gradwatch.watch(network.model, network.optimizer):
        network.train(2)
    assert list(tmp_path.iterdir()) == []


def test_the_log_holds_what_the_report_is_made_of(tmp_path: Path) -> None:
    network = make_unhealthy_mlp()
    with gradwatch.watch(network.model, network.optimizer, logdir=tmp_path) as watch:
        network.train(8)
    (run,) = read_runs(tmp_path)
    assert [record.global_step for record in run.records()] == [0, 1, 2, 3, 4, 5, 7]
    last = run.texts[-1]
    assert last.tag == "gradwatch/verdict"
    assert last.global_step == 7
    assert last.markdown == watch.report().to_markdown()


def test_a_shared_writer_stays_open(network: Network, tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    with gradwatch.watch(network.model, network.optimizer, writer=writer):
        network.train(3)
    writer.add_scalar("loss", 1.0, 3)
    writer.close()
    assert len(list(tmp_path.glob("*tfevents*"))) == 1
    (run,) = read_runs(tmp_path)
    assert len(list(run.records())) == 3


def test_a_log_that_breaks_ends_neither_watch_nor_training(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradwatch.journal.Journal.write", fail)
    watch = gradwatch.watch(network.model, network.optimizer, logdir=tmp_path)
    with pytest.warns(RuntimeWarning, match="goes on watching") as warned, watch:
        network.train(5)
    assert len(warned) == 1
    assert watch.failure is None
    assert watch.report().records == 5


def test_a_log_that_cannot_be_closed_leaves_the_trainings_error_alone(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradwatch.journal.Journal.close", fail)
    watch = gradwatch.watch(network.model, network.optimizer, logdir=tmp_path)
    warned = pytest.warns(RuntimeWarning, match="ours")
    with pytest.raises(KeyError, match="theirs"), warned, watch:
        network.train_and_break(1)


def test_warnings_as_errors_stop_no_training(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("gradwatch.journal.Journal.write", fail)
    with gradwatch.watch(network.model, network.optimizer, logdir=tmp_path) as watch:
        network.train(3)
    assert watch.report().records == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


# Listeners -----------------------------------------------------------------------------------


def test_listeners_are_called() -> None:
    network = make_unhealthy_mlp()
    changes: list[Change] = []
    scalars: dict[int, dict[str, float]] = {}
    with gradwatch.watch(
        network.model,
        network.optimizer,
        on_change=changes.append,
        log=lambda figures, step: scalars.__setitem__(step, figures),
    ):
        network.train(8)
    assert [(change.began, change.finding.kind) for change in changes] == [(True, "vanishing")]
    assert list(scalars) == [0, 1, 2, 3, 4, 5, 7]
    assert scalars[0]["gradwatch/log10_attenuation"] < -5


def test_a_figure_of_zero_is_logged_as_the_floor(network: Network, tmp_path: Path) -> None:
    network.optimizer.param_groups[0]["lr"] = 0.0
    logged: list[dict[str, float]] = []
    with gradwatch.watch(
        network.model,
        network.optimizer,
        log=lambda figures, step: logged.append({**figures, "step": step}),
        per_layer_scalars=True,
    ):
        network.train(3)
    assert [figures["step"] for figures in logged] == [0, 1, 2]
    assert all(figures["gradwatch/log10_smallest_update_ratio"] == -45 for figures in logged)
    layers = {tag for figures in logged for tag in figures if tag.startswith("gradwatch_layers/")}
    assert "gradwatch_layers/log10_grad_output_l2_norm/0" in layers


def test_findings_are_alerts_of_trackers_that_have_them() -> None:
    network, wandb, comet = make_unhealthy_mlp(), [], []
    runs = [
        SimpleNamespace(alert=lambda **given: wandb.append(given)),
        SimpleNamespace(send_notification=lambda title, **given: comet.append((title, given))),
        SimpleNamespace(),
        None,
    ]
    alerts = Alerts(lambda: runs)
    with gradwatch.watch(network.model, network.optimizer, on_change=alerts.hear) as watch:
        network.train(8)
    (finding,) = watch.report().findings
    (alert,) = wandb
    assert (alert["title"], alert["level"]) == ("gradwatch: vanishing", "ERROR")
    assert f"[{finding.code} vanishing, critical]" in alert["text"]
    ((title, given),) = comet
    assert title == alert["title"]
    assert given["additional_data"]["finding"] == alert["text"]
    alerts.hear(Change(finding, began=True))
    assert len(wandb) == len(comet) == 1


def test_a_listener_that_raises_ends_nothing() -> None:
    network = make_unhealthy_mlp()
    watch = gradwatch.watch(network.model, network.optimizer, on_change=fail)
    with pytest.warns(RuntimeWarning, match="fail, which raised ZeroDivisionError: ours"), watch:
        network.train(8)
    assert watch.failure is None
    assert watch.report().records == 7


# Failure of ours -----------------------------------------------------------------------------


def test_an_error_of_ours_ends_the_watch_and_not_the_training(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradwatch.verdict.engine.Doctor.observe", fail)
    watch = gradwatch.watch(network.model, network.optimizer)
    with pytest.warns(RuntimeWarning, match="ours") as warned, watch:
        network.train(5)
    assert len(warned) == 1
    assert len(network.losses) == 5
    assert isinstance(watch.failure, ZeroDivisionError)
    with pytest.raises(NothingToJudge, match="ours"):
        watch.report().raise_if()


# Bad input -----------------------------------------------------------------------------------


def test_a_watch_inside_another_ones_with_is_refused(network: Network) -> None:
    with (
        gradwatch.watch(network.model, network.optimizer),
        pytest.raises(AlreadyWatched, match="detach"),
    ):
        gradwatch.watch(network.model, network.optimizer)
    gradwatch.watch(network.model, network.optimizer).detach()


def test_a_second_watch_ends_the_first_and_says_so_once(network: Network) -> None:
    """As a notebook's cell that is run again does."""
    first = gradwatch.watch(network.model, network.optimizer)
    with pytest.warns(RuntimeWarning, match="ended the watch") as said:
        second = gradwatch.watch(network.model, network.optimizer)
    assert len(said) == 1
    assert said[0].filename == __file__
    network.train(3)
    second.detach()
    assert (first.global_step, second.global_step) == (0, 3)
    assert_no_trace(network.model, (network.optimizer,))


def test_unwatch_ends_whatever_watch_there_is(network: Network) -> None:
    gradwatch.unwatch(network.model)
    watching = gradwatch.watch(network.model, network.optimizer)
    gradwatch.unwatch(network.model)
    network.train(2)
    assert watching.global_step == 0
    assert_no_trace(network.model, (network.optimizer,))


class Scaled:
    """As LARC and schedule-free wrappers are: no optimizer, but what steps one."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optim = optimizer

    def step(self) -> None:
        self.optim.step()


class Container:
    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers

    def step(self) -> None:
        for each in self.optimizers:
            each.step()


@pytest.mark.parametrize("wrap", [Scaled, lambda inner: Container([inner])])
def test_what_steps_an_optimizer_is_as_good_as_one(network: Network, wrap: Any) -> None:
    with gradwatch.watch(network.model, wrap(network.optimizer)) as watch:
        network.train(3)
    assert watch.report().records == watch.global_step == 3


@pytest.mark.parametrize("model", [None, "model", torch.ones(2), nn.Linear])
def test_what_is_no_module_is_refused(model: Any) -> None:
    with pytest.raises(InvalidInput, match=r"Expected a torch\.nn\.Module"):
        gradwatch.watch(model)


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)])
def test_a_model_with_nothing_to_train_is_refused(model: nn.Module) -> None:
    with pytest.raises(InvalidInput, match="trainable parameters"):
        gradwatch.watch(model)


@pytest.mark.parametrize("optimizer", [3, "adam", [], (), [None], {"a": 1}, torch.optim.SGD])
def test_what_is_no_optimizer_is_refused(network: Network, optimizer: Any) -> None:
    with pytest.raises(InvalidInput, match="ptimizer"):
        gradwatch.watch(network.model, optimizer)


def test_the_optimizer_of_another_model_is_refused(network: Network) -> None:
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)
    with pytest.raises(InvalidInput, match="another copy"):
        gradwatch.watch(network.model, other)


@pytest.mark.parametrize(
    "options",
    [
        {"every_n_steps": 0},
        {"every_n_steps": 2.5},
        {"compiled": "always"},
        {"global_step": -1},
        {"global_step": 1.5},
        {"thresholds": {"profile": 1}},
        {"logdir": "a", "writer": object()},
        {"writer": object()},
    ],
)
def test_bad_settings_are_refused_and_leave_nothing(
    network: Network, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = list_attachments(network.model, [network.optimizer])
    with pytest.raises(InvalidInput):
        gradwatch.watch(network.model, network.optimizer, **options)
    after = list_attachments(network.model, [network.optimizer])
    assert list_differences(before, after) == []
    assert list(tmp_path.iterdir()) == []
    gradwatch.watch(network.model, network.optimizer).detach()


def test_an_unwritable_logdir_is_refused(network: Network, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InvalidInput, match="can be written"):
        gradwatch.watch(network.model, network.optimizer, logdir=file / "below")
    gradwatch.watch(network.model, network.optimizer).detach()


@pytest.mark.parametrize("name", ["a b", "ä/ö", "<b>'x'</b>", "[red]x[/red]", 'quo"te', "日本"])
def test_strange_names_of_layers_work(name: str, tmp_path: Path) -> None:
    network = make_unhealthy_mlp()
    model = nn.ModuleDict({name: network.model})
    model.forward = network.model.forward  # type: ignore[method-assign, assignment]
    with gradwatch.watch(model, network.optimizer, logdir=tmp_path) as watch:
        network.train(6)
    report = watch.report()
    assert report.findings[0].layers[0].startswith(name)
    for text in (str(report), report.to_markdown(), report.to_json(), report._repr_html_()):
        assert text
    (run,) = read_runs(tmp_path)
    assert next(iter(run.records())).layer_set.params[0].fqn == f"{name}.0.weight"


# Budget --------------------------------------------------------------------------------------


def test_a_budget_leaves_steps_of_the_schedule_out(network: Network, tmp_path: Path) -> None:
    seconds = count()  # a clock that is read most where a step is sampled
    with gradwatch.watch(
        network.model, network.optimizer, every_n_steps=1, budget=0.5, logdir=tmp_path
    ) as watch:
        watch._session._pace._clock = lambda: float(next(seconds))
        network.train(400)
    report = watch.report()
    (run,) = read_runs(tmp_path)
    steps = [record.global_step for record in run.records()]
    intervals = [record.step("interval") for record in run.records()]
    assert steps[:2] == [0, 2]
    assert 12 < len(steps) < 60
    assert intervals[0] == 1
    assert intervals[-1] >= 10
    words = f"every {intervals[-1]:.0f} lately to keep the budget"
    assert words in report.to_markdown()


def test_a_budget_that_is_no_share(network: Network) -> None:
    for budget in (0, 2, "1%"):
        with pytest.raises(InvalidInput, match="Expected budget"):
            gradwatch.watch(network.model, network.optimizer, budget=budget)  # type: ignore[arg-type]
