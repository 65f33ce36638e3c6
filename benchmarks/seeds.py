"""Clear healthy and clear unhealthy networks over seeds and optimizers: does any verdict flip?

python -m benchmarks.seeds            prints a row for each network and optimizer
python -m benchmarks.seeds --save     and keeps the table in benchmarks/results/seeds.md
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gradwatch
from gradwatch.report import Report

RESULTS = Path(__file__).parent / "results" / "seeds.md"
SEEDS = 20
STEPS = 120

HEAD = f"""\
% Made by `python -m benchmarks.seeds --save`; change the benchmark, not this table.

{{flips}} of {{runs}} verdicts flip: {SEEDS} seeds of weights and data, {STEPS} steps each, the
default schedule and thresholds.

| Network | Optimizer | Expected | Healthy | Unhealthy | Not judged | Findings |
|---|---|---|---|---|---|---|
"""

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Optimizer] = {
    "SGD 0.05, momentum 0.9": lambda params: torch.optim.SGD(params, 0.05, 0.9),
    "Adam 1e-3": lambda params: torch.optim.Adam(params, 1e-3),
    "RMSprop 1e-3": lambda params: torch.optim.RMSprop(params, 1e-3),
}


def build_chain(activation: type[nn.Module], depth: int, std: float = 0.0) -> nn.Sequential:
    """Linear layers of 32 units; He's initialisation unless a standard deviation is given."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(32, 32)
        if std:
            nn.init.normal_(linear.weight, std=std)
        else:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, activation()]
    return nn.Sequential(*layers, nn.Linear(32, 4))


class Residual(nn.Module):
    """Eight blocks with a norm in front and a skip around each."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32))
            for _ in range(8)
        )
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def build_convolutional() -> nn.Sequential:
    """Batch normalisation behind each of four convolutions over the 32 features."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 32))]
    for inputs in (1, 16, 16, 16):
        layers += [nn.Conv1d(inputs, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 32, 4))


def build_dead() -> nn.Sequential:
    """The third of five rectifiers never fires."""
    model = build_chain(nn.ReLU, 5)
    nn.init.constant_(model[4].bias, -100.0)
    return model


HEALTHY: dict[str, Callable[[], nn.Module]] = {
    "ReLU, 6 layers, He": lambda: build_chain(nn.ReLU, 6),
    "residual, 8 blocks": Residual,
    "convolutions with BatchNorm": build_convolutional,
}
UNHEALTHY: dict[str, Callable[[], nn.Module]] = {
    "sigmoid, 16 layers": lambda: build_chain(nn.Sigmoid, 16, std=32**-0.5),
    "tanh, 16 layers, weights of 1e-2": lambda: build_chain(nn.Tanh, 16, std=1e-2),
    "a dead rectifier": build_dead,
}


def train(build: Callable[[], nn.Module], optimizer: Optimizer, seed: int) -> Report:
    """One training under watch."""
    torch.manual_seed(seed)
    model, target = build(), torch.randn(32, 4)
    stepping = optimizer(model.parameters())
    with gradwatch.watch(model, stepping, log_findings=False) as watch:
        for _ in range(STEPS):
            x = torch.randn(64, 32)
            stepping.zero_grad()
            cross_entropy(model(x), (x @ target).argmax(1)).backward()
            stepping.step()
    return watch.report()


def run_all() -> tuple[list[str], int, int]:
    """A row for each network and optimizer, the number of flips, and of runs."""
    rows, flips, runs = [], 0, 0
    for expected, networks in (("healthy", HEALTHY), ("unhealthy", UNHEALTHY)):
        for network, build in networks.items():
            for name, optimizer in OPTIMIZERS.items():
                reports = [train(build, optimizer, seed) for seed in range(SEEDS)]
                counts = Counter(report.status for report in reports)
                kinds = Counter(finding.kind for report in reports for finding in report.findings)
                found = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
                numbers = [counts[status] for status in ("healthy", "unhealthy", "not_judged")]
                cells = [network, name, expected, *map(str, numbers), found]
                rows.append(f"| {' | '.join(cells)} |")
                flips += SEEDS - counts[expected]
                runs += SEEDS
                print(rows[-1], flush=True)
    return rows, flips, runs


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, flips, runs = run_all()
    text = HEAD.format(flips=flips, runs=runs) + "\n".join(rows) + "\n"
    print(text.splitlines()[2])
    if options.save:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
