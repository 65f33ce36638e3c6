"""What goes wrong between backward and step, each beside a training that does nearly the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.display.page_data import write_brief
from tests.families.training import list_kinds

SGD = torch.optim.SGD
Body = Callable[[int, Tensor, Tensor], None]


pytestmark = pytest.mark.usefixtures("one_thread")


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def measure_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), y)


def watch_loop(
    model: nn.Module, optimizers: Any, body: Body, steps: int = 56, **options: Any
) -> gradwatch.Report:
    """The report on a loop under the default schedule; fails where the watch has ended itself."""
    generator = torch.Generator().manual_seed(1)
    with gradwatch.watch(model, optimizers, **options) as watch:
        for step in range(steps):
            x = torch.randn(32, 8, generator=generator)
            body(step, x, x[:, :4].argmax(1))
    assert watch.failure is None
    return watch.report()


def learn(model: nn.Module, *optimizers: torch.optim.Optimizer, scheduler: Any = None) -> Body:
    """An ordinary step."""

    def body(_: int, x: Tensor, y: Tensor) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        measure_loss(model, x, y).backward()
        for optimizer in optimizers:
            optimizer.step()
        if scheduler is not None:
            scheduler.step()

    return body


def list_causes(report: gradwatch.Report) -> list[tuple[str, str | None, tuple[str, ...]]]:
    return [(finding.kind, finding.cause, finding.layers) for finding in report.findings]


# A gradient arrives, and the weight never moves ------------------------------------------------


def test_a_layer_that_is_replaced_after_the_optimizer_was_made() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    model[2] = nn.Linear(16, 4)
    report = watch_loop(model, optimizer, learn(model, optimizer))
    assert list_causes(report) == [("unmoved", "not_optimized", ("2",))]
    finding = report.findings[0]
    assert finding.severity == "critical"
    assert "the model no longer has" in finding.message
    line = "2 of 4 tensors train (144 of 212 elements)"
    for text in (str(report), report.to_markdown(), report._repr_html_()):
        assert line in text
    assert ["Trains", line] in write_brief(report)["about"]
    assert json.loads(report.to_json())["trains"]["tensors"] == 2


def test_a_model_that_is_replaced_as_a_whole_while_it_is_watched() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)

    def body(step: int, x: Tensor, y: Tensor) -> None:
        if step == 3:
            model[0], model[2] = nn.Linear(8, 16), nn.Linear(16, 4)
        learn(model, optimizer)(step, x, y)

    assert list_causes(watch_loop(model, optimizer, body)) == [
        ("unmoved", "not_optimized", ("0", "2"))
    ]


def test_a_replaced_layer_that_the_optimizer_is_given() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    model[2] = nn.Linear(16, 4)
    optimizer.add_param_group({"params": model[2].parameters()})
    assert watch_loop(model, optimizer, learn(model, optimizer)).findings == ()


def test_an_embedding_that_is_resized_after_the_optimizer_was_made() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 8), nn.Flatten(), nn.Linear(16, 4))
    optimizer = SGD(model.parameters(), lr=0.1)
    model[0] = nn.Embedding(12, 8)

    def body(_: int, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        words = torch.stack((y, y + 8), 1)
        nn.functional.cross_entropy(model(words), y).backward()
        optimizer.step()

    report = watch_loop(model, optimizer, body)
    assert list_causes(report) == [("unmoved", "not_optimized", ("0",))]
    assert report.findings[0].severity == "critical"


def test_a_trainable_layer_that_no_optimizer_holds_and_how_to_say_that_it_is_meant() -> None:
    """A note where it may be meant, also beside another model that the optimizer trains."""
    model, other = make_net(), nn.Linear(8, 16)
    optimizer = SGD([*model[2].parameters(), *other.parameters()], lr=0.1)

    def body(_: int, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        (measure_loss(model, x, y) + other(x).square().mean()).backward()
        optimizer.step()

    report = watch_loop(model, optimizer, body)
    assert report.findings == ()
    said = [(note.kind, note.cause, note.layers) for note in report.notes]
    assert said == [("unmoved", "not_optimized", ("0",))]
    meant = gradwatch.Thresholds(allow_unjudged=("0",))
    assert watch_loop(model, optimizer, body, thresholds=meant).notes == ()
    model[0].requires_grad_(False)
    assert watch_loop(model, optimizer, body).notes == ()


def test_what_an_optimizer_moves_that_is_not_watched() -> None:
    model = make_net()
    watched, other = SGD(model[2].parameters(), lr=0.1), SGD(model[0].parameters(), lr=0.1)
    assert watch_loop(model, watched, learn(model, watched, other)).findings == ()


def test_a_moving_average_and_an_adapter_beside_a_frozen_base() -> None:
    torch.manual_seed(0)
    base, down, up = nn.Linear(8, 4), nn.Linear(8, 2, bias=False), nn.Linear(2, 4, bias=False)
    nn.init.zeros_(up.weight)

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.down, self.up = base.requires_grad_(False), down, up
            self.average = nn.Linear(2, 4, bias=False).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.base(x) + self.up(self.down(x))
            return z

    model = Adapted()
    optimizer = torch.optim.Adam([*down.parameters(), *up.parameters()], lr=0.02)

    def body(step: int, x: Tensor, y: Tensor) -> None:
        learn(model, optimizer)(step, x, y)
        with torch.no_grad():
            model.average.weight.lerp_(up.weight, 0.1)

    report = watch_loop(model, optimizer, body)
    assert report.findings == ()
    assert (report.trains.tensors, report.trains.all_tensors) == (2, 5)


@pytest.mark.parametrize("is_stepped", [False, True])
def test_an_optimizer_that_is_never_stepped_beside_one_that_is(is_stepped: bool) -> None:
    model = make_net()
    first, second = SGD(model[0].parameters(), lr=0.1), SGD(model[2].parameters(), lr=0.1)

    def body(step: int, x: Tensor, y: Tensor) -> None:
        first.zero_grad()
        second.zero_grad()
        measure_loss(model, x, y).backward()
        second.step()
        if is_stepped and step % 5 == 4:
            first.step()

    expected = [] if is_stepped else [("unmoved", "not_stepped", ("0",))]
    assert list_causes(watch_loop(model, (first, second), body, steps=112)) == expected


def test_a_body_that_waits_while_its_head_is_warmed_up_is_a_note() -> None:
    model = make_net()
    body, head = SGD(model[0].parameters(), lr=0.1), SGD(model[2].parameters(), lr=0.1)
    report = watch_loop(model, (body, head), learn(model, head), steps=112)
    assert report.findings == ()
    assert [(note.kind, note.cause) for note in report.notes] == [("unmoved", "not_stepped")]


def keep(model: nn.Sequential, from_step: int) -> torch.optim.Optimizer:
    """An optimizer whose step does not reach the first weight, as one that writes to a copy."""
    made = 0

    class Lossy(SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            nonlocal made
            before = model[0].weight.detach().clone()
            super().step()
            if made >= from_step:
                with torch.no_grad():
                    model[0].weight.copy_(before)
            made += 1

    return Lossy(model.parameters(), lr=0.1)


@pytest.mark.parametrize("from_step", [0, 12])
def test_a_step_that_never_reaches_the_weight(from_step: int) -> None:
    model = make_net()
    optimizer = keep(model, from_step)
    report = watch_loop(model, optimizer, learn(model, optimizer), steps=50, every_n_steps=5)
    assert list_causes(report) == [("unmoved", "lost_update", ("0",))]


def test_a_training_that_has_come_to_rest_has_lost_no_step() -> None:
    """At the bottom nothing is left to do, and LBFGS makes no step at all."""
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")
    inputs = torch.randn(64, 8)
    targets = inputs.sum(1, keepdim=True) + torch.randn(64, 1)

    def body(_: int, x: Tensor, y: Tensor) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            return loss

        optimizer.step(closure)

    assert watch_loop(model, optimizer, body, every_n_steps=1).findings == ()


# Learning rates --------------------------------------------------------------------------------

RATES: dict[str, tuple[Callable[[int], float], bool]] = {
    "a warm-up that is never stepped": (lambda step: 0.0, True),
    "a scheduler of epochs that is stepped per batch": (lambda step: max(1 - step / 8, 0), True),
    "one that halves at every batch": (lambda step: 0.5**step, True),
    "a warm-up that begins at 0": (lambda step: min(step / 10, 1.0), False),
    "some steps at 0": (lambda step: float(step >= 8), False),
    "restarts from 0": (lambda step: 1 - (step % 10) / 9, False),
}


@pytest.mark.parametrize("name", RATES)
def test_rates_that_rest(name: str) -> None:
    rate, is_wrong = RATES[name]
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    report = watch_loop(model, optimizer, learn(model, optimizer, scheduler=scheduler), steps=112)
    assert list_causes(report) == ([("unmoved", "learning_rate", ("0", "2"))] if is_wrong else [])


def test_a_group_that_waits_is_a_note() -> None:
    model = make_net()
    optimizer = SGD(
        [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2].parameters()}], lr=0.1
    )
    report = watch_loop(model, optimizer, learn(model, optimizer))
    assert report.findings == ()
    assert [(note.kind, note.cause) for note in report.notes] == [("unmoved", "learning_rate")]


@pytest.mark.parametrize(("rate", "expected"), [(1e-8, ["unmoved"]), (1e-3, [])])
def test_steps_that_are_too_small_to_lead_anywhere(rate: float, expected: list[str]) -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=rate)
    assert list_kinds(watch_loop(model, optimizer, learn(model, optimizer))) == expected


# Gradients that are mishandled -----------------------------------------------------------------


@pytest.mark.parametrize("every_n_steps", [1, 50])
def test_gradients_that_are_never_cleared(every_n_steps: int) -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.5)

    def body(_: int, x: Tensor, y: Tensor) -> None:
        measure_loss(model, x, y).backward()
        optimizer.step()

    heard: list[tuple[int, str, str | None]] = []

    def hear(change: Any) -> None:
        found = change.finding
        heard.append((found.last_step, found.kind, found.cause))

    options = {"every_n_steps": every_n_steps, "on_change": hear}
    report = watch_loop(model, optimizer, body, steps=110, **options)
    assert heard[0] == (3, "mishandled", "not_cleared")
    assert {finding.cause for finding in report.findings} <= {
        "not_cleared",
        "dead_units",
        "weight_scale",
    }
    assert "mishandled" in list_kinds(report)


@pytest.mark.parametrize("make_optimizer", [SGD, torch.optim.Adam])
@pytest.mark.parametrize("every_n_steps", [1, 50])
def test_a_loss_that_is_negated(every_n_steps: int, make_optimizer: Any) -> None:
    model = make_net()
    optimizer = make_optimizer(model.parameters(), lr=0.05)

    def body(_: int, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        (-measure_loss(model, x, y)).backward()
        optimizer.step()

    report = watch_loop(model, optimizer, body, steps=110, every_n_steps=every_n_steps)
    assert {finding.cause for finding in report.findings} == {"loss_sign"}
    assert "mishandled" in list_kinds(report)
    assert report.findings[0].first_step == 0


def test_an_optimizer_that_maximises_the_negative() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1, maximize=True)

    def body(_: int, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        (-measure_loss(model, x, y)).backward()
        optimizer.step()

    assert watch_loop(model, optimizer, body, steps=120, every_n_steps=1).findings == ()


@pytest.mark.parametrize("watches_both", [False, True])
def test_a_player_that_raises_the_loss_of_another(watches_both: bool) -> None:
    model, judge = make_net(), nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer, its_own = SGD(model.parameters(), lr=0.01), SGD(judge.parameters(), lr=0.01)

    def body(_: int, x: Tensor, __: Tensor) -> None:
        its_own.zero_grad()
        real, fake = judge(torch.randn(32, 4) + 1), judge(model(x).detach())
        score(real, 1.0).add(score(fake, 0.0)).backward()
        its_own.step()
        optimizer.zero_grad()
        (-score(judge(model(x)), 0.0)).backward()
        optimizer.step()

    def score(logits: Tensor, target: float) -> Tensor:
        wanted = torch.full_like(logits, target)
        return nn.functional.binary_cross_entropy_with_logits(logits, wanted)

    watched = nn.ModuleList([model, judge]) if watches_both else model
    optimizers = [its_own, optimizer] if watches_both else optimizer
    assert watch_loop(watched, optimizers, body, steps=120, every_n_steps=1).findings == ()


def test_accumulation_clears_at_the_right_place() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)

    def body(step: int, x: Tensor, y: Tensor) -> None:
        (measure_loss(model, x, y) / 4).backward()
        if step % 4 == 3:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()

    assert watch_loop(model, optimizer, body, steps=120, every_n_steps=1).findings == ()


@pytest.mark.parametrize("forgets", [False, True])
def test_two_players_that_clear_only_their_own(forgets: bool) -> None:
    """The critic steps three times as often, and the maker's backward runs through it."""
    torch.manual_seed(0)
    maker = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 8))
    critic = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    model = nn.ModuleDict({"maker": maker, "critic": critic})
    makes, judges = SGD(maker.parameters(), lr=0.05), SGD(critic.parameters(), lr=0.05)

    def body(step: int, x: Tensor, _: Tensor) -> None:
        fake = maker(torch.randn(32, 4))
        if not forgets:
            judges.zero_grad()
        (critic(fake.detach()) - critic(x)).square().mean().backward()
        judges.step()
        if step % 3 == 2:
            makes.zero_grad()
            (critic(fake) - 1).square().mean().backward()
            makes.step()

    report = watch_loop(model, (makes, judges), body, every_n_steps=1)
    found = [cause for cause in list_causes(report) if cause[0] in ("mishandled", "unmoved")]
    assert found == ([("mishandled", "not_cleared", ("critic.0", "critic.2"))] if forgets else [])


@pytest.mark.parametrize("part", [False, True])
def test_gradients_that_are_cleared_before_the_step(part: bool) -> None:
    """A part of them may be cleared on purpose: that freezes it for a while."""
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)

    def body(_: int, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        measure_loss(model, x, y).backward()
        (model[0] if part else optimizer).zero_grad()
        optimizer.step()

    expected = [] if part else [("mishandled", "cleared", ("0", "2"))]
    assert list_causes(watch_loop(model, optimizer, body)) == expected


@pytest.mark.parametrize("late", [False, True])
def test_a_closure_that_clears_what_its_backward_has_left(late: bool) -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)

    def body(_: int, x: Tensor, y: Tensor) -> None:
        def closure() -> Tensor:
            loss = measure_loss(model, x, y)
            loss.backward()
            if not late:
                optimizer.zero_grad()
            return loss

        optimizer.step(closure)
        optimizer.zero_grad()

    expected = [] if late else [("mishandled", "cleared", ("0", "2"))]
    assert list_causes(watch_loop(model, optimizer, body)) == expected


@pytest.mark.parametrize("unscales", [False, True])
@pytest.mark.parametrize("make", [SGD, torch.optim.Adam])
def test_clipping_of_scaled_gradients(unscales: bool, make: Any) -> None:
    """Adam makes up for it: then it is a note."""
    model = make_net()
    optimizer = make(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu")

    def body(_: int, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        scaler.scale(measure_loss(model, x, y)).backward()
        if unscales:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.2)
        scaler.step(optimizer)
        scaler.update()

    report = watch_loop(model, optimizer, body)
    is_wrong = not unscales and make is SGD
    assert list_causes(report) == ([("mishandled", "not_unscaled", ("0", "2"))] if is_wrong else [])
    said = [note.cause for note in report.notes]
    assert said == ([] if unscales or is_wrong else ["not_unscaled"])


def test_sparse_gradients_are_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 8, sparse=True), nn.Flatten(), nn.Linear(16, 4))
    optimizer = SGD(model.parameters(), lr=0.1)

    def body(_: int, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.stack((y, y + 4), 1)), y).backward()
        optimizer.step()

    assert watch_loop(model, optimizer, body).status == "healthy"
