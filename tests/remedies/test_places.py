"""A remedy names what is at fault and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

import gradwatch
from gradwatch.evidence.topology import map_topology
from gradwatch.records import Layer, LayerSet, Param
from gradwatch.schema.cut import Cut
from gradwatch.verdict.advice import suggest_remedy
from gradwatch.verdict.findings import Finding
from gradwatch.wording.cuts import advise_cut
from gradwatch.wording.module_names import describe_modules, name_patterns
from tests.records_builder import Network

CAUSES = ("weight_scale", "activation_derivative", "saturation", "dead_units", "depth")


def find_first(model: nn.Module, x: Tensor, rate: float = 0.05, steps: int = 6) -> Finding:
    """The first finding of a short training on labels that need all of the model."""
    optimizer, labels = SGD(model.parameters(), rate), (x[:, 0] > 0).long()
    with gradwatch.watch(model, optimizer, every_n_steps=1, log_findings=False) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), labels).backward()
            optimizer.step()
    return watch.report().findings[0]


def make_relu_chain(depth: int) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential()
    for place in range(depth):
        model.add_module(f"fc{place}", nn.Linear(16, 16))
        model.add_module(f"act{place}", nn.ReLU())
        nn.init.kaiming_normal_(model[-2].weight)
        nn.init.constant_(model[-2].bias, 0.1)
    return model.append(nn.Linear(16, 2))


def make_batch() -> Tensor:
    return torch.randn(64, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("cause", CAUSES)
def test_nothing_frozen_is_named_as_what_to_change(cause: str) -> None:
    layers = (Layer("base", 0, "weight", "Linear"), Layer("act", 0, "activation", "Tanh", (0,)))
    params = (Param("base.weight", "base", (4, 4), trainable=False),)
    text = suggest_remedy("vanishing", cause, ["base"], map_topology(LayerSet(layers, params)))
    assert "e-initialise the Linear module `base`" not in text
    assert "*`" not in text


@pytest.mark.parametrize("role", ["embedding", "recurrent", "norm"])
def test_he_is_not_said_of_what_it_was_not_made_for(role: str) -> None:
    topology = map_topology(LayerSet((Layer("inner", 0, role, "Kind"),)))
    text = suggest_remedy("vanishing", "weight_scale", ["inner"], topology)
    assert "`inner`" in text
    assert "He" not in text.replace("(He", "")


def test_a_name_that_is_a_number_is_told_by_its_type() -> None:
    types = {"0": "Linear", "2": "Linear", "3": "ReLU"}
    assert name_patterns(["0"], types) == "layer 0 (Linear)"
    assert name_patterns(["0", "2"], types) == "layers 0 and 2 (Linear)"
    assert describe_modules("Linear", ["0"]) == "layer 0 (Linear)"
    topology = map_topology(LayerSet((Layer("0", 0, "weight", "Linear"),)))
    assert "layer 0 (Linear)" in suggest_remedy("exploding", "learning_rate", ["0"], topology)


def test_a_slope_of_zero_names_the_function_and_the_estimator() -> None:
    text = advise_cut(Cut("round", "model.py:3", "", "", is_flat=True), "`enc`")
    assert text.startswith("`round()` at model.py:3 has a slope of zero")
    assert "straight-through estimator" in text


def test_only_dead_layers_are_revived() -> None:
    model = make_relu_chain(3)
    nn.init.constant_(model.fc1.bias, -20.0)
    remedy = find_first(model, make_batch(), steps=8).remedy
    assert "`fc1`" in remedy
    assert "`fc0`" not in remedy
    assert "learning rate" not in remedy


def test_a_normalisation_that_shuts_a_rectifier_is_named_for_its_shift() -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(16)
    nn.init.constant_(norm.bias, -6.0)
    model = nn.Sequential(nn.Linear(16, 16), norm, nn.ReLU(), nn.Linear(16, 2))
    remedy = find_first(model, make_batch(), steps=8).remedy
    assert remedy.startswith("Set the shift (bias) of layer 1 (LayerNorm) to 0")


def test_a_frozen_culprit_is_made_up_for() -> None:
    model = make_relu_chain(6)
    model.fc4.requires_grad_(False).weight.data.mul_(1e-5)
    finding = find_first(model, make_batch())
    assert finding.cause == "weight_scale"
    assert finding.remedy.startswith("Multiply what the Linear module `fc4` returns by about")


class Scaled(nn.Module):
    """Someone multiplies between the stages."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.back = make_relu_chain(2)[:-1], make_relu_chain(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.back(1e-6 * self.front(x))


def test_a_factor_of_forwards_own_is_named_by_its_place() -> None:
    finding = find_first(Scaled(), make_batch())
    assert "between front.act1 and back.fc0" in finding.remedy
    assert "initialise" not in finding.remedy
    assert "what stands between front.act1 and back.fc0 multiplies by" in finding.message


def test_activations_that_are_well_stay() -> None:
    net = Network()
    for place in range(6):
        net.add(f"fc{place}", "Linear")
        net.add(f"act{place}", "Sigmoid")
    net.add("tail", "Tanh")
    net.add("out", "Linear", is_head=True)
    keys = [f"act{place}" for place in range(6)]
    text = suggest_remedy(
        "vanishing", "activation_derivative", ["fc0"], map_topology(net.build()), keys
    )
    assert text.startswith("Replace all 6 Sigmoid modules by ReLU and re-initialise the 6 Linear")
    assert "Tanh" not in text
    assert "out" not in text.replace("without", "")


def test_skips_that_are_there_are_not_asked_for() -> None:
    layers = (
        Layer("stem", 0, "weight", "Linear"),
        Layer("a", 0, "weight", "Linear", (0,)),
        Layer("b", 0, "weight", "Linear", (0, 1)),
        Layer("head", 0, "weight", "Linear", (1, 2)),
    )
    text = suggest_remedy("exploding", "depth", ["b"], map_topology(LayerSet(layers)))
    assert text.startswith("Scale the branches down")
    assert "Add residual" not in text


def train_with_shrinking(decay: float, factor: float) -> Finding:
    """Weights that decay takes, or somebody between the steps."""
    model = make_relu_chain(6)
    optimizer = SGD(model.parameters(), 0.01, weight_decay=decay)
    x = make_batch()
    with gradwatch.watch(model, optimizer, every_n_steps=5, log_findings=False) as watch:
        for _ in range(40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()
            with torch.no_grad():
                for layer in model[::2]:
                    layer.weight.mul_(factor)
    return watch.report().findings[0]


def test_weights_that_somebody_shrinks_are_not_decayed() -> None:
    finding = train_with_shrinking(0.0, 0.6)
    assert finding.cause == "weight_scale"
    assert "between the optimizer's steps" in finding.remedy


def test_weights_that_decay_takes_are() -> None:
    finding = train_with_shrinking(20.0, 1.0)
    assert finding.cause == "weight_decay"
    assert finding.remedy.startswith("Lower the weight decay")


class FirstStep(nn.Module):
    """All that the task needs is in the first of many time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.rec, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inp(x))
        for _ in range(30):
            h = torch.tanh(self.rec(h))
        return self.out(h)


def test_a_recurrence_is_the_cause_before_the_loss_is_known_to_stall() -> None:
    torch.manual_seed(0)
    finding = find_first(FirstStep(), make_batch())
    assert (finding.code, finding.cause) == ("GW101", "through_time")
    assert "orthogonal recurrent matrix, for `rec`" in finding.remedy
