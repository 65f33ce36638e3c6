"""What people ask about and no gradient shows is said all the same, and nothing else is claimed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.display.headline import write_headline
from tests.families.training import list_kinds, make_labelled, train
from tests.zoo import asked


class Hidden(nn.Module):
    """A layer that the model may not know of."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
        layers = [nn.Linear(16, 16)]
        self.inner = nn.ModuleList(layers) if how == "registered" else layers
        if how == "frozen":
            layers[0].requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        layer = nn.Linear(16, 16) if self.how == "made in forward" else self.inner[0]
        with torch.set_grad_enabled(self.how != "without grad"):
            beside = layer(self.first(x).relu())
        return self.last(beside.relu() + self.first(x))


HIDDEN = {"in a list": True, "made in forward": True}
HIDDEN |= {"registered": False, "frozen": False, "without grad": False}


@pytest.mark.parametrize("how", HIDDEN)
def test_layers_that_the_model_does_not_have(how: str) -> None:
    torch.manual_seed(0)
    report = train(Hidden(how), make_labelled(8, 3), 30, every_n_steps=50)
    says = [words for words in report.unseen if "no part of the model" in words]
    assert len(says) == HIDDEN[how]


def test_a_hidden_layer_that_an_optimizer_holds() -> None:
    torch.manual_seed(0)
    model = Hidden("in a list")
    params = [*model.parameters(), *model.inner[0].parameters()]
    report = train(model, make_labelled(8, 3), 30, torch.optim.Adam(params, 3e-3))
    assert report.unseen == ()


@pytest.mark.parametrize("shuffles", [False, True])
def test_a_loss_that_has_levelled_off_near_where_it_began(shuffles: bool) -> None:
    """Labels that have nothing to do with their inputs: the weights move, and the loss hardly."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    draw, generator = make_labelled(8, 3), torch.Generator().manual_seed(1)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        x, y = draw(step)
        return x, y[torch.randperm(len(y), generator=generator)] if shuffles else y

    report = train(model, batch, 200, torch.optim.SGD(model.parameters(), 0.1))
    said = write_headline(report)
    assert list_kinds(report) == []
    assert ("the loss" in said) == shuffles
    assert said.endswith("learns") != shuffles


@pytest.mark.parametrize(
    ("build", "cause", "says"),
    [
        (lambda: asked.gate(32, 0.0), None, "log"),
        (lambda: asked.encode(32, 40.0, 1e3), None, "clamp"),
        (lambda: asked.decide(32, True), "disconnected", "sigmoid"),
        (lambda: asked.remember(16, 30, True), "disconnected", "asked.py"),
        (lambda: asked.owe(32, True), "dead_units", "softplus"),
    ],
    ids=["gate", "exponential", "softmax of one", "cut cell", "output ReLU"],
)
def test_cause_and_remedy(build: Callable[[], asked.Training], cause: str, says: str) -> None:
    training = build()
    with gradwatch.watch(training.model, training.optimizers) as watch:
        training.run()
    assert watch.failure is None
    finding = watch.report().findings[0]
    assert finding.cause == cause
    assert says in finding.remedy


def test_a_nan_that_no_weight_gets_is_a_note() -> None:
    training = asked.locate(32, is_rectified=True)
    with gradwatch.watch(training.model, training.optimizers) as watch:
        training.run()
    report = watch.report()
    assert report.status == "healthy"
    assert [note.kind for note in report.notes] == ["nonfinite"]
