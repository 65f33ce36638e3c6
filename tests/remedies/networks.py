"""Small networks and batches on which remedies are tried."""

from __future__ import annotations

import torch
from torch import nn

from gradwatch.verdict.trials import Trial

DEPTH, WIDTH, N_CLASSES = 12, 64, 10


def make_chain(activation: type[nn.Module], depth: int = DEPTH, width: int = WIDTH) -> nn.Module:
    """``fc1, act1, ..., fc12``, as in the demo."""
    network = nn.Sequential()
    for place in range(1, depth + 1):
        network.add_module(f"fc{place}", nn.Linear(width, N_CLASSES if place == depth else width))
        if place < depth:
            network.add_module(f"act{place}", activation())
    return network


def make_batches(width: int = WIDTH, count: int = 10) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Blobs around one centre per class: something that can be learnt in a few steps."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(N_CLASSES, width, generator=generator)
    batches = []
    for _ in range(count):
        labels = torch.randint(0, N_CLASSES, (64,), generator=generator)
        noise = torch.randn(64, width, generator=generator)
        batches.append(((centres[labels] + 0.3 * noise), labels))
    return batches


def find_trial(trials: list[Trial], name: str) -> Trial:
    """The trial of that name."""
    return next(trial for trial in trials if trial.name == name)
