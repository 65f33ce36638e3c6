"""Whose share the loss of gradient is, against chains with given gains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.evidence.attribution import RECTIFIER_LOG_GAIN, attribute
from gradwatch.evidence.paths import find_fed_path
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.vanishing_causes import find_cause
from tests.records_builder import Network, build_chain, change, make_record, read


def judge_cause(record) -> str:
    reading = read(record)
    return find_cause(reading, attribute(reading, 0, Thresholds()), Thresholds())


def test_the_path_leads_from_behind_the_layer_to_the_reference():
    reading = read(make_record(build_chain(4), gains={"Sigmoid": 0.25}))
    assert find_fed_path(reading, 0) == (1, 2, 3, 4, 5)  # fc3 has no more than act2
    assert find_fed_path(reading, 6) == ()


def test_the_path_takes_the_best_fed_branch():
    net = Network()
    net.add("stem", "Linear", inputs=())
    poor = net.add("poor", "Linear", inputs=(0,))
    rich = net.add("rich", "Linear", inputs=(0,))
    net.add("join", "Add", inputs=(poor, rich))
    net.add("head", "Linear", is_head=True)
    record = make_record(net.build(), gains={"Linear": 0.1})
    record = change(record, "grad_output_l2_norm", {"poor": 1e-9, "rich": 1e-2, "stem": 1e-3})
    path = find_fed_path(read(record), 0)
    assert rich in path
    assert poor not in path


def test_shares_are_the_logarithms_of_the_gains():
    record = make_record(build_chain(6), gains={"Sigmoid": 0.22, "Linear": 0.9})
    split = attribute(read(record), 0, Thresholds())
    assert split.activation == pytest.approx(5 * math.log(0.22))
    assert split.weight == pytest.approx(5 * math.log(0.9))
    layers = record.layer_set.layers
    assert split.list_gains(layers, "activation") == pytest.approx([0.22] * 5)
    assert split.list_gains(layers, "weight") == pytest.approx([0.9] * 5)
    assert (split.norm, split.other) == pytest.approx((0, 0), abs=1e-12)
    assert split.blocked_by == -1


@settings(max_examples=60)
@given(
    gains=st.tuples(*[st.floats(5e-2, 1.0)] * 3),
    factor=st.floats(5e-2, 1.0),
    activation=st.sampled_from(["Sigmoid", "Tanh", "ReLU"]),
)
def test_shares_sum_to_the_total(gains, factor, activation):
    """Whatever the gains, and with a factor in forward that no layer accounts for."""
    net = Network()
    for number in range(4):
        net.add(f"fc{number}", "Linear")
        net.add(f"norm{number}", "LayerNorm")
        net.add(f"act{number}", activation)
    net.add("head", "Linear", is_head=True)
    roles = dict(zip(("weight", "norm", "activation"), gains, strict=True))
    record = make_record(net.build(), gains=roles)
    hidden = {
        layer.fqn: factor for layer in record.layer_set.layers if layer.fqn in ("fc0", "norm0")
    }
    scaled = {name: record.layer("grad_output_l2_norm")[i] * f for i, (name, f) in
              enumerate(hidden.items())}  # fmt: skip
    reading = read(change(record, "grad_output_l2_norm", scaled))
    split = attribute(reading, 0, Thresholds())
    whole = math.log(reading.grad[0] / reading.grad[split.path[-1]]) if split.path else 0.0
    assert split.total == pytest.approx(whole, abs=1e-9)


def test_what_no_layer_accounts_for_is_other():
    record = make_record(build_chain(3))
    split = attribute(read(change(record, "grad_output_l2_norm", {"fc0": 1e-4})), 0, Thresholds())
    assert split.other == pytest.approx(math.log(1e-4))
    assert split.weight == split.activation == 0


def test_half_of_a_rectifiers_energy_is_the_weights_business():
    record = make_record(build_chain(4, "ReLU"), gains={"ReLU": 0.5**0.5, "Linear": 0.1})
    split = attribute(read(record), 0, Thresholds())
    assert split.activation == pytest.approx(0, abs=1e-12)
    assert split.weight == pytest.approx(3 * (math.log(0.1) + RECTIFIER_LOG_GAIN))


def test_a_chain_of_sigmoids_is_blamed_on_their_slope():
    record = make_record(build_chain(10), gains={"Sigmoid": 0.22, "Linear": 0.98})
    assert judge_cause(record) == "activation_derivative"


def test_small_weights_are_blamed_on_their_scale():
    for activation, gain in (("Tanh", 0.99), ("ReLU", 0.7), ("Sigmoid", 0.24)):
        record = make_record(build_chain(6, activation), gains={activation: gain, "Linear": 0.02})
        assert judge_cause(record) == "weight_scale"


def test_a_constant_factor_in_forward_is_blamed_on_scale():
    record = make_record(build_chain(6, "Tanh"), gains={"Tanh": 0.95})
    assert judge_cause(change(record, "grad_output_l2_norm", {"fc0": 1e-6})) == "weight_scale"


def test_a_long_mild_chain_is_blamed_on_its_depth():
    record = make_record(build_chain(40, "Tanh"), gains={"Tanh": 0.88, "Linear": 0.88})
    assert judge_cause(record) == "depth"


def test_a_short_chain_with_the_same_gains_is_not():
    record = make_record(build_chain(8, "Tanh"), gains={"Tanh": 0.8, "Linear": 0.88})
    assert judge_cause(record) == "activation_derivative"


@pytest.mark.parametrize("activation", ["Sigmoid", "Tanh"])
def test_saturated_units_are_blamed_on_saturation(activation):
    record = make_record(build_chain(6, activation), gains={activation: 1e-2})
    record = change(record, "derivative_mean", {f"act{i}": 1e-3 for i in range(5)})
    record = change(record, "saturated_fraction", {f"act{i}": 0.95 for i in range(5)})
    assert judge_cause(record) == "saturation"


def test_silent_rectifiers_are_blamed_on_dead_units():
    record = make_record(build_chain(6, "ReLU"), gains={"ReLU": 1e-3})
    record = change(record, "dead_fraction", {"act2": 0.95})
    assert judge_cause(record) == "dead_units"


@pytest.mark.parametrize(
    ("activation", "cause"), [("ReLU", "dead_units"), ("Sigmoid", "saturation")]
)
def test_an_activation_that_lets_nothing_through_is_the_culprit(activation, cause):
    record = make_record(build_chain(5, activation), gains={"act1": 0.0})
    reading = read(change(record, "grad_zero_fraction", {"fc0": 1, "act0": 1, "fc1": 1}))
    split = attribute(reading, 2, Thresholds())
    assert reading.topology.layers[split.blocked_by].fqn == "act1"
    assert find_cause(reading, split, Thresholds()) == cause


def test_a_cycle_in_the_data_flow_ends():
    net = Network()
    net.add("a", "Linear", inputs=(1,))
    net.add("b", "Linear", inputs=(0,))
    net.add("head", "Linear", inputs=(1,), is_head=True)
    record = make_record(net.build())
    record = change(record, "grad_output_l2_norm", {"a": 1e-9, "b": 1e-8, "head": 1.0})
    assert len(find_fed_path(read(record), 0)) <= 3
    assert np.isfinite(attribute(read(record), 0, Thresholds()).total)


def test_a_layer_that_leaves_less_than_norms_can_hold_takes_at_least_so_much():
    """Sigmoids driven to 1 by inputs of 50: a gradient of 1e-20 is left of one of 0.25."""
    record = make_record(build_chain(4), gains={"act0": 1e-20, "Sigmoid": 0.2, "Linear": 0.9})
    split = attribute(read(record), 0, Thresholds())
    worst = record.layer_set.layers[split.culprit]
    assert worst.role == "activation"
    assert split.culprit == min(split.path)
    assert split.factors[split.culprit] < math.log(1e-16)
    lower = attribute(read(change(record, "grad_output_l2_norm", 1e-30)), 0, Thresholds())
    assert lower.factors == {}


def test_what_returns_its_input_is_no_culprit():
    net = Network()
    for place in range(4):
        net.add(f"fc{place}", "Linear")
        net.add(f"same{place}", "Identity")
    net.add("head", "Linear", is_head=True)
    record = make_record(net.build(), gains={"Linear": 0.5, "Identity": 1e-4})
    names = [f"same{place}" for place in range(4)]
    unseen = change(record, "grad_input_l2_norm", dict.fromkeys(names, math.nan))
    assert attribute(read(unseen), 0, Thresholds()).culprit == -1


def test_a_gap_lies_where_no_layer_accounts_for_the_loss():
    net = Network()
    for place in range(4):
        net.add(f"fc{place}", "Linear")
    net.add("head", "Linear", is_head=True)
    record = make_record(net.build(), gains={"Linear": 0.5})
    for statistic in ("grad_output_l2_norm", "grad_input_l2_norm"):
        fainter = 1e-3 * record.layer(statistic)  # of what leaves fc2, a thousandth arrives
        record = change(record, statistic, {"fc0": fainter[0], "fc1": fainter[1]})
    split = attribute(read(record), 0, Thresholds())
    assert min(split.gaps, key=lambda index: split.gaps[index]) == 2
