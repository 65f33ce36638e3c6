"""Where quantities began, and how far the loss has come: what a training was like at first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import pytest

from gradwatch.evidence.first_levels import FirstLevels
from gradwatch.evidence.loss_level import LossLevels
from gradwatch.evidence.rank_test import score_fall, score_sign
from gradwatch.evidence.windows import FIRST_RECORDS, LATEST_RECORDS
from gradwatch.thresholds import Thresholds
from tests.records_builder import (
    build_chain,
    change,
    change_param,
    fill_history,
    make_record,
    read,
)


def fill_levels(
    losses: Iterable[float],
    steps: Iterable[int] | None = None,
    changes: Sequence[float] = (),
    is_replaced: bool = False,
) -> LossLevels:
    """Of one record for each loss.

    Args:
        losses: of the records.
        steps: theirs; without, 0, 1, 2, ...
        changes: what the loss on each batch has changed by since the step before, in turn.
        is_replaced: the first step replaces weights.
    """
    levels, layer_set = LossLevels(), build_chain(2)
    for count, (step, loss) in enumerate(zip(steps or itertools.count(), losses, strict=False)):
        record = make_record(layer_set, step, loss=loss)
        if changes:
            past = {"fc0.weight": changes[count % len(changes)]}
            record = change_param(record, "past_loss_change", past)
        levels.add(record)
        if is_replaced and count == 0:
            levels.mark_replaced()
    return levels


@pytest.mark.parametrize(("exponent", "has_levelled"), [(0.05, True), (0.3, False), (1.0, False)])
@pytest.mark.parametrize("growth", [1.1, 1.4])
def test_whether_a_loss_has_levelled_does_not_depend_on_how_densely_it_is_sampled(
    exponent, has_levelled, growth
):
    """Of a power law of the steps, the exponent decides."""
    steps = [*range(FIRST_RECORDS), *(round(20 * growth**n) for n in range(LATEST_RECORDS))]
    levels = fill_levels([max(step, 1) ** -exponent for step in steps], steps)
    assert levels.has_levelled is has_levelled


@pytest.mark.parametrize(
    ("losses", "is_at_start"),
    [
        ([2.3, 2.4, 2.2] * 12, True),
        ([2.3 - 0.03 * step for step in range(36)], False),
        ([2.3, 2.4, 2.2] * 6, False),
        ([2.3] * 10 + [4.0] * 21 + [1.6] * 5, False),
        ([-1.0] * 36, False),
    ],
    ids=[
        "around where it was",
        "falls",
        "too soon to tell",
        "a peak",
        "shares of what is below zero",
    ],
)
def test_a_loss_is_at_its_start_when_no_fall_is_seen_in_time(losses, is_at_start):
    assert fill_levels(losses).is_at_start is is_at_start


SCHEDULE = [0, 1, 2, 3, 4, 5, 7, 10, 15, 22, 33, 49]


@pytest.mark.parametrize(
    ("losses", "is_at_start"),
    [
        ([2.3, 2.4, 2.2] * 4, True),
        ([2.3 - 0.01 * step for step in SCHEDULE], False),
        ([2.3, 2.4, 2.2, 2.5, 2.1, 2.6, 2.3, 2.4, 2.2, 2.3, 1.8, 2.4], True),
    ],
    ids=["around where it was", "falls", "at one of the last two"],
)
def test_few_losses_have_to_show_a_fall_as_well(losses, is_at_start):
    assert fill_levels(losses, SCHEDULE).is_at_start is is_at_start


def test_losses_lack_until_the_later_half_of_the_run_has_enough():
    """Also where the loss has fallen since the question was asked."""
    levels, layer_set, lacking = LossLevels(), build_chain(2), []
    for step in (*SCHEDULE[:-1], *range(34, 46), 90):
        levels.add(make_record(layer_set, step, loss=2.3 if step < 40 else 1.0))
        lacking.append(levels.lacks_records)
    assert lacking == [False] * 10 + [True] * 10 + [False] * 4


def test_too_few_losses_have_not_levelled():
    assert not fill_levels([1.0] * 9).has_levelled
    assert math.isnan(LossLevels().peak)


def test_a_jump_of_the_loss_is_remembered_for_a_while():
    count = FIRST_RECORDS + LATEST_RECORDS
    levels = fill_levels([2.0] * (count - 3) + [8e3, 2.0, 2.0])
    assert levels.peak == pytest.approx(4e3)
    assert levels.remaining == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("saturated", "scale", "was_open"), [(0.1, 1, True), (0.9, 1, False), (0.5, 50, False)]
)
def test_units_that_inputs_far_too_large_leave_open_were_not_open(saturated, scale, was_open):
    record = make_record(build_chain(3))
    act = next(layer for layer in record.layer_set.layers if layer.role == "activation")
    record = change(record, "saturated_fraction", {act.key: saturated})
    feeder = record.layer_set.layers[act.inputs[0]]
    rms = record.layer("output_l2_norm")[act.inputs[0]] * scale
    levels = FirstLevels()
    levels.add(read(change(record, "output_l2_norm", {feeder.fqn: rms})))
    assert levels.was_open(act.key, Thresholds(input_scale=10.0)) is was_open


def test_only_the_first_readings_count():
    record = make_record(build_chain(3, "ReLU"))
    act = next(layer for layer in record.layer_set.layers if layer.role == "activation")
    plain = [change(record, "zero_fraction", math.nan)] * FIRST_RECORDS
    history = fill_history([*plain, change(record, "zero_fraction", {act.key: 0.5})])
    assert history.first_levels.zeros == {}


@pytest.mark.parametrize(
    ("early", "late", "score"),
    [
        ([2.0, 2.1, 2.2], [1.0, 1.1, 1.2], 1.964),
        ([2.0, 2.1, 2.2], [3.0, 3.1, 3.2], -1.964),
        ([2.0, 2.1, 2e9], [1.0, 1.1, -2e9], 1.964),
        ([2.0, 2.0], [2.0, 2.0], 0.0),
        ([2.0, 1.0], [1.0, 2.0], 0.0),
        ([], [1.0], math.nan),
    ],
    ids=["falls", "rises", "by ranks alone", "all the same", "mixed", "nothing to compare"],
)
def test_score_of_a_fall(early, late, score):
    assert score_fall(early, late) == pytest.approx(score, abs=1e-3, nan_ok=True)


def test_a_loss_without_a_floor_is_not_held_to_its_start():
    """That began around zero, as a policy's surrogate: where it is says nothing."""
    losses = [0.01, -0.02, 0.03] * 12
    assert not fill_levels(losses).is_at_start
    assert fill_levels([0.1 + loss for loss in losses]).is_at_start


@pytest.mark.parametrize(
    ("late", "is_at_start"),
    [([2.2, 2.5] * 13, True), ([1.2, 1.5] * 13, False), ([1.2, 1.5, 1.2, 1.5, 2.6] * 6, True)],
    ids=["back at chance", "below it", "not always"],
)
def test_coming_back_from_where_a_step_has_sent_the_loss_is_no_fall(late, is_at_start):
    levels = fill_levels([2.3, 900.0, 80.0, *[9.0] * 7, *late], is_replaced=True)
    assert levels.is_at_start is is_at_start
    assert levels.leap == pytest.approx(900 / 2.3)


def test_a_step_that_replaces_weights_and_raises_nothing_leaves_the_early_losses_as_they_are():
    losses = [2.3, *[2.2, 2.1, 2.4] * 5, *[1.2, 1.5, 2.35] * 4]
    levels = fill_levels(losses, is_replaced=True)
    assert not levels.is_at_start
    assert levels.leap == 1.0


@pytest.mark.parametrize(
    ("changes", "is_at_start"),
    [
        ([-0.01, -0.02, 0.005], False),
        ([-0.01, -0.02, 0.035], True),
        ([-1e-4], True),
        ([], True),
    ],
    ids=["down, batch by batch", "up and down", "next to nothing", "not known"],
)
def test_a_fall_may_be_seen_batch_by_batch_where_the_losses_of_batches_differ(changes, is_at_start):
    assert fill_levels([2.3, 2.9, 1.8] * 12, changes=changes).is_at_start is is_at_start


def test_what_the_gradients_said_before_weights_were_replaced_counts_no_more():
    levels = fill_levels([2.3, 2.9, 1.8] * 12, changes=[-0.02])
    assert not levels.is_at_start
    levels.mark_replaced()
    assert levels.is_at_start


@pytest.mark.parametrize(
    ("values", "score"),
    [([1.0] * 10, 2.803), ([-3.0, 1.0, 2.0], 0.0), ([-2.0, 0.0], -1.0), ([], 0.0)],
    ids=["all above", "as many", "below", "none"],
)
def test_score_of_a_sign(values, score):
    assert score_sign(values) == pytest.approx(score, abs=1e-3)
