"""Remedies in words: modules by type and pattern."""

from __future__ import annotations

import pytest
from torch import nn

import gradwatch
from gradwatch.display.trial_table import write_trials
from gradwatch.evidence.topology import map_topology
from gradwatch.records import Layer, LayerSet
from gradwatch.verdict.advice import suggest_remedy
from gradwatch.wording.module_names import describe_layers, name_patterns
from tests.records_builder import Network
from tests.remedies.networks import N_CLASSES, make_batches, make_chain


def chain_layers() -> LayerSet:
    layers = []
    for place in range(12):
        inputs = (len(layers) - 1,) if layers else ()
        layers.append(
            Layer(f"net.{place}.linear", 0, "weight", "Linear", inputs, is_head=place == 11)
        )
        if place < 11:
            layers.append(Layer(f"net.{place}.act", 0, "activation", "Sigmoid", (len(layers) - 1,)))
    return LayerSet(tuple(layers))


class TestWords:
    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (["net.0.act", "net.1.act"], "`net.0.act` and `net.1.act`"),
            (["fc1", "fc2", "fc3", "head"], "`fc1` to `fc3` and `head`"),
            (["layer1.0.conv2"], "`layer1.0.conv2`"),
            ([], ""),
        ],
    )
    def test_names_that_differ_in_numbers_are_known_by_their_ends(
        self, names: list[str], words: str
    ) -> None:
        assert name_patterns(names) == words

    def test_modules_and_calls_are_distinguished(self) -> None:
        layers = [
            Layer("a.0:tanh", role="activation", type="tanh"),
            Layer("a.1:tanh", role="activation", type="tanh"),
            Layer("act", role="activation", type="Sigmoid"),
            Layer("act", call=1, role="activation", type="Sigmoid"),
        ]
        assert describe_layers(layers) == (
            "the 2 calls of tanh in `a.0` and `a.1` and the Sigmoid module `act`"
        )

    def test_the_remedy_names_cause_and_place(self) -> None:
        topology = map_topology(chain_layers())
        text = suggest_remedy(
            "vanishing", "activation_derivative", ["net.0.linear", "net.1.linear"], topology
        )
        assert text.startswith(
            "Replace all 11 Sigmoid modules by ReLU and re-initialise the 11 Linear modules "
            "`net.0.linear` to `net.10.linear` with He"
        )

    def test_what_lies_before_the_place_is_left_alone(self) -> None:
        topology = map_topology(chain_layers())
        text = suggest_remedy("vanishing", "weight_scale", ["net.10.linear"], topology)
        assert "the 2 Linear modules `net.10.linear` and `net.11.linear` with Xavier" in text

    @pytest.mark.parametrize(
        ("kind", "advice"), [("RNN", "Use an LSTM"), ("LSTM", "Let the gates")]
    )
    def test_nobody_is_advised_to_use_what_is_there(self, kind: str, advice: str) -> None:
        topology = map_topology(LayerSet((Layer("memory", role="recurrent", type=kind),)))
        text = suggest_remedy("vanishing", "through_time", ["memory"], topology)
        assert text.startswith(advice)
        assert "`memory`" in text

    def test_without_a_topology_the_layers_are_named(self) -> None:
        text = suggest_remedy("vanishing", "weight_scale", ["fc1", "fc2"])
        assert "`fc1` and `fc2`" in text

    def test_every_finding_of_a_real_run_carries_it(self) -> None:
        report = gradwatch.check(make_chain(nn.Sigmoid), make_batches(), nn.CrossEntropyLoss())
        assert "all 11 Sigmoid modules by ReLU" in report.findings[0].remedy

    @pytest.mark.parametrize("kind", ["relu", "ReLU", "clamp", "clamp_min", "threshold"])
    def test_dead_units_are_revived_at_the_weight_that_feeds_them(self, kind: str) -> None:
        net = Network()
        net.add("first", "Linear")
        net.add(":act", kind)
        net.add("second", "Linear", is_head=True)
        text = suggest_remedy("dead", "dead_units", [":act"], map_topology(net.build()))
        assert "re-initialise the Linear module `first` with He" in text

    def test_an_activation_that_is_flat_around_zero_is_named(self) -> None:
        report = gradwatch.check(make_chain(nn.Tanhshrink), make_batches(), nn.CrossEntropyLoss())
        (finding,) = report.findings
        assert (finding.kind, finding.cause) == ("vanishing", "activation_derivative")
        assert "all 11 Tanhshrink modules by ReLU" in finding.remedy

    def test_a_hostile_layer_name_stays_in_its_place(self) -> None:
        model = nn.Sequential()
        for place in range(10):
            model.add_module(f"[red]`{place}`\x1b[31m", nn.Linear(16, 16))
            model.add_module(f"a{place}", nn.Sigmoid())
        model.add_module("out", nn.Linear(16, N_CLASSES))
        trials = gradwatch.try_remedies(model, make_batches(16), nn.CrossEntropyLoss(), steps=5)
        text = write_trials(trials)
        assert "\x1b" not in text
        assert "[red]'0'" in text
