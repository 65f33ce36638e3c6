"""A smoke training, whose log the pipeline judges: python train.py --logdir runs/smoke."""

from __future__ import annotations

import argparse

import torch
from network import build_model, make_batches
from torch import nn

import gradwatch

STEPS = 60


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--logdir", default="runs/smoke")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()

    torch.manual_seed(chosen.seed)
    model, batches, loss_fn = build_model(), make_batches(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with gradwatch.watch(model, optimizer, logdir=chosen.logdir, every_n_steps=10):
        for step in range(STEPS):
            x, y = batches[step % len(batches)]
            optimizer.zero_grad()
            loss_fn(model(x), y).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
