"""A small CNN with BatchNorm, dropout and in-place ReLU: healthy, and reported so.

python examples/cnn.py [--logdir runs/cnn]
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradwatch


def load_data() -> DataLoader:
    bunch = load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    return DataLoader(TensorDataset(x, torch.tensor(bunch.target)), batch_size=64, shuffle=True)


def build_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def build_model() -> nn.Sequential:
    return nn.Sequential(
        build_block(1, 16),
        build_block(16, 32),
        nn.MaxPool2d(2),
        build_block(32, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64, 10),
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--logdir", default="runs/cnn")
    chosen = options.parse_args()

    torch.manual_seed(0)
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss_fn = nn.CrossEntropyLoss()

    with gradwatch.watch(model, optimizer, logdir=chosen.logdir, every_n_steps=10) as watch:
        for epoch in range(3):
            for x, y in load_data():
                loss = loss_fn(model(x), y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            print(f"epoch {epoch}: loss {loss.item():.3f}, healthy: {watch.report().healthy}")
    print(watch.report())


if __name__ == "__main__":
    main()
