"""What holds for every test: one thread, no network, and a known state of the random numbers."""

from __future__ import annotations

import gc
import os
import random
import sys
import warnings
from collections.abc import Generator
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # a busy machine fails no test
settings.load_profile("unhurried")

# Set before torch is loaded, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed what is loaded; torch is not loaded on its account."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


THRESHOLD = gc.get_threshold()


@pytest.fixture(autouse=True)
def alone() -> None:
    """A watch that a test before has dropped, as a training that raised does, is freed."""
    if gc.get_threshold() != THRESHOLD:
        gc.collect()


@pytest.fixture
def one_thread() -> Generator[None, None, None]:
    """Whatever the environment says: sums of several threads differ in their last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fresh_dynamo() -> Generator[None, None, None]:
    """Nothing is compiled before, and nothing stays so."""
    import torch

    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of its own while it compiles
        yield
    torch._dynamo.reset()


def skip_without_torch(error: ModuleNotFoundError) -> None:
    """The reading side is tested on machines without torch too, where the rest is passed over."""
    if error.name == "torch" and find_spec("torch") is None:
        pytest.skip("needs torch", allow_module_level=True)
    raise error


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """A test that imports torch while it runs."""
    try:
        return (yield)
    except ModuleNotFoundError as error:
        return skip_without_torch(error)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module of tests that imports torch."""
    report = yield
    if find_spec("torch") is None and report.failed:
        missing = "No module named 'torch'" in str(report.longrepr)
        report.outcome = "skipped" if missing else report.outcome
        report.longrepr = (str(collector.path), 0, "needs torch") if missing else report.longrepr
    return report
