"""A deep sigmoid network on handwritten digits, in a loop of one's own.

    python examples/plain_loop.py [--logdir runs/plain_loop] [--activation sigmoid|relu]

The only lines that know gradwatch are the ``with`` and the last ``print``.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradwatch

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}


def load_data() -> DataLoader:
    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    x = (x - x.mean()) / x.std()
    return DataLoader(TensorDataset(x, torch.tensor(bunch.target)), batch_size=64, shuffle=True)


def build_model(activation: str, depth: int = 12, width: int = 64) -> nn.Sequential:
    layers: dict[str, nn.Module] = {}
    for number in range(1, depth):
        linear = nn.Linear(64 if number == 1 else width, width)
        if activation == "relu":
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
        layers[f"fc{number}"] = linear
        layers[f"act{number}"] = ACTIVATIONS[activation]()
    layers[f"fc{depth}"] = nn.Linear(width, 10)
    return nn.Sequential(OrderedDict(layers))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--logdir", default="runs/plain_loop")
    options.add_argument("--activation", choices=sorted(ACTIVATIONS), default="sigmoid")
    options.add_argument("--epochs", type=int, default=3)
    chosen = options.parse_args()

    torch.manual_seed(0)
    loader = load_data()
    model = build_model(chosen.activation)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loss_fn = nn.CrossEntropyLoss()

    with gradwatch.watch(model, optimizer, logdir=chosen.logdir, every_n_steps=10) as watch:
        for _ in range(chosen.epochs):
            for x, y in loader:
                loss = loss_fn(model(x), y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    print(watch.report())


if __name__ == "__main__":
    main()
