"""Runs in which a NaN or an infinity appears, in forward or only in backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import adam, sgd, supervised

mse = nn.functional.mse_loss


def log_of_zero(fixed: bool = False) -> Training:
    """-log(p) of a ReLU output: p is exactly zero for some rows at once."""
    torch.manual_seed(0)
    model = models.initialise(models.mlp([64, 48, 10]), models.he)
    tiny = 1e-3 if fixed else 0.0

    def loss_fn(score: Tensor, y: Tensor) -> Tensor:
        positive = torch.relu(score) + tiny
        share = positive / positive.sum(1, keepdim=True)
        return -torch.log(share.gather(1, y[:, None])).mean()

    return supervised(model, sgd(model, 0.01), data.digits(), loss_fn, steps=80)


class Distance(nn.Module):
    """Two embeddings and the Euclidean distance between them; equal inputs give sqrt(0)."""

    def __init__(self, tiny: float) -> None:
        super().__init__()
        self.embed = models.mlp([16, 32, 8])
        self.tiny = tiny

    def forward(self, pair: Tensor) -> Tensor:
        a, b = self.embed(pair[:, 0]), self.embed(pair[:, 1])
        return ((a - b).pow(2).sum(1) + self.tiny).sqrt()


def sqrt_at_zero(fixed: bool = False) -> Training:
    """Forward is finite; the slope of sqrt at 0 is not. Equal pairs come from step 12 on."""
    torch.manual_seed(1)
    x, _ = data.regression()
    pairs = torch.stack([x, x.roll(1, 0)], 1)
    target = (x[:, 0] - x.roll(1, 0)[:, 0]).abs()
    model = Distance(1e-6 if fixed else 0.0)
    optimizer = sgd(model, 0.03)

    def run() -> list[float]:
        losses = []
        for step, (pair, y) in enumerate(data.batches(pairs, target, 64, 150)):
            if step >= 12:
                pair = pair.clone()
                pair[0, 1], y = pair[0, 0], y * (torch.arange(64) > 0)
            optimizer.zero_grad()
            loss = mse(model(pair), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


class UnitNorm(nn.Module):
    """Rows divided by their norm; an all-zero row after ReLU divides by zero."""

    def __init__(self, tiny: float) -> None:
        super().__init__()
        self.tiny = tiny

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.norm(dim=1, keepdim=True) + self.tiny)


def division_by_zero(fixed: bool = False) -> Training:
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Linear(64, 4), nn.ReLU(), UnitNorm(1e-3 if fixed else 0.0), nn.Linear(4, 10)
    )
    return supervised(model, sgd(model, 0.5), data.digits(), steps=200)


class Counts(nn.Module):
    """A Poisson rate through exp, without any bound."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.body = models.mlp([16, 32, 32, 1])
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(self.body(x).clamp(max=self.bound))


def exp_overflow(fixed: bool = False) -> Training:
    """At step 20 one row arrives unscaled: exp of its output is infinite."""
    torch.manual_seed(3)
    x, y = data.regression()
    model = Counts(3.0 if fixed else float("inf"))
    rate = torch.poisson(torch.exp(y), generator=torch.Generator().manual_seed(3))
    optimizer = sgd(model, 0.02)

    def run() -> list[float]:
        losses = []
        for step, (a, count) in enumerate(data.batches(x, rate, 64, 150)):
            if step == 20:
                a = a.clone()
                a[:3] *= 1e5
            optimizer.zero_grad()
            predicted = model(a)
            loss = (predicted - count * torch.log(predicted + 1e-8)).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


def nan_in_data(fixed: bool = False) -> Training:
    """A missing value arrives in the batch of step 30 and poisons every weight."""
    torch.manual_seed(4)
    model = models.mlp([64, 48, 32, 10], nn.GELU, norm=nn.LayerNorm)
    optimizer = adam(model, 2e-3)

    def run() -> list[float]:
        losses = []
        for step, (x, y) in enumerate(data.batches(*data.digits(), 64, 80)):
            x = x.clone()
            if step == 30 and not fixed:
                x[5, 17] = float("nan")
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


class MaskedAttention(nn.Module):
    """One attention layer; a row whose keys are all masked gives softmax of -inf only."""

    def __init__(self, fill: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 16)
        self.attention = nn.Linear(16, 16)
        self.output = nn.Linear(16, 32)
        self.fill = fill

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        score = self.attention(x) @ x.transpose(1, 2) / 4.0
        padded = (ids == 0)[:, None, :].expand_as(score)
        weights = score.masked_fill(padded, self.fill).softmax(-1)
        return self.output((weights @ x).mean(1))


def masked_softmax(fixed: bool = False) -> Training:
    """From step 25 some sequences are empty: nothing but padding."""
    torch.manual_seed(5)
    model = MaskedAttention(-1e4 if fixed else float("-inf"))
    optimizer = adam(model, 0.02)
    ids = data.tokens()

    def run() -> list[float]:
        losses = []
        for step, (x, _) in enumerate(data.batches(ids, ids, 32, 100)):
            context, y = x[:, 13:-1].clone(), x[:, -1]
            if step >= 25:
                context[0] = 0
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(context), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


def half_overflow(fixed: bool = False) -> Training:
    """Activations beyond 65504 do not fit float16: raw sums of squares overflow at once."""
    torch.manual_seed(6)
    model = SquareFeatures(torch.float32 if fixed else torch.float16)
    x, y = data.raw_digits()
    return supervised(model, adam(model, 1e-3), (x, y), steps=80, batch_size=32)


class SquareFeatures(nn.Module):
    """Energy features computed in a lower precision, normalised afterwards."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.proj = nn.Linear(64, 32)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        energy = self.proj(x).to(self.dtype).pow(2)
        return self.head(self.norm(energy.float()))


def float16_step(fixed: bool = False) -> Training:
    """All in float16: Adam's eps of 1e-8 is 0 there, and so is the square of a small gradient."""
    torch.manual_seed(8)
    layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).half()
    optimizer = adam(layers, 1e-3, eps=1e-4 if fixed else 1e-8)
    x, y = data.digits()
    return supervised(layers, optimizer, (x.half(), y), steps=80, batch_size=32)


def divergence_to_nan(fixed: bool = False) -> Training:
    """Momentum and a rate of 3 overflow float32 within a few steps."""
    torch.manual_seed(7)
    model = models.ListMlp([16, 32, 32, 1], torch.relu)
    optimizer = sgd(model, 0.01 if fixed else 3.0, momentum=0.9)
    return supervised(model, optimizer, data.regression(), mse, steps=80)


def _case(
    name: str,
    build: Callable[..., Training],
    region: tuple[str, ...],
    why: str,
    cause: str | None = None,
    since: int = 0,
    also_allowed: tuple[str, ...] = ("exploding",),
) -> Case:
    return Case(
        name, build, ("nonfinite",), also_allowed, cause, region, since, why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _case("log_of_zero_loss", log_of_zero, ("*",), "the loss itself is log(0)"),
    _case("sqrt_slope_at_zero", sqrt_at_zero, ("embed", "embed.*"),
          "the backward pass of sqrt at 0 is infinite", since=12),
    _case("division_by_zero_norm", division_by_zero, ("*",), "a row of zeros divided by its norm"),
    _case("exp_overflow_poisson", exp_overflow, ("*",), "exp overflows float32", since=20),
    _case("nan_in_batch_30", nan_in_data, ("*",), "a NaN in the data", since=30),
    _case("fully_masked_softmax", masked_softmax, ("*",), "softmax over -inf only", since=25),
    _case("float16_square_overflow", half_overflow, ("*",), "float16 ends at 65504", "precision"),
    _case("float16_adam_eps", float16_step, ("*",), "0 / 0 in the first step of Adam", "precision"),
    _case("momentum_rate_3", divergence_to_nan, ("*",), "the loss overflows", "learning_rate"),
)  # fmt: skip
