"""A watch that nobody ends: it goes with its model, and leaves nothing in the process."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

import gradwatch
from tests.capture.tools import has_global_hooks

Way = Callable[[nn.Module, Optimizer, Path], None]


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))


def step(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()


def drop_the_handle(model: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    gradwatch.watch(model, optimizer, logdir=folder)
    step(model, optimizer)


def break_between_forward_and_step(model: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    gradwatch.watch(model, optimizer, logdir=folder)
    step(model, optimizer)
    model(torch.ones(2, 4)).sum().backward()


class Interrupted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt


def interrupt_forward(model: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    """Ctrl-C: torch calls no hook on the way out."""
    gradwatch.watch(model, optimizer, logdir=folder)
    model.append(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        model(torch.ones(2, 4))


def keep_no_optimizer(model: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    watching = gradwatch.watch(model, logdir=folder)
    step(model, optimizer)
    watching.step()
    model(torch.ones(2, 4))


def run_a_cell_again(model: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    for _ in range(2):
        gradwatch.watch(model, optimizer, logdir=folder)
        step(model, optimizer)


WAYS = [
    drop_the_handle,
    break_between_forward_and_step,
    interrupt_forward,
    keep_no_optimizer,
    run_a_cell_again,
]


def list_open_files(folder: Path) -> list[str]:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        return []
    targets = (path.readlink() for path in descriptors.iterdir() if path.is_symlink())
    return [str(target) for target in targets if str(target).startswith(str(folder))]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="gradwatch ended the watch")
        yield


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("keeps_optimizer", [False, True])
def test_everything_goes_with_the_model(way: Way, keeps_optimizer: bool, tmp_path: Path) -> None:
    kept: list[Optimizer] = []
    models = []
    threshold = gc.get_threshold()
    for number in range(5):
        model = make_model()
        optimizer = SGD(model.parameters(), lr=0.1)
        way(model, optimizer, tmp_path / str(number))
        models.append(weakref.ref(model))
        if keeps_optimizer:
            kept.append(optimizer)
    del model, optimizer
    gc.collect()
    assert [model() for model in models] == [None] * 5
    assert gc.get_threshold() == threshold
    assert not has_global_hooks()
    assert torch.overrides._get_current_function_mode() is None
    assert not list_open_files(tmp_path)
    assert not any(o._optimizer_step_post_hooks or o._optimizer_step_pre_hooks for o in kept)
    assert not [thing for thing in gc.get_objects() if type(thing) is gradwatch.Watch]


def test_the_log_of_a_forgotten_watch_ends_with_its_verdict(tmp_path: Path) -> None:
    from gradwatch.log.writer import read_runs

    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    gradwatch.watch(model, optimizer, logdir=tmp_path)
    for _ in range(3):
        step(model, optimizer)
    del model, optimizer
    gc.collect()
    (run,) = read_runs(tmp_path)
    assert [record.global_step for record in run.records()] == [0, 1, 2]
    assert (run.end.how, run.end.detail) == ("detached", "the model was gone")


SCRIPT = """
import sys
from tests.test_abandoned import SGD, gradwatch, make_model, step
model = make_model()
optimizer = SGD(model.parameters(), lr=0.1)
gradwatch.watch(model, optimizer, logdir=sys.argv[1])
for _ in range(3):
    step(model, optimizer)
"""


@pytest.mark.parametrize(
    ("last_line", "how", "detail"),
    [
        ("raise KeyError('theirs')", "exception", "KeyError"),
        ("", "detached", "the process was over"),
    ],
)
def test_the_log_says_what_ended_the_process(
    tmp_path: Path, last_line: str, how: str, detail: str
) -> None:
    from gradwatch.judgement import judge_logdir

    command = [sys.executable, "-c", SCRIPT + last_line, str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == bool(last_line), done.stderr
    (outcome,) = judge_logdir(str(tmp_path)).outcomes
    assert outcome.end is not None
    assert (outcome.end.how, outcome.end.detail) == (how, detail)
    assert outcome.unfinished.startswith("KeyError" if last_line else "")
    assert any("nobody detached" in note for note in outcome.notes) != bool(last_line)


def test_a_watch_goes_on_without_its_handle() -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    seen: list[int] = []
    gradwatch.watch(model, optimizer, log=lambda scalars, at: seen.append(at))
    gc.collect()
    for _ in range(3):
        step(model, optimizer)
    gradwatch.unwatch(model)
    assert seen == [0, 1, 2]
    assert not has_global_hooks()


def test_an_error_of_ours_keeps_no_model_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradwatch.capture import statistics

    def fail(*_: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(statistics, "measure_l2_norm", fail)
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    watching = gradwatch.watch(model, optimizer)
    with pytest.warns(RuntimeWarning, match="switched itself off"):
        step(model, optimizer)
    found = weakref.ref(model)
    del model, optimizer
    gc.collect()
    assert found() is None
    assert isinstance(watching.failure, RuntimeError)
    assert sys.exc_info() == (None, None, None)


def test_an_error_of_somebody_elses_keeps_no_model_alive() -> None:
    """Such as one that a logger keeps, or raises again and again."""
    kept = ValueError("theirs")

    def fail(*_: Any) -> None:
        raise kept

    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    gradwatch.watch(model, optimizer, log=fail)
    with pytest.warns(RuntimeWarning, match="theirs"):
        step(model, optimizer)
    found = weakref.ref(model)
    del model, optimizer
    gc.collect()
    assert found() is None


def test_what_the_training_was_handling_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gradwatch.capture import statistics

    def fail(*_: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(statistics, "measure_l2_norm", fail)
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    gradwatch.watch(model, optimizer)
    theirs = KeyError("theirs")
    try:
        raise theirs
    except KeyError:
        with pytest.warns(RuntimeWarning, match="switched itself off"):
            step(model, optimizer)
    assert theirs.__traceback__ is not None


class Equal(nn.Linear):
    """Says that every layer equals every other, and has no hash."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return True


class EqualNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EqualNet)

    def __hash__(self) -> int:
        return 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_models_that_call_themselves_equal_are_two() -> None:
    models = [EqualNet(), EqualNet()]
    optimizers = [SGD(model.parameters(), lr=0.1) for model in models]
    with (
        gradwatch.watch(models[0], optimizers[0]) as first,
        gradwatch.watch(models[1], optimizers[1]) as second,
    ):
        step(models[0], optimizers[0])
        assert (first.global_step, second.global_step) == (1, 0)
        gradwatch.unwatch(models[1])
        assert gradwatch.live_watch.find_watch(models[0]) is first
