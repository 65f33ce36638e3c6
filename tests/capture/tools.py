"""What the tests of capture share: a sampled run, and the same run without us."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import Session
from gradwatch.records import StepRecord

Loop = Callable[[], Any]

GLOBAL_HOOKS = [
    name for name in vars(module_hooks) if name.endswith(("_hooks", "_hooks_with_kwargs"))
]
"""Tables of hooks that torch calls for every module; each torch has those that it knows."""


def watch_run(
    model: nn.Module,
    optimizers: Any,
    loop: Loop,
    every_n_steps: int = 1,
    first_steps: int = 10,
    manual: bool = False,
) -> list[StepRecord]:
    """Records of a run; fails when capture has switched itself off."""
    records: list[StepRecord] = []
    optimizers = (optimizers,) if isinstance(optimizers, torch.optim.Optimizer) else optimizers
    schedule = Schedule(every_n_steps, first_steps, growth=math.inf)
    before = count_hooks(model)
    session = Session(model, tuple(optimizers or ()), schedule, records.append)
    session.start()
    try:
        if manual:
            loop(session)
        else:
            loop()
    finally:
        session.stop()
    if session.failure is not None:
        raise session.failure
    assert_no_trace(model, optimizers or (), before)
    return records


def count_hooks(model: nn.Module) -> int:
    """Hooks on the modules: some parametrisations and quantisers bring their own."""
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, table)) for module in model.modules() for table in tables)


def has_global_hooks() -> bool:
    """Whether torch calls something for every module in the process."""
    return any(getattr(module_hooks, name) for name in GLOBAL_HOOKS)


def assert_no_trace(
    model: nn.Module, optimizers: Iterable[torch.optim.Optimizer] = (), hooks: int = 0
) -> None:
    """Nothing of ours is left in the process, on the model or on the optimizers."""
    assert not has_global_hooks()
    assert torch.overrides._get_current_function_mode() is None
    assert count_hooks(model) <= hooks  # lazy modules drop theirs
    for param in model.parameters():
        assert not param._backward_hooks
        assert not param._post_accumulate_grad_hooks
    for optimizer in optimizers:
        assert not optimizer._optimizer_step_post_hooks
        assert not optimizer._optimizer_step_pre_hooks


def take_state(model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, Any]:
    """Everything that training changes."""
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "random": torch.get_rng_state(),
    }


def assert_same(left: Any, right: Any, path: str = "") -> None:
    """Bit-identical, however it is nested; NaN equals NaN."""
    assert type(left) is type(right), path
    if isinstance(left, Tensor):
        assert left.dtype == right.dtype, path
        assert torch.equal(left.nan_to_num(7.7), right.nan_to_num(7.7)), path
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_same(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), path
        for index, (item, other) in enumerate(zip(left, right, strict=True)):
            assert_same(item, other, f"{path}[{index}]")
    else:
        assert left == right, path


Build = Callable[[], tuple[nn.Module, Any, Callable[[], Any]]]


def assert_harmless(build: Build, **options: Any) -> list[StepRecord]:
    """Run what ``build`` makes without and with a watch; equal bit for bit. Gives the records.

    ``build`` returns a model, its optimizers, and a loop that returns its losses.
    """
    results = []
    records: list[StepRecord] = []
    for watched in (False, True):
        torch.manual_seed(1)
        model, optimizers, loop = build()
        several = (optimizers,) if isinstance(optimizers, torch.optim.Optimizer) else optimizers
        losses: list[Any] = []
        run = partial(_keep, losses, loop)
        if watched:
            records = watch_run(model, several, run, **options)
        else:
            run()
        results.append((losses, take_state(model, several)))
    assert_same(*results)
    return records


def _keep(losses: list[Any], loop: Loop) -> None:
    losses.append(loop())


def read(record: StepRecord, statistic: str, key: str) -> float:
    """One number of a layer, by ``Layer.key``."""
    keys = [layer.key for layer in record.layer_set.layers]
    return float(record.layer(statistic)[keys.index(key)])


def read_param(record: StepRecord, statistic: str, fqn: str) -> float:
    """One number of a parameter."""
    names = [param.fqn for param in record.layer_set.params]
    return float(record.param(statistic)[names.index(fqn)])


def list_keys(record: StepRecord) -> list[str]:
    """Keys of all layers."""
    return [layer.key for layer in record.layer_set.layers]


def make_net() -> nn.Sequential:
    """Two layers with a tanh in between, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def make_loop(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *inputs: Tensor,
    steps: int = 3,
    loss_fn: Callable[[Any], Tensor] = lambda y: y.square().mean(),
) -> Callable[[], list[float]]:
    """An ordinary loop over one batch; gives its losses."""

    def loop() -> list[float]:
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = loss_fn(model(*inputs))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return loop


def train(make: Callable[[], tuple[Any, ...]], lr: float = 0.1, **options: Any) -> Build:
    """A ``build`` for ``assert_harmless`` from what makes a model and its inputs."""

    def build() -> tuple[nn.Module, Any, Callable[[], Any]]:
        model, *inputs = make()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        return model, optimizer, make_loop(model, optimizer, *inputs, **options)

    return build


def make_again(make: Callable[[], tuple[Any, ...]]) -> Any:
    """The model and inputs with which ``assert_harmless`` began."""
    torch.manual_seed(1)
    return make()
