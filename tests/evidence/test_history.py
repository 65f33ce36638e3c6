"""What is kept of a run: bounded, and carried over when the layers change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch.evidence.history import History
from gradwatch.evidence.param_history import MOVED
from gradwatch.evidence.thinning import KEPT
from gradwatch.evidence.windows import FIRST_RECORDS, WINDOW
from gradwatch.records import STEP_STATISTICS, LayerSet
from gradwatch.thresholds import Thresholds
from tests.records_builder import (
    build_chain,
    change,
    change_param,
    fill_history,
    make_record,
    read,
    repeat,
)

REPLACING_UPDATE = Thresholds().replacing_update


def test_a_long_run_is_kept_in_bounded_memory():
    reading = read(make_record(build_chain(2)))
    history = History()
    for _ in range(100_000):
        history.extend_with(reading)
    assert len(history) == history.count == 100_000
    assert len(history.window) == WINDOW
    assert len(history.errors.first) == FIRST_RECORDS
    assert KEPT // 2 <= len(history.records) <= KEPT + 1


@pytest.mark.parametrize("count", [1, 7, KEPT, KEPT + 1, 3 * KEPT + 5])
def test_kept_records_are_an_even_selection_with_both_ends(count):
    history = fill_history(repeat(make_record(build_chain(2)), count))
    steps = [record.global_step for record in history.records]
    assert steps[0] == 0
    assert steps[-1] == count - 1
    assert steps == sorted(set(steps))
    assert len(set(np.diff(steps[:-1]))) <= 1
    assert count > KEPT or len(steps) == count


def test_an_empty_history_has_no_records():
    assert History().records == ()
    assert len(History()) == 0
    assert np.isnan(History().errors.beginning)
    assert np.isnan(History().errors.now)


@pytest.mark.parametrize(("rate", "counts"), [(0.1, 3), (np.nan, 3), (0.0, 0)])
def test_zeros_count_unless_the_learning_rate_is_known_to_be_zero(rate, counts):
    record = make_record(build_chain(2), loss_gradient=0.0)
    record.step_values[STEP_STATISTICS.index("learning_rate")] = rate
    history = fill_history(repeat(record, 3))
    assert (history.params.with_zeros == counts).all()


def test_records_without_a_gradient_are_counted_and_reset_by_one():
    record = make_record(build_chain(3))
    missing = change_param(record, "grad_l2_norm", {"fc0.weight": np.nan})
    missing = change_param(missing, "update_l2_norm", {"fc0.weight": 0.0})
    missing = change(missing, "grad_output_l2_norm", {"fc0": np.nan})
    history = fill_history(repeat(missing, 4))
    assert history.params.without_gradient.tolist() == [4, 0, 0]
    history.append(record)
    assert history.params.without_gradient.tolist() == [0, 0, 0]


def test_only_records_in_which_forward_used_the_parameter_count():
    record = make_record(build_chain(3))
    absent = change_param(record, "grad_l2_norm", {"fc0.weight": np.nan})
    absent = change(absent, "grad_output_l2_norm", {"fc0": np.nan})
    absent = change(absent, "output_l2_norm", {"fc0": np.nan})
    assert fill_history(repeat(absent, 4)).params.without_gradient.tolist() == [0, 0, 0]


def test_steps_without_any_backward_do_not_count_once_there_was_one():
    """A loop that has nothing to learn from a batch and steps all the same."""
    record = make_record(build_chain(3))
    idle = change_param(record, "grad_l2_norm", np.nan)
    idle = change(idle, "grad_output_l2_norm", np.nan)
    assert fill_history(repeat(idle, 4)).params.without_gradient.tolist() == [4, 4, 4]
    history = fill_history([record, *repeat(idle, 6, start=1)])
    assert history.params.without_gradient.tolist() == [0, 0, 0]
    zeros = change_param(idle, "grad_l2_norm", 0.0)
    history = fill_history([record, *repeat(zeros, 6, start=1)])
    assert history.params.with_zeros.tolist() == [0, 0, 0]


def test_an_exact_zero_that_arrived_is_a_gradient():
    record = change_param(make_record(build_chain(3)), "grad_l2_norm", {"fc0.weight": 0.0})
    assert fill_history(repeat(record, 4)).params.without_gradient.tolist() == [0, 0, 0]


def test_a_parameter_that_changes_without_a_gradient_is_maintained():
    record = change_param(make_record(build_chain(3)), "grad_l2_norm", {"fc1.weight": np.nan})
    assert fill_history([record]).params.is_maintained.tolist() == [False, True, False]


def test_a_copy_made_between_two_sampled_steps_is_maintained():
    record = change_param(make_record(build_chain(3)), "grad_l2_norm", {"fc1.weight": np.nan})
    still = change_param(record, "update_l2_norm", {"fc1.weight": 0.0})
    assert not fill_history(repeat(still, 3)).params.is_maintained.any()
    copied = change_param(still, "weight_l2_norm", {"fc1.weight": 9.0})
    assert fill_history([still, copied]).params.is_maintained.tolist() == [False, True, False]


def test_a_weight_that_has_changed_once_is_never_unmoved_again():
    still = change_param(make_record(build_chain(2)), "update_l2_norm", {"fc0.weight": 0.0})
    history = fill_history(repeat(still, 3))
    assert history.params.unmoved.tolist() == [3, MOVED]
    history.append(make_record(build_chain(2)))
    history.append(still)
    assert history.params.unmoved[0] == MOVED


def test_a_learning_rate_of_zero_excuses_standing_still():
    still = make_record(build_chain(2), learning_rate=0.0)
    assert fill_history(repeat(still, 3)).params.unmoved.tolist() == [0, 0]


def test_counts_are_carried_over_to_a_new_layer_set():
    """Layers come and go, and stand at other places; a parameter's count goes with its name."""
    layer_set = build_chain(3)
    record = change_param(make_record(layer_set), "grad_l2_norm", {"fc1.weight": np.nan})
    record = change(record, "grad_output_l2_norm", {"fc1": np.nan})
    record = change_param(record, "update_l2_norm", {"fc1.weight": 0.0, "fc2.weight": 0.0})
    history = fill_history(repeat(record, 3))
    turned = LayerSet(layer_set.layers, layer_set.params[::-1])
    history.append(replace(record, layer_set=turned, param_values=record.param_values[:, ::-1]))
    assert history.params.without_gradient.tolist() == [0, 4, 0]
    assert history.params.unmoved.tolist() == [4, 0, MOVED]
    grown = build_chain(5)
    history.append(make_record(grown))
    assert history.params.without_gradient.shape == history.params.is_maintained.shape == (5,)


def test_a_step_may_replace_a_weight():
    calm, replacing = (make_record(build_chain(3), update_ratio=r) for r in (0.1, REPLACING_UPDATE))
    assert not fill_history(repeat(calm, 9)).has_replaced_weights
    assert fill_history([replacing, *repeat(calm, 9)]).has_replaced_weights


def test_only_layers_that_were_well_before_can_have_been_broken():
    layer_set = build_chain(3, activation="ReLU")
    act = next(layer for layer in layer_set.layers if layer.role == "activation")
    alive = change(
        make_record(layer_set, update_ratio=REPLACING_UPDATE), "zero_fraction", {act.key: 0.5}
    )
    silent = change(alive, "zero_fraction", {act.key: 1.0})
    for records, expected in (([alive, silent], True), ([silent, silent], False)):
        history = fill_history(records)
        assert history.broke_layers([act], Thresholds()) is expected


def test_a_weight_that_doubles_between_sampled_steps_was_replaced():
    record = make_record(build_chain(3))
    doubled = change_param(record, "weight_l2_norm", {"fc1.weight": 16.0})
    assert fill_history([record, doubled]).has_replaced_weights


def test_the_error_signal_at_the_start_is_a_median():
    layer_set = build_chain(2)
    errors = (1.0, 1.0, 50.0, np.nan, 1.0, 0.01, 0.01)
    records = [make_record(layer_set, step, loss_gradient=e) for step, e in enumerate(errors)]
    history = fill_history(records)
    assert history.errors.beginning == 1.0
    assert history.errors.now == pytest.approx(0.01)
