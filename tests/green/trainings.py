"""Honest trainings of every kind: healthy, and nothing left unjudged."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import gradwatch
from tests.green.program import STEPS, Family, build, classify, draw, fit, sgd, train

ORDINARY = Family("Ordinary trainings")


@ORDINARY.is_honest
def rare_words(logdir: Path) -> gradwatch.Watch:
    """An embedding most of whose rows are never used, and a bias before BatchNorm."""
    model = nn.Sequential(
        nn.Embedding(500, 8), nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)
    )

    def find_loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        words = torch.randint(0, 20, (64,), generator=generator)
        return cross_entropy(model(words), words % 4)

    return fit(logdir, model, sgd(model), find_loss)


@ORDINARY.is_honest
def accumulated_and_clipped(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(STEPS):
            for part in range(2):
                (classify(model)(2 * step + part) / 2).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
    return watch


@ORDINARY.is_honest
def half_precision(logdir: Path) -> gradwatch.Watch:
    model = build()

    def find_loss(step: int) -> Tensor:
        x, y = draw(step)
        with torch.autocast("cpu", torch.bfloat16):
            return cross_entropy(model(x), y)

    return fit(logdir, model, sgd(model), find_loss)


class Heads(nn.Module):
    """A head for every step, one for some steps, and one that nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.always, self.rare, self.never = (nn.Linear(16, 4) for _ in range(3))

    def forward(self, x: Tensor, is_rare: bool) -> Tensor:
        hidden = self.body(x)
        return self.rare(hidden) + self.always(hidden) if is_rare else self.always(hidden)


@ORDINARY.is_honest
def a_rare_head_and_one_that_nothing_calls(logdir: Path) -> gradwatch.Watch:
    model = Heads()

    def find_loss(step: int) -> Tensor:
        x, y = draw(step)
        return cross_entropy(model(x, step == 5), y)

    return fit(logdir, model, sgd(model), find_loss)


@ORDINARY.is_honest
def two_players_with_an_optimizer_each(logdir: Path) -> gradwatch.Watch:
    model = nn.ModuleDict({"g": build(), "d": nn.Sequential(nn.Linear(4, 16), nn.ReLU())})
    model["d"].append(nn.Linear(16, 1))
    optimizers = [torch.optim.Adam(player.parameters(), 1e-3) for player in model.values()]
    ones, zeros = torch.ones(32, 1), torch.zeros(32, 1)
    with gradwatch.watch(model, optimizers, logdir=logdir) as watch:
        for step in range(STEPS):
            x, _ = draw(step)
            fake, real = model["g"](x), x[:, :4].sigmoid()
            optimizers[1].zero_grad()
            of_real = binary_cross_entropy_with_logits(model["d"](real), ones)
            of_fake = binary_cross_entropy_with_logits(model["d"](fake.detach()), zeros)
            (of_real + of_fake).backward()
            optimizers[1].step()
            optimizers[0].zero_grad()
            binary_cross_entropy_with_logits(model["d"](fake), ones).backward()
            optimizers[0].step()
    return watch


@ORDINARY.is_honest
def a_gradient_scaler(logdir: Path) -> gradwatch.Watch:
    """Its first steps overflow, and are left out."""
    model = build()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(STEPS):
            optimizer.zero_grad()
            x, y = draw(step)
            loss = cross_entropy(model(x), y) * (float("inf") if step < 2 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    return watch


@ORDINARY.is_honest
def lbfgs(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(20):

            def closure(step: int = step) -> Tensor:
                optimizer.zero_grad()
                loss = classify(model)(step)
                loss.backward()
                return loss

            optimizer.step(closure)  # type: ignore[arg-type]
    return watch


class Tied(nn.Module):
    """An embedding that is the output layer as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden = nn.Embedding(20, 8), nn.Linear(8, 8)
        self.output = nn.Linear(8, 20, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.output(torch.relu(self.hidden(self.embedding(words))))


@ORDINARY.is_honest
def tied_weights(logdir: Path) -> gradwatch.Watch:
    model = Tied()

    def find_loss(step: int) -> Tensor:
        words = torch.randint(0, 20, (64,), generator=torch.Generator().manual_seed(step))
        return cross_entropy(model(words), (words + 1) % 20)

    return fit(logdir, model, sgd(model), find_loss)


@ORDINARY.is_honest
def a_moving_average_inside_the_model(logdir: Path) -> gradwatch.Watch:
    """A teacher that follows the student, and that no gradient moves."""
    model = nn.ModuleDict({"student": build()})
    model["teacher"] = copy.deepcopy(model["student"]).requires_grad_(False)
    optimizer = sgd(model["student"])
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(STEPS):
            x, y = draw(step)
            with torch.no_grad():
                target = model["teacher"](x).softmax(1)
            optimizer.zero_grad()
            output = model["student"](x)
            (cross_entropy(output, y) + 0.1 * cross_entropy(output, target)).backward()
            optimizer.step()
            with torch.no_grad():
                pairs = zip(
                    model["teacher"].parameters(), model["student"].parameters(), strict=True
                )
                for mean, weight in pairs:
                    mean.lerp_(weight, 0.01)
    return watch


@ORDINARY.is_honest
def a_frozen_backbone(logdir: Path) -> gradwatch.Watch:
    """Frozen, in eval mode and without a gradient: all of it is in the optimizer's hands."""
    model = nn.Sequential(build(), nn.Linear(4, 4))
    model[0].requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    return fit(logdir, model, optimizer, classify(model))


@ORDINARY.is_honest
def a_learning_rate_that_warms_up_and_decays(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer = sgd(model, 0.5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=STEPS)
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(STEPS):
            train(optimizer, classify(model), 1, step)
            schedule.step()
    return watch
