"""A remedy speaks of what is at fault: of a router, an output, a zero, and of no symptom."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradwatch.evidence.topology import map_topology
from gradwatch.verdict.advice import suggest_remedy
from tests.families.training import make_labelled, train
from tests.records_builder import Network


def advise(
    cause: str,
    *kinds: str,
    inputs: dict[int, tuple[int, ...]] | None = None,
    is_output: bool = True,
) -> str:
    """The remedy for the last layer of a chain, or of what ``inputs`` makes of it."""
    net = Network()
    for place, kind in enumerate(kinds):
        given = (inputs or {}).get(place)
        facts = {"is_head": is_output and place == len(kinds) - 1}
        net.add(f"layer{place}", kind, given, **facts)
    last = f"layer{len(kinds) - 1}"
    return suggest_remedy("saturated", cause, [last], map_topology(net.build()), [last])


def test_a_router_is_no_attention():
    assert "load-balancing" in advise("saturation", "Linear", "softmax", is_output=False)
    products = {1: (), 2: (0, 1)}
    pairs = advise("saturation", "Linear", "Linear", "softmax", inputs=products, is_output=False)
    assert pairs.startswith("Divide the scores by the root of the head's width")


def test_a_softmax_on_the_outputs_is_left_to_the_loss():
    assert "cross_entropy" in advise("saturation", "Linear", "softmax")


@pytest.mark.parametrize(("kind", "has_logits"), [("Sigmoid", True), ("Tanh", False)])
def test_only_what_a_loss_has_built_in_is_left_to_it(kind, has_logits):
    assert ("with_logits" in advise("saturation", "Linear", kind)) is has_logits


def test_a_rectifier_on_the_outputs_is_taken_away():
    assert "away from the outputs" in advise("dead_units", "Linear", "ReLU")
    inner = advise("dead_units", "Linear", "ReLU", "Linear")
    assert "away from the outputs" not in inner


class Zeros(nn.Module):
    """Two factors, and a head that may be zero as well."""

    def __init__(self, is_all: bool) -> None:
        super().__init__()
        self.down, self.up, self.head = nn.Linear(12, 8), nn.Linear(8, 12), nn.Linear(12, 4)
        for module in (self.down, self.up, *((self.head,) if is_all else ())):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((0 if self.head.weight.any() == 0 else x) + self.up(self.down(x)))


@pytest.mark.parametrize(("is_all", "words"), [(True, "one of them alone"), (False, "leave up")])
def test_zeros_are_filled_as_far_as_a_gradient_needs_it(is_all, words):
    torch.manual_seed(0)
    finding = train(Zeros(is_all), make_labelled(12, 4), 40).findings[0]
    assert "multiply each other" in finding.message
    assert words in finding.remedy


def make_chain(std: float, shift: float) -> nn.Sequential:
    torch.manual_seed(0)
    parts = [part for _ in range(8) for part in (nn.Linear(24, 24), nn.ReLU())]
    model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), *parts, nn.Linear(24, 4))
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
    nn.init.constant_(model[12].bias[:20], shift)
    return model


@pytest.mark.parametrize(
    ("std", "shift", "cause"), [(0.03, -0.1, "weight_scale"), (0.29, -12.0, "dead_units")]
)
def test_units_without_a_signal_share_its_cause(std, shift, cause):
    model = make_chain(std, shift)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    findings = train(model, make_labelled(12, 4), 40, optimizer).findings
    (dead,) = [finding for finding in findings if finding.kind == "dead"]
    assert dead.cause == cause
    assert (dead.remedy == findings[0].remedy) is (cause == "weight_scale" or dead is findings[0])
