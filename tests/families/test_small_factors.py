"""A factor that is far too small is at fault, and not the weights before it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.families.training import list_kinds, make_labelled, train


class Factored(nn.Module):
    """A body, what multiplies it, and a head."""

    def __init__(self, join: Callable[[Tensor], Tensor], gate: Tensor | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 24))
        self.gate = None if gate is None else nn.Parameter(gate)
        self.join, self.head = join, nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        scale = 1.0 if self.gate is None else torch.sigmoid(self.gate)
        return self.head(scale * (self.join(hidden) if self.join else hidden))


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Tempered(nn.Module):
    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.net, self.temperature = nn.Sequential(nn.Linear(12, 24), nn.Linear(24, 4)), temperature
        self.logit_scale = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) / self.temperature * self.logit_scale.exp()


BUILDS: dict[str, tuple[Callable[[bool], nn.Module], str]] = {
    "gate": (lambda small: Factored(None, torch.tensor(-15.0 if small else 0.0)), "such as `gate`"),
    "gates": (
        lambda small: Factored(None, torch.full((24,), -15.0 if small else 0.0)),
        "between body.2 and head, such as `gate`",
    ),
    "buffer": (lambda small: Factored(Scale(1e-6 if small else 1.0)), "in join (Scale)"),
    "temperature": (
        lambda small: Tempered(1e6 if small else 1.0),
        "behind net.1, such as `logit_scale`",
    ),
}


@pytest.mark.parametrize("name", BUILDS)
def test_the_factor_is_named_and_the_weights_stay(name):
    build, place = BUILDS[name]
    torch.manual_seed(0)
    model = build(True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    finding = train(model, make_labelled(12, 4), 40, optimizer).findings[0]
    assert finding.kind == "vanishing"
    assert place in finding.remedy
    assert "The weights themselves are well" in finding.remedy
    assert "initialise" not in finding.remedy


@pytest.mark.parametrize("name", BUILDS)
def test_with_a_factor_of_ordinary_size_it_learns(name):
    torch.manual_seed(0)
    model = BUILDS[name][0](False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert list_kinds(train(model, make_labelled(12, 4), 40, optimizer)) == []


class Recomputed(nn.Module):
    """Stages in reentrant checkpoints, which hide what feeds what."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        stages = (nn.Sequential(nn.Linear(12, 12), activation()) for _ in range(10))
        self.stages, self.out = nn.ModuleList(stages), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_(True)
        for stage in self.stages:
            x = checkpoint(stage, x, use_reentrant=True)
        return self.out(x)


@pytest.mark.parametrize(("activation", "found"), [(nn.Sigmoid, True), (nn.ReLU, False)])
def test_where_a_checkpoint_hides_the_way_no_factor_is_blamed(activation, found):
    torch.manual_seed(0)
    model = Recomputed(activation)
    for stage in model.stages:
        nn.init.kaiming_normal_(stage[0].weight)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    report = train(model, make_labelled(12, 4), 20, optimizer)
    assert list_kinds(report) == (["vanishing"] if found else [])
    assert [finding.cause for finding in report.findings] == ["activation_derivative"] * found


@pytest.mark.parametrize(
    ("dtype", "rate"), [("bfloat16", 6e-4), ("bfloat16", 0.02), ("float32", 6e-4)]
)
def test_scales_that_half_precision_holds_at_one_are_a_note(dtype: str, rate: float) -> None:
    torch.manual_seed(0)
    layers = nn.Linear(8, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3)
    model, batch = nn.Sequential(*layers).to(getattr(torch, dtype)), make_labelled(8, 3)

    def cast(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = batch(step)
        return x.to(getattr(torch, dtype)), y

    report = train(model, cast, 40, torch.optim.Adam(model.parameters(), rate))
    assert list_kinds(report) == []
    notes = [note.layers for note in report.notes if note.kind == "underflow"]
    assert notes == ([("1",)] if (dtype, rate) == ("bfloat16", 6e-4) else [])
