"""What nothing can teach is a note with the reason; its twin that could learn is a finding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.families.training import list_kinds, make_labelled, train


class Attending(nn.Module):
    """Tokens attend to a few summaries of themselves."""

    def __init__(self, keys: int, fused: bool, scale: float = 1.0) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 12), nn.Linear(12, 3)
        self.ask, self.offer, self.tell = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.keys, self.fused, self.scale = keys, fused, scale

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inner(x)).unsqueeze(1).repeat(1, self.keys, 1)
        q, k, v = self.ask(h) * self.scale, self.offer(h), self.tell(h)
        if self.fused:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(1, 2) / 12**0.5).softmax(-1) @ v
        return self.outer((h + mixed).mean(1))


@pytest.mark.parametrize("fused", [False, True])
def test_queries_of_a_single_key_are_a_note(fused: bool) -> None:
    torch.manual_seed(0)
    report = train(Attending(1, fused), make_labelled(8, 3), 30)
    assert list_kinds(report) == []
    assert report.healthy
    (note,) = [note for note in report.notes if "one key" in note.message]
    assert set(note.layers) == {"ask", "offer"}


class Mixer(nn.Module):
    """Adds how a pooled picture differs from the picture."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(8, 4 * size * size), nn.GroupNorm(1, 4)
        self.size, self.outer = size, nn.Linear(4, 3)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inner(x)).view(-1, 4, self.size, self.size)
        n = self.norm(h)
        return self.outer((h + self.pool(n) - n).mean((2, 3)))


@pytest.mark.parametrize("size", [1, 3])
def test_what_cancels_by_construction_is_a_note(size: int) -> None:
    torch.manual_seed(0)
    report = train(Mixer(size), make_labelled(8, 3), 30)
    assert list_kinds(report) == []
    assert report.healthy
    notes = [note.layers for note in report.notes if "add up to zero" in note.message]
    assert notes == ([("norm",)] if size == 1 else [])


class Gated(nn.Module):
    """One input opens what another one gives; the loss can fall without."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.body, self.outer = nn.Linear(8, 12), nn.Linear(12, 3)
        self.gate = nn.Sequential(nn.Linear(8, 12), norm, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.body(x).tanh() * self.gate(x.flip(1)))


class ByFeature(nn.LayerNorm):
    """Of each feature alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., None])[..., 0]


@pytest.mark.parametrize(
    ("norm", "layers"),
    [
        (nn.GroupNorm(12, 12), ("gate.0",)),
        (ByFeature(1), ("gate.0",)),
        (nn.GroupNorm(4, 12), None),
        (nn.LayerNorm(12), None),
    ],
    ids=["groups of one", "features of one", "groups of three", "all features"],
)
def test_nothing_is_learned_before_a_normalisation_of_single_values(
    norm: nn.Module, layers: tuple[str, ...] | None
) -> None:
    """What rounding leaves of the gradient moves the weights under Adam, and is no learning."""
    torch.manual_seed(0)
    report = train(Gated(norm), make_labelled(8, 3), 30)
    assert [found.layers for found in report.findings] == ([layers] if layers else [])


class Routed(nn.Module):
    """Of four experts some are chosen; their weights are divided by their sum."""

    def __init__(self, chosen: int, divides: bool) -> None:
        super().__init__()
        self.gate, self.outer = nn.Linear(8, 4, bias=False), nn.Linear(12, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 12) for _ in range(4))
        self.chosen, self.divides = chosen, divides

    def forward(self, x: Tensor) -> Tensor:
        weights, places = self.gate(x).softmax(-1).topk(self.chosen, -1)
        if self.divides:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        given = torch.zeros(len(x), 4).scatter(1, places, weights)
        told = torch.stack([expert(x).tanh() for expert in self.experts], 1)
        return self.outer((given[..., None] * told).sum(1))


@pytest.mark.parametrize(("chosen", "divides"), [(1, True), (1, False), (2, True)])
def test_a_router_whose_only_weight_is_divided_by_itself_learns_nothing(
    chosen: int, divides: bool
) -> None:
    torch.manual_seed(0)
    report = train(Routed(chosen, divides), make_labelled(8, 3), 30)
    is_faulty = chosen == 1 and divides
    assert [found.layers for found in report.findings] == ([("gate",)] if is_faulty else [])
    if is_faulty:
        assert "divided by itself" in report.findings[0].message
        assert "choose two or more" in report.findings[0].remedy


def test_a_dropout_of_everything_is_to_blame_and_not_the_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Dropout(1.0), nn.Linear(12, 3))
    report = train(model, make_labelled(8, 3), 12)
    assert report.findings[0].cause == "disconnected"
    assert "layer 2 (Dropout) returns is 0" in report.findings[0].message


def test_a_bias_without_a_gradient_follows_a_weight_behind_a_parametrization() -> None:
    """A hinge of as many samples on either side: the bias raises one and lowers the other."""
    torch.manual_seed(0)
    critic = nn.utils.parametrizations.spectral_norm(nn.Linear(12, 1))
    model = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), critic)

    def hinge(score: Tensor, y: Tensor) -> Tensor:
        above, below = 0.1 * score[y == 0][:4], 0.1 * score[y == 1][:4]
        return (1 - above).relu().mean() + (1 + below).relu().mean()

    report = train(model, make_labelled(8, 2), 12, loss_fn=hinge)
    assert report.healthy
    assert not report.notes  # nor was there a finding for a while
