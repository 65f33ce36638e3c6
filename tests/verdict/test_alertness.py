"""Which records call for a closer look at the steps after them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from gradwatch.records import StepRecord
from gradwatch.verdict.alertness import ALLOWANCE, CLOSE_SAMPLES, JUMP_SAMPLES, Alertness
from tests.records_builder import build_chain, make_record

CHAIN = build_chain(3)


def count(losses: Sequence[float], has_sign: bool = False, **facts: float) -> list[int]:
    """What each record of a run with these losses asks for."""
    alertness = Alertness()
    records = (make_record(CHAIN, step, loss=loss, **facts) for step, loss in enumerate(losses))
    return [alertness.count_samples(record, has_sign) for record in records]


def break_weights(record: StepRecord) -> StepRecord:
    values = record.param_values.copy()
    values[record.layer_set.rows.places["param"]["weight_l2_norm"]] = np.inf
    return dataclasses.replace(record, param_values=values)


def test_a_falling_or_noisy_loss_calls_for_nothing() -> None:
    assert count([1.0, 1.2, 0.9, 1.1, 0.8, 1.0, 0.7]) == [0] * 7
    assert count([float("nan")] * 4) == [0] * 4


def test_a_jump_of_the_loss_calls_for_the_next_steps() -> None:
    assert count([1.0, 0.9, 2.0, 2.1]) == [0, 0, JUMP_SAMPLES, 0]


def test_a_jump_of_the_gradient_calls_for_the_next_steps() -> None:
    alertness, asked = Alertness(), []
    for step, size in enumerate((1.0, 1.0, 10.0, 10.0)):
        record = make_record(CHAIN, step, loss_gradient=size)
        asked.append(alertness.count_samples(record, False))
    assert asked == [0, 0, JUMP_SAMPLES, 0]


def test_other_parameters_with_a_gradient_call_for_the_next_steps() -> None:
    alertness, plain = Alertness(), make_record(CHAIN, 0, loss=1.0)
    values = plain.param_values.copy()
    values[plain.layer_set.rows.places["param"]["grad_l2_norm"], 0] = np.nan
    frozen = dataclasses.replace(plain, param_values=values)
    records = [plain, plain, frozen, frozen, plain]
    asked = [alertness.count_samples(record, False) for record in records]
    assert asked == [0, 0, JUMP_SAMPLES, 0, JUMP_SAMPLES]


def test_a_sign_is_followed_step_by_step_but_not_for_ever() -> None:
    asked = count([1.0] * 100, has_sign=True)
    assert asked[:ALLOWANCE] == [1] * ALLOWANCE
    assert sum(asked) <= (100 + ALLOWANCE) / 2 + 1


def test_losses_that_lack_are_sampled_beside_the_allowance() -> None:
    alertness = Alertness()
    records = [make_record(CHAIN, step, loss=1.0) for step in range(50)]
    assert all(alertness.count_samples(record, False, lacks_losses=True) for record in records)
    assert alertness.count_samples(make_record(CHAIN, 50, loss=9.0), False) == JUMP_SAMPLES


def test_broken_weights_and_a_rollback_are_looked_at_closely() -> None:
    alertness = Alertness()
    plain = make_record(CHAIN, 0, loss=1.0)
    records = [plain, break_weights(plain), break_weights(plain), plain, plain]
    asked = [alertness.count_samples(record, False) for record in records]
    assert asked == [0, CLOSE_SAMPLES, 0, CLOSE_SAMPLES, 0]
