"""A loop with Accelerate: its wrapped optimizer is found, and the figures are a plain loop's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.records import StepRecord
from tests.networks import Network, make_mlp

accelerate = pytest.importorskip("accelerate")

pytestmark = [
    pytest.mark.models,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

STEPS = 8


@pytest.fixture(autouse=True)
def fresh_state() -> None:
    """Accelerate keeps its settings for the whole process."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def get_records(watch: gradwatch.Watch) -> tuple[StepRecord, ...]:
    history = watch.report().history
    assert history is not None
    return tuple(history.records)


def watch_accelerated(accumulate: int = 1, **options: Any) -> gradwatch.Watch:
    network = make_mlp()
    accelerator = accelerate.Accelerator(
        cpu=True, gradient_accumulation_steps=accumulate, **options
    )
    model, optimizer = accelerator.prepare(network.model, network.optimizer)
    with gradwatch.watch(model, optimizer, every_n_steps=1) as watch:
        for index in range(STEPS):
            with accelerator.accumulate(model):
                batch = network.batches[index % len(network.batches)]
                accelerator.backward(network.loss(model, batch))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1e-3)
                optimizer.step()
                optimizer.zero_grad()
    return watch


def watch_plain(accumulate: int = 1) -> gradwatch.Watch:
    network: Network = make_mlp()
    with gradwatch.watch(network.model, network.optimizer, every_n_steps=1) as watch:
        for index in range(STEPS):
            batch = network.batches[index % len(network.batches)]
            (network.loss(network.model, batch) / accumulate).backward()
            if (index + 1) % accumulate == 0:
                nn.utils.clip_grad_norm_(network.model.parameters(), 1e-3)
                network.optimizer.step()
                network.optimizer.zero_grad()
    return watch


@pytest.mark.parametrize("accumulate", [1, 2])
def test_figures_are_those_of_a_plain_loop(accumulate: int) -> None:
    ours, plain = get_records(watch_accelerated(accumulate)), get_records(watch_plain(accumulate))
    assert [record.global_step for record in ours] == list(range(STEPS // accumulate))
    for record, other in zip(ours, plain, strict=True):
        assert record.layer_set.layers == other.layer_set.layers
        np.testing.assert_allclose(record.layer_values, other.layer_values, rtol=1e-5)
        np.testing.assert_allclose(record.param_values, other.param_values, rtol=1e-4, atol=1e-9)
    assert np.linalg.norm(ours[0].param("grad_l2_norm")) > 1e-2  # before clipping to 1e-3


def test_bfloat16_trains_and_is_measured() -> None:
    watch = watch_accelerated(mixed_precision="bf16")
    assert watch.failure is None
    assert watch.report().records == STEPS
    assert "bfloat16" in {layer.dtype for layer in get_records(watch)[0].layer_set.layers}


def test_the_optimizer_inside_is_the_one_that_is_watched() -> None:
    network = make_mlp()
    optimizer = accelerate.Accelerator(cpu=True).prepare(network.optimizer)
    with gradwatch.watch(network.model, optimizer) as watch:
        assert not isinstance(network.optimizer, type(optimizer))
        network.train(2)
    assert watch.global_step == 2
    assert isinstance(optimizer.optimizer, torch.optim.Optimizer)
