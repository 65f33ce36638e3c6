"""What people use today, each as its own documentation says; imported only when it is measured."""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from benchmarks.overhead.ours import Step
from benchmarks.overhead.workloads import Training


@contextmanager
def run_tensor_hooks(training: Training) -> Iterator[Step]:
    """``param.register_hook`` with ``.item()``, as tutorials have it."""
    norms: dict[str, float] = {}

    def keep(name: str, grad: Tensor) -> None:
        norms[name] = grad.norm().item()

    handles = [
        param.register_hook(lambda grad, name=name: keep(name, grad))
        for name, param in training.model.named_parameters()
    ]
    yield training.step
    for handle in handles:
        handle.remove()


@contextmanager
def run_grad_norm(training: Training) -> Iterator[Step]:
    """``grad_norm`` where Lightning's manual calls it, before the optimizer's step."""
    grad_norm = import_module("lightning.pytorch.utilities").grad_norm

    def step() -> None:
        training.compute_gradients()
        grad_norm(training.model, norm_type=2)
        training.optimizer.step()

    yield step


@functools.cache
def _start_wandb() -> Any:
    """One offline run for the whole process: starting one is not what is measured."""
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true")
    folder = tempfile.TemporaryDirectory()
    run = import_module("wandb").init(dir=folder.name, project="overhead")
    atexit.register(folder.cleanup)
    atexit.register(run.finish)  # runs first
    return run


@contextmanager
def _run_wandb(training: Training, log: str, log_freq: int) -> Iterator[Step]:
    run = _start_wandb()
    run.watch(training.model, log=log, log_freq=log_freq)

    def step() -> None:
        training.step()
        assert training.loss is not None
        run.log({"loss": training.loss.item()})

    yield step
    run.unwatch(training.model)


def run_wandb_gradients(training: Training) -> Any:
    """``wandb.watch`` with ``log_freq=1``."""
    return _run_wandb(training, "gradients", 1)


def run_wandb_all(training: Training) -> Any:
    """``wandb.watch(log="all")`` with ``log_freq=1``."""
    return _run_wandb(training, "all", 1)


def run_wandb_between(training: Training) -> Any:
    """The steps between those that ``wandb.watch`` logs."""
    return _run_wandb(training, "gradients", 10**9)


@contextmanager
def run_torchmortem(training: Training) -> Iterator[Step]:
    """``torchmortem.Autopsy`` with its default sampling, given the loss of every step."""
    with import_module("torchmortem").Autopsy(training.model, training.optimizer) as autopsy:

        def step() -> None:
            training.step()
            assert training.loss is not None
            autopsy.step(loss=training.loss.item())

        yield step


@contextmanager
def run_delve(training: Training) -> Iterator[Step]:
    """``delve``'s layer saturation, its statistics of every batch."""
    tracker_class = import_module("delve").SaturationTracker
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        model = copy.deepcopy(training.model)
        tracker = tracker_class(f"{folder}/log", save_to="csv", modules=model, device="cpu")
        own = _move(training, model)
        yield own.step
        tracker.close()


@contextmanager
def run_activation_stats(training: Training) -> Iterator[Step]:
    """fastai's ``ActivationStats``: its hook on the modules that its callback chooses."""
    hook = import_module("fastai.callback.hook")
    modules = [module for module in hook.flatten_model(training.model) if hook.has_params(module)]
    with hook.Hooks(modules, hook.ActivationStats(with_hist=False).hook) as hooks:

        def step() -> None:
            training.step()
            _ = hooks.stored

        yield step


@contextmanager
def run_underflow_check(training: Training) -> Iterator[Step]:
    """transformers' ``DebugUnderflowOverflow``, which says nothing as long as all is finite."""
    debug = import_module("transformers.debug_utils")
    own = _move(training, copy.deepcopy(training.model))  # its hooks cannot be taken off again
    with contextlib.redirect_stdout(io.StringIO()):
        debug.DebugUnderflowOverflow(own.model)
        yield own.step


@contextmanager
def run_cockpit(training: Training) -> Iterator[Step]:
    """Cockpit's ``GradNorm`` at every step; it goes through BackPACK's extended modules."""
    cockpit, backpack = import_module("cockpit"), import_module("backpack")
    every_step = import_module("cockpit.utils.schedules").linear(interval=1)
    model = backpack.extend(copy.deepcopy(training.model))
    own = _move(training, model)
    measured = [cockpit.quantities.GradNorm(track_schedule=every_step)]
    pit = cockpit.Cockpit([p for p in model.parameters() if p.requires_grad], measured)
    losses = backpack.extend(nn.CrossEntropyLoss())
    count = 0

    def step() -> None:
        nonlocal count
        own.optimizer.zero_grad()
        loss = losses(model(own.x), own.y)
        info = {"batch_size": len(own.y), "loss": loss, "optimizer": own.optimizer}
        with pit(count, info=info):
            loss.backward(create_graph=pit.create_graph(count))
        own.optimizer.step()
        count += 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield step


def _move(training: Training, model: nn.Module) -> Training:
    """The same training of a copy of its model, for tools that leave traces on it."""
    state = training.optimizer.state_dict()
    optimizer = type(training.optimizer)(model.parameters(), lr=state["param_groups"][0]["lr"])
    optimizer.load_state_dict(copy.deepcopy(state))
    return Training(model, optimizer, training.x, training.y, training.loss_fn)
