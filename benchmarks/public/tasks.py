"""Data that a small model learns within a hundred steps; each function answers with ``draw``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.public.recipe import Batch
from tests.zoo.data import digit_images, moons

Draw = Callable[[int], Batch]

VOCABULARY = 32
PAD = 0


def _seed(step: int) -> torch.Generator:
    return torch.Generator().manual_seed(step)


def draw_digits(size: int = 32, channels: int = 3, batch: int = 16) -> Draw:
    """Handwritten digits: images ``(batch, channels, size, size)`` and labels 0..9."""
    images, labels = digit_images()

    def draw(step: int) -> Batch:
        chosen = torch.randint(len(labels), (batch,), generator=_seed(step))
        small = images[chosen].expand(-1, channels, -1, -1)
        return F.interpolate(small, size=(size, size), mode="bilinear"), labels[chosen]

    return draw


def draw_masks(size: int = 32, batch: int = 8) -> Draw:
    """Digits, and where their ink is ``(batch, 1, size, size)``."""
    inner = draw_digits(size, batch=batch)

    def draw(step: int) -> Batch:
        images, _ = inner(step)
        return images, (images[:, :1] > 0).float()

    return draw


def draw_tokens(length: int = 24, batch: int = 16) -> Draw:
    """Sequences in which each token follows from the one before: ``(batch, length)``."""

    def draw(step: int) -> Batch:
        start = torch.randint(1, VOCABULARY, (batch, 1), generator=_seed(step))
        places = torch.arange(length)
        return (1 + (start + 3 * places) % (VOCABULARY - 1),)

    return draw


def draw_labelled_tokens(length: int = 24, batch: int = 16) -> Draw:
    """Random tokens, and whether more of them are in the upper half of the vocabulary."""

    def draw(step: int) -> Batch:
        generator = _seed(step)
        labels = torch.randint(2, (batch,), generator=generator)
        low = torch.randint(1, VOCABULARY, (batch, length), generator=generator)
        half = VOCABULARY // 2
        shifted = half + low % half
        is_shifted = torch.rand(batch, length, generator=generator) < 0.6 * labels[:, None]
        return torch.where(is_shifted, shifted, low), labels

    return draw


def draw_waves(length: int = 48, batch: int = 16, features: int = 1) -> Draw:
    """Sine waves of random frequency and phase: ``(batch, length, features)``."""

    def draw(step: int) -> Batch:
        generator = _seed(step)
        speed = 0.1 + 0.3 * torch.rand(batch, 1, features, generator=generator)
        phase = 2 * math.pi * torch.rand(batch, 1, features, generator=generator)
        return (torch.sin(speed * torch.arange(length)[None, :, None] + phase),)

    return draw


def draw_sounds(length: int = 1600, batch: int = 8, classes: int = 4) -> Draw:
    """Tones in noise ``(batch, length)`` and which of some pitches they have."""

    def draw(step: int) -> Batch:
        generator = _seed(step)
        labels = torch.randint(classes, (batch,), generator=generator)
        time = torch.arange(length) / 16000
        tones = torch.sin(2 * math.pi * (300.0 * 2.0 ** labels[:, None]) * time)
        return tones + 0.1 * torch.randn(batch, length, generator=generator), labels

    return draw


def draw_moons(batch: int = 128) -> Draw:
    """Points of two moons ``(batch, 2)`` and which moon ``(batch, 1)``."""
    points, labels = moons()

    def draw(step: int) -> Batch:
        chosen = torch.randint(len(points), (batch,), generator=_seed(step))
        return points[chosen], labels[chosen]

    return draw


def mix_noise(clean: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Diffusion's training pair: noisy values, times 0..999 and the noise."""
    generator = _seed(step)
    noise = torch.randn(clean.shape, generator=generator)
    times = torch.randint(1000, (len(clean),), generator=generator)
    kept = torch.cos(times / 1000 * math.pi / 2).view(-1, *[1] * (clean.dim() - 1))
    return kept * clean + (1 - kept**2).sqrt() * noise, times, noise
