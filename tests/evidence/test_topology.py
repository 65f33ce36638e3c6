"""What a layer set says of the network: heads, bare parameters, gates, feeders."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch.evidence.feeders import name_with_feeders
from gradwatch.evidence.topology import map_topology
from gradwatch.records import Layer, LayerSet, Param
from tests.records_builder import WIDTH, Network, build_chain


def test_consumers_are_the_inverse_of_inputs():
    topology = map_topology(build_chain(3))
    assert topology.consumers == ((1,), (2,), (3,), (4,), ())


def test_calls_of_a_parameter_are_all_calls_of_its_module():
    net = Network()
    for _ in range(3):
        net.add("shared", "Linear")
    net.add("head", "Linear", is_head=True)
    topology = map_topology(net.build())
    assert topology.calls == ((0, 1, 2), (3,))


def test_calls_are_reduced_to_one_number_a_parameter():
    net = Network()
    for _ in range(3):
        net.add("shared", "Linear")
    net.add("head", "Linear", is_head=True)
    net.add_param("bare")
    topology = map_topology(net.build())
    values = np.array([[1.0, 3.0, 2.0, 4.0], [7.0, 5.0, 6.0, 8.0]])
    reduced = topology.reduce_calls(np.maximum, values, -7.0)
    assert reduced.tolist() == [[3.0, 4.0, -7.0], [7.0, 8.0, -7.0]]


def test_parameters_are_spread_to_all_calls_of_their_module():
    net = Network()
    for _ in range(2):
        net.add("shared", "Linear")
    net.add("head", "Linear", is_head=True)
    net.add_param("shared.bias")
    topology = map_topology(net.build())
    at = {param.fqn: index for index, param in enumerate(topology.params)}
    values = np.zeros((1, len(at)))
    values[0, [at["shared.weight"], at["shared.bias"]]] = 1.0, 2.0
    assert topology.spread_to_calls(values).tolist() == [[2.0, 2.0, 0.0]]


def test_activations_behind_the_last_weight_are_no_reference():
    net = Network()
    net.add("fc", "Linear", is_head=True)
    net.add("out", "Sigmoid", is_head=True)
    topology = map_topology(net.build())
    assert topology.is_reference.tolist() == [True, False]
    assert topology.is_head.tolist() == [True, True]


def test_where_nothing_but_activations_is_seen_they_are_the_reference():
    net = Network()
    net.add("first", "Tanh", is_head=True)
    net.add("second", "Tanh", is_head=True)
    assert map_topology(net.build()).is_reference.all()


def test_a_bare_parameter_has_the_activations_around_it():
    net = Network()
    net.add("net.block:tanh", "Tanh")
    net.add("other:tanh", "Tanh")
    net.add_param("net.block.weight")
    topology = map_topology(net.build())
    assert topology.is_bare.tolist() == [True]
    assert topology.inner_layers == {0: (0,)}
    assert topology.param_layers == ("net.block.weight",)


def test_the_output_of_a_module_with_others_inside_says_nothing_of_its_own_matrix():
    net = Network()
    net.add("rbf.head", "Linear")
    net.add("rbf", "Linear")
    net.add("next", "Linear")
    topology = map_topology(net.build())
    assert topology.calls == ((0,), (), (2,))


def test_a_parameter_belongs_to_the_layer_of_its_module():
    net = Network()
    net.add("fc", "Linear")
    net.add_param("fc.bias", role="bias")
    assert map_topology(net.build()).param_layers == ("fc", "fc")


def test_gates_heads_and_rectifiers_cannot_be_saturated():
    net = Network()
    net.add("fc", "Linear")
    hidden = net.add("hidden", "Tanh")
    net.add("gate", "Sigmoid", is_gate=True)
    net.add("relu", "ReLU")
    net.add("fc2", "Linear", is_head=True)
    net.add("out", "Sigmoid", is_head=True)
    assert map_topology(net.build()).saturable == (hidden,)


@pytest.mark.parametrize(
    ("facts", "judged"),
    [
        ({}, True),
        ({"role": "embedding"}, True),
        ({"role": "bias"}, False),
        ({"role": "norm"}, False),
        ({"role": "scalar"}, False),
        ({"trainable": False}, False),
        ({"optimized": False}, False),
    ],
)
def test_weights_in_training_are_judged(facts, judged):
    layer_set = LayerSet((), (Param("w", "", (WIDTH, WIDTH), **facts),))
    assert map_topology(layer_set).is_judged.tolist() == [judged]


def test_lecuns_norm_is_the_root_of_the_outputs():
    params = (Param("a", "", (16, 9)), Param("b", "", (25, 3, 3, 3)), Param("c", "", (7,)))
    assert map_topology(LayerSet((), params)).lecun_norm.tolist() == [4, 5, 0]


def test_feeders_are_found_through_normalisation():
    net = Network()
    net.add("fc", "Linear")
    net.add("norm", "LayerNorm")
    act = net.add("act", "Tanh")
    assert name_with_feeders(map_topology(net.build()), [act]) == ("act", "fc")


def test_an_activation_of_the_input_has_no_feeder():
    layer_set = LayerSet((Layer("act", role="activation", type="Tanh"),))
    assert name_with_feeders(map_topology(layer_set), [0]) == ("act",)


def test_equal_layer_sets_share_a_topology():
    assert map_topology(build_chain(3)) is map_topology(build_chain(3))
    assert map_topology(build_chain(3)) is not map_topology(build_chain(3, "Tanh"))
