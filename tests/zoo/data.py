"""Small cached data sets. All are float32 and int64 tensors, and none needs a download."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Handwritten digits: (1797, 64) features of mean 0 and variance about 1, and labels 0..9."""
    bunch = datasets.load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    return (x - x.mean()) / x.std(), torch.tensor(bunch.target)


@cache
def raw_digits() -> tuple[Tensor, Tensor]:
    """The same digits as grey values 0..255, the way an unnormalised loader hands them out."""
    bunch = datasets.load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    return x * (255.0 / 16.0), torch.tensor(bunch.target)


def digit_images() -> tuple[Tensor, Tensor]:
    """The digits as (1797, 1, 8, 8) images."""
    x, y = digits()
    return x.view(-1, 1, 8, 8), y


@cache
def moons(count: int = 512) -> tuple[Tensor, Tensor]:
    """Two moons: (count, 2) points and float labels (count, 1) for a BCE loss."""
    x, y = datasets.make_moons(count, noise=0.1, random_state=0)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None]


@cache
def spirals(count: int = 600) -> tuple[Tensor, Tensor]:
    """Three spiral arms: (count, 2) points within the unit disc and labels 0..2."""
    rng = np.random.default_rng(0)
    radius = np.sqrt(rng.uniform(0.02, 1.0, count))
    arm = np.arange(count) % 3
    angle = 4.0 * radius + arm * (2 * np.pi / 3) + rng.normal(0, 0.12, count)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return torch.tensor(points, dtype=torch.float32), torch.tensor(arm, dtype=torch.int64)


@cache
def regression(count: int = 512, features: int = 16) -> tuple[Tensor, Tensor]:
    """A smooth non-linear regression: x (count, features) normal, y (count, 1) of variance 1."""
    source = _generator(1)
    x = torch.randn(count, features, generator=source)
    mix = torch.randn(features, 4, generator=source) / features**0.5
    hidden = x @ mix
    y = torch.sin(2 * hidden[:, :1]) + hidden[:, 1:2] * hidden[:, 2:3] + hidden[:, 3:]
    return x, (y - y.mean()) / y.std()


@cache
def adding(length: int, count: int = 512) -> tuple[Tensor, Tensor]:
    """The adding problem: (count, length, 2) of values and two marks; y is the marked sum."""
    source = _generator(2)
    values = torch.rand(count, length, generator=source)
    marks = torch.zeros(count, length)
    rows = torch.arange(count)
    marks[rows, torch.randint(0, length // 2, (count,), generator=source)] = 1.0
    marks[rows, torch.randint(length // 2, length, (count,), generator=source)] = 1.0
    y = (values * marks).sum(1, keepdim=True)
    return torch.stack([values, marks], dim=2), y


@cache
def first_token(length: int, classes: int = 4, count: int = 512) -> tuple[Tensor, Tensor]:
    """Sequences whose class is shown (one-hot) in the first step only; noise follows.

    x (count, length, classes + 2), y (count,).
    """
    source = _generator(3)
    y = torch.randint(0, classes, (count,), generator=source)
    x = torch.zeros(count, length, classes + 2)
    x[:, 0, :classes] = torch.nn.functional.one_hot(y, classes).float()
    x[:, 1:, classes:] = 0.3 * torch.randn(count, length - 1, 2, generator=source)
    return x, y


@cache
def tokens(length: int = 16, vocabulary: int = 32, count: int = 512) -> Tensor:
    """Token sequences (count, length) of a noisy Markov chain: a next token can be learnt."""
    source = _generator(4)
    successor = torch.randperm(vocabulary, generator=source)
    sequence = torch.randint(0, vocabulary, (count, length), generator=source)
    for position in range(1, length):
        kept = torch.rand(count, generator=source) < 0.8
        sequence[kept, position] = successor[sequence[kept, position - 1]]
    return sequence


def batches(
    x: Tensor, y: Tensor, batch_size: int, steps: int, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` random mini-batches, the same ones for the same seed."""
    source = _generator(seed)
    for _ in range(steps):
        rows = torch.randint(0, x.shape[0], (batch_size,), generator=source)
        yield x[rows], y[rows]
