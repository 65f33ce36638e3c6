"""What is left of watches that nobody ends: 200 of each way of ``tests/test_abandoned.py``.

``python -m benchmarks.abandoned [count]`` prints for each way what was there before and after:
objects that the collector knows, modules, global hooks, open files, resident memory, and what a
compiled model of somebody else's does on its next call.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.optim import SGD

import gradwatch
from tests import test_abandoned
from tests.capture.tools import has_global_hooks

COUNT = 200
WARM_UP = 10
"""Watches before the count begins: the first ones load modules and fill caches."""


@dataclass(frozen=True)
class State:
    """Of the process.

    Attributes:
        objects: that the garbage collector knows.
        modules: of torch among them.
        watches: of gradwatch among them.
        hooks: whether a global hook or a function mode is in force.
        files: open ones.
        stance: of dynamo.
        memory: resident, in MB.
    """

    objects: int
    modules: int
    watches: int
    hooks: bool
    files: int
    stance: str
    memory: float


def read_state() -> State:
    """As it is after a collection."""
    gc.collect()
    kinds = [type(thing) for thing in gc.get_objects()]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return State(
        objects=len(kinds),
        modules=sum(issubclass(kind, nn.Module) for kind in kinds),
        watches=kinds.count(gradwatch.Watch),
        hooks=has_global_hooks() or torch.overrides._get_current_function_mode() is not None,
        files=len(list(Path("/proc/self/fd").iterdir())),
        stance=torch._dynamo.eval_frame._stance.stance,
        memory=round(pages * 4096 / 2**20, 1),
    )


def abandon(way: Callable[..., Any], count: int) -> None:
    """So many watches, each on a model of its own.

    Args:
        way: of ``tests.test_abandoned``.
        count: of watches.
    """
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            model = test_abandoned.make_model()
            way(model, SGD(model.parameters(), lr=0.1), Path(folder) / str(number))
            del model
        gc.collect()


def main() -> None:
    """Print one line per way."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    counter = CompileCounter()
    neighbour = torch.compile(nn.Linear(4, 4), backend=counter)
    neighbour(torch.ones(1, 4))
    for way in test_abandoned.WAYS:
        abandon(way, WARM_UP)
        before, compiled = read_state(), counter.frame_count
        abandon(way, count)
        after = read_state()
        neighbour(torch.ones(1, 4))
        changes = zip(State.__annotations__, astuple(before), astuple(after), strict=True)
        text = ", ".join(f"{name} {first} -> {then}" for name, first, then in changes)
        print(
            f"{way.__name__}: {text}, compiled again {counter.frame_count - compiled}", flush=True
        )


if __name__ == "__main__":
    main()
