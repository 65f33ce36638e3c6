"""Ranks of a job whose wrappers stand inside what is watched.

What is wrong on rank 1 alone is seen: each rank's data takes a branch of its own, so that rank 0
would say by itself that nothing is wrong. The processes are started once for all programs.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import gradwatch
from tests.green.program import Family, Program, build_deep, draw, sgd
from tests.rank_processes import run_job

RANKS = Family("Ranks that are not merged")

WORLD, STEPS = 2, 30


class Branches(nn.Module):
    """One branch for each rank.

    Args:
        other: that of rank 1.
    """

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        own = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        self.branches = nn.ModuleList([own, other])

    def forward(self, x: Tensor) -> Tensor:
        return self.branches[dist.get_rank()](x)


def build_dead() -> nn.Module:
    """A branch whose units never fire."""
    branch = build_healthy()
    nn.init.constant_(branch[0].bias, -100.0)
    return branch


def build_healthy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def wrap(module: nn.Module) -> nn.Module:
    return DistributedDataParallel(module, find_unused_parameters=True)


Forward = Callable[[Tensor], Tensor]
Form = Callable[[nn.Module], tuple[nn.Module, Forward, torch.optim.Optimizer]]


class Outer(nn.Module):
    """What is watched: the wrapper is a part of it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.scale, self.inner = nn.BatchNorm1d(8, affine=False), inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.scale(x))


def wrapper_inside(other: nn.Module) -> tuple[nn.Module, Forward, torch.optim.Optimizer]:
    model = Outer(wrap(Branches(other)))
    return model, model, sgd(model)


def two_wrappers(other: nn.Module) -> tuple[nn.Module, Forward, torch.optim.Optimizer]:
    model = nn.ModuleDict({"body": wrap(Branches(other)), "head": wrap(nn.Linear(4, 4))})
    return model, lambda x: model["head"](model["body"](x)), sgd(model)


def fabric(other: nn.Module) -> tuple[nn.Module, Forward, torch.optim.Optimizer]:
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    strategy = DDPStrategy(process_group_backend="gloo", find_unused_parameters=True)
    fabric = Fabric(accelerator="cpu", strategy=strategy, devices=WORLD)
    fabric.launch()
    inner = Branches(other)
    model, optimizer = fabric.setup(inner, sgd(inner))
    return model, model, optimizer


PROGRAMS: dict[str, tuple[Form, Callable[[], nn.Module]]] = {
    "a_dead_branch_inside_a_wrapper": (wrapper_inside, build_dead),
    "a_deep_branch_inside_a_wrapper": (wrapper_inside, build_deep),
    "branches_inside_a_wrapper": (wrapper_inside, build_healthy),
    "a_dead_branch_of_two_wrappers": (two_wrappers, build_dead),
    "branches_of_two_wrappers": (two_wrappers, build_healthy),
    "a_dead_branch_under_fabric": (fabric, build_dead),
    "branches_under_fabric": (fabric, build_healthy),
}


def train_branches(name: str, logdir: Path) -> gradwatch.Report:
    """What each rank does."""
    form, build_other = PROGRAMS[name]
    torch.manual_seed(0)
    model, forward, optimizer = form(build_other())
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(STEPS):
            x, y = draw(WORLD * step + dist.get_rank())
            optimizer.zero_grad()
            cross_entropy(forward(x), y).backward()
            optimizer.step()
    return replace(watch.report(), history=None)


def run_rank(rank: int, folder: str, names: list[str]) -> dict[str, gradwatch.Report]:
    return {name: train_branches(name, Path(folder, name)) for name in names}


@lru_cache(maxsize=1)
def run_programs() -> tuple[Path, dict[str, gradwatch.Report]]:
    """A folder with the log of each program, and the reports of rank 0."""
    folder = Path(tempfile.mkdtemp(prefix="gradwatch_ranks_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    has_fabric = find_spec("lightning") is not None
    names = [name for name, (form, _) in PROGRAMS.items() if form is not fabric or has_fabric]
    return folder, run_job(run_rank, WORLD, str(folder), names)[0]


def make_program(name: str) -> Program:
    """The report of rank 0 and the log."""

    def program(logdir: Path) -> gradwatch.Report:
        folder, reports = run_programs()
        if name not in reports:
            pytest.skip("needs lightning")
        shutil.copytree(folder / name, logdir, dirs_exist_ok=True)
        return reports[name]

    program.__name__ = name
    program.marks = (pytest.mark.distributed,)  # type: ignore[attr-defined]
    return program


for _name, (_, _build) in PROGRAMS.items():
    (RANKS.honest if _build is build_healthy else RANKS.unproven).append(make_program(_name))
