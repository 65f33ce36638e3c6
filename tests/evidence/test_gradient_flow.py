"""The flow of the gradient against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch.evidence.flow_facts import ROUNDED_NORM
from gradwatch.evidence.gradient_flow import read_flow
from gradwatch.evidence.spreading import spread_back
from gradwatch.evidence.topology import map_topology
from tests.records_builder import (
    WEIGHT_NORM,
    Network,
    build_chain,
    change,
    change_param,
    make_record,
    read,
    repeat,
)


def test_relative_gradient_is_the_product_of_the_gains_behind():
    record = make_record(build_chain(4), gains={"Sigmoid": 0.25, "Linear": 0.8})
    # fc3 is full; each act is fed through a Linear, each fc through a Sigmoid.
    expected = [0.25**3 * 0.8**3, 0.25**2 * 0.8**3, 0.25**2 * 0.8**2, 0.25 * 0.8**2, 0.2, 0.8, 1]
    assert read(record).relative_gradient == pytest.approx(expected)


def test_relative_gradient_does_not_depend_on_the_losss_scale():
    layer_set = build_chain(4)
    small = make_record(layer_set, gains={"Sigmoid": 0.25}, loss_gradient=1e-12)
    large = make_record(layer_set, gains={"Sigmoid": 0.25}, loss_gradient=1e12)
    assert read(small).relative_gradient == pytest.approx(read(large).relative_gradient)


def test_references_stand_behind_a_layer_only():
    """A gradient that grows on its way back makes the layers near the loss no smaller."""
    record = make_record(build_chain(3), gains={"Linear": 10.0})
    assert read(record).reference == pytest.approx([100, 100, 10, 10, 1])
    assert read(record).relative_gradient == pytest.approx(np.ones(5))


def test_a_parallel_branch_is_no_reference():
    net = Network()
    net.add("poor", "Linear", inputs=())
    net.add("poor_head", "Linear", is_head=True)
    net.add("rich", "Linear", inputs=())
    net.add("rich_head", "Linear", is_head=True)
    record = make_record(net.build())
    record = change(record, "grad_output_l2_norm", {"poor": 1e-6, "poor_head": 1e-6})
    assert read(record).relative_gradient == pytest.approx(np.ones(4))
    assert read(record).sensitivity == pytest.approx(np.ones(4))


def test_activations_of_the_head_are_no_reference():
    """A sure sigmoid's gradient with BCE on its output is huge and means nothing."""
    net = Network()
    net.add("fc0", "Linear", inputs=())
    net.add("fc1", "Linear", is_head=True)
    net.add("out", "Sigmoid", is_head=True)
    record = make_record(net.build(), gains={"Sigmoid": 1e-6}, loss_gradient=1e6)
    assert read(record).reference[:2] == pytest.approx([1, 1])
    assert read(record).error_signal == pytest.approx(1)
    assert read(record).relative_gradient == pytest.approx([1, 1, np.nan], nan_ok=True)


def test_the_error_signal_takes_all_heads_together():
    net = Network()
    net.add("trunk", "Linear", inputs=())
    net.add("left", "Linear", inputs=(0,), is_head=True)
    net.add("right", "Linear", inputs=(0,), is_head=True)
    record = change(make_record(net.build()), "grad_output_l2_norm", {"left": 3.0, "right": 4.0})
    assert read(record).error_signal == pytest.approx(5)


def test_gains_are_inputs_gradient_over_outputs_gradient():
    record = make_record(build_chain(3), gains={"Sigmoid": 0.22, "Linear": 0.98})
    assert read(record).gains == pytest.approx([0.98, 0.22, 0.98, 0.22, 0.98])


def test_update_ratio_is_update_over_weight_and_small_weights_are_held_against_lecuns_scale():
    record = make_record(build_chain(3), update_ratio=0.01)
    assert read(record).update_ratio == pytest.approx([0.01] * 3)
    tiny = change_param(record, "weight_l2_norm", {"fc0.weight": 1e-9})
    assert read(tiny).measure_update(0.1)[0] == pytest.approx(
        0.01 * WEIGHT_NORM / WEIGHT_NORM / 0.1
    )
    assert read(tiny).update_ratio[0] > 1e6


def test_sensitivity_is_gradient_times_weight_against_the_largest_behind():
    record = make_record(build_chain(3))
    record = change_param(record, "grad_l2_norm", {"fc0.weight": 1e-3, "fc1.weight": 4.0})
    record = change_param(record, "weight_l2_norm", {"fc0.weight": 2.0, "fc1.weight": 0.5})
    record = change_param(record, "weight_l2_norm", {"fc2.weight": 1.0})
    # S = 2e-3, 2 and 1: fc2 has nobody behind it, fc1 beats fc2.
    assert read(record).sensitivity == pytest.approx([1e-3, 1, 1])


def test_what_is_not_judged_has_no_sensitivity():
    net = Network()
    net.add("fc0", "Linear", inputs=())
    net.add("fc1", "Linear", is_head=True)
    net.add_param("fc1.bias", role="bias")
    net.add_param("fc0.frozen", trainable=False)
    sensitivity = read(make_record(net.build())).sensitivity
    assert np.isnan(sensitivity).tolist() == [False, False, True, True]


def test_a_norm_that_float32_rounded_to_zero_is_no_true_zero():
    record = change(make_record(build_chain(2)), "grad_output_l2_norm", {"fc0": 0.0, "act0": 0.0})
    record = change(record, "grad_zero_fraction", {"fc0": 0.3, "act0": 1.0})
    assert read(record).grad[:2].tolist() == [ROUNDED_NORM, 0.0]


def test_missing_gradients_stay_missing():
    record = change(make_record(build_chain(3)), "grad_output_l2_norm", {"fc0": np.nan})
    reading = read(record)
    assert np.isnan(reading.relative_gradient[0])
    assert not reading.has_arrived[0]
    assert reading.has_arrived[1:].all()
    assert not reading.judged[0]


def test_batches_give_what_single_records_give():
    layer_sets = (build_chain(3), build_chain(4, "Tanh"))
    records = [
        record
        for layer_set in (*layer_sets, layer_sets[0])
        for record in repeat(make_record(layer_set, gains={"activation": 0.3}), 3)
    ]
    for record, reading in zip(records, read_flow(records), strict=True):
        alone = read(record)
        assert reading.record is record
        np.testing.assert_array_equal(reading.reference, alone.reference)
        np.testing.assert_array_equal(reading.sensitivity, alone.sensitivity)


def test_spreading_back_follows_the_data_flow():
    topology = map_topology(build_chain(3))
    values = spread_back(topology, np.array([[1.0, 0.0, 5.0, 2.0, 3.0]]))
    assert values.tolist() == [[5.0, 5.0, 5.0, 3.0, 3.0]]
