"""Small data sets, an ordinary training loop and the `healthy` label for healthy runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, Training

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Any, Any], Tensor]


def healthy(cases: list[Case], why: str, seed: int = 0) -> Callable[..., Callable[[], Training]]:
    """Append the decorated factory to `cases`, under its own name and seeded, as a healthy run."""

    def label(factory: Callable[[], Training]) -> Callable[[], Training]:
        def build() -> Training:
            torch.manual_seed(seed)
            return factory()

        cases.append(Case(name=factory.__name__, build=build, why=why))
        return build

    return label


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    loss_fn: Loss,
    steps: int = 100,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    clip_norm: float | None = None,
) -> Training:
    """The loop of any tutorial: zero_grad, forward, backward, (clip,) step, (schedule)."""

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(batches), steps):
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


def split(x: Tensor, y: Tensor, batch_size: int) -> list[Batch]:
    return list(zip(x.split(batch_size), y.split(batch_size), strict=True))


def spirals(
    samples: int = 256, arms: int = 2, turns: float = 1.0, batch_size: int = 64
) -> list[Batch]:
    """Interleaved 2-D spirals: not separable without learned features."""
    source = torch.Generator().manual_seed(1)
    label = torch.arange(samples) % arms
    radius = torch.rand(samples, generator=source).sqrt() * 2 + 0.1
    angle = radius * math.pi * turns + label * (2 * math.pi / arms)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    points = points + 0.05 * torch.randn(samples, 2, generator=source)
    return split(points / points.std(), label, batch_size)


def blobs(
    samples: int = 256,
    features: int = 16,
    classes: int = 4,
    spread: float = 1.0,
    batch_size: int = 64,
) -> list[Batch]:
    """Gaussian clouds around random centres: easy classification."""
    source = torch.Generator().manual_seed(2)
    centres = 1.5 * torch.randn(classes, features, generator=source)
    label = torch.randint(classes, (samples,), generator=source)
    noise = spread * torch.randn(samples, features, generator=source)
    return split(centres[label] + noise, label, batch_size)


def waves(
    samples: int = 256, features: int = 4, outputs: int = 1, batch_size: int = 64
) -> list[Batch]:
    """Regression on sums of sines along random directions; targets have unit variance."""
    source = torch.Generator().manual_seed(3)
    x = torch.randn(samples, features, generator=source)
    directions = torch.randn(features, 3 * outputs, generator=source)
    y = torch.sin(x @ directions).view(samples, outputs, 3).sum(-1)
    return split(x, (y - y.mean(0)) / y.std(0), batch_size)


def glyphs(
    samples: int = 256, size: int = 8, classes: int = 10, noise: float = 0.3, batch_size: int = 64
) -> list[Batch]:
    """One-channel images: a random binary glyph per class, shifted by up to a pixel, with noise."""
    source = torch.Generator().manual_seed(4)
    prototypes = (torch.rand(classes, 1, size, size, generator=source) > 0.5).float()
    label = torch.randint(classes, (samples,), generator=source)
    shifts = torch.randint(-1, 2, (samples, 2), generator=source).tolist()
    pairs = zip(label.tolist(), shifts, strict=True)
    images = torch.stack([prototypes[k].roll((dy, dx), (1, 2)) for k, (dy, dx) in pairs])
    images = images + noise * torch.randn(images.shape, generator=source)
    return split((images - 0.5) * 2, label, batch_size)


def markov(
    samples: int = 128, length: int = 16, vocabulary: int = 16, batch_size: int = 32
) -> list[Batch]:
    """Token sequences from a sparse Markov chain; the target is the next token."""
    source = torch.Generator().manual_seed(5)
    successors = torch.randint(vocabulary, (vocabulary, 2), generator=source)
    token = torch.randint(vocabulary, (samples,), generator=source)
    walk = [token]
    for _ in range(length):
        choice = (torch.rand(samples, generator=source) < 0.15).long()
        walk.append(successors[walk[-1], choice])
    tokens = torch.stack(walk, dim=1)
    return split(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), batch_size)


def tally(
    samples: int = 256,
    length: int = 12,
    features: int = 3,
    at_end: bool = False,
    batch_size: int = 64,
) -> list[Batch]:
    """Real sequences whose label is the sign of a sum: over all steps, or over the last three."""
    source = torch.Generator().manual_seed(6)
    x = torch.randn(samples, length, features, generator=source)
    part = x[:, -3:] if at_end else x
    return split(x, (part.sum(dim=(1, 2)) > 0).long(), batch_size)


def token_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy over (batch, time, vocabulary) logits."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
