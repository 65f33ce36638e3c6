"""How often ``gradwatch.check`` changes its mind with the seed: ``python -m benchmarks.flips``.

Twelve models, six of them clear and six at the edge, are each checked with 20 seeds (of the
initialisation and of the data) without a vote and with a vote of three. A seed's vote is taken
over its own initialisations, 3 x seed to 3 x seed + 2: those of ``seeds=3``, which are always 0, 1
and 2, would leave only the data to differ.

``--save`` writes the stored results and the table in docs/ci.md.
"""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

import gradwatch
from benchmarks.results import fill_between
from gradwatch.report import Report
from gradwatch.seed_vote import merge_reports

RESULTS = Path(__file__).parent / "results" / "flips.json"
PAGE = Path(__file__).parents[1] / "docs" / "ci.md"
BEGIN, END = "<!-- flips: written by python -m benchmarks.flips --save -->", "<!-- end -->"

SEEDS, VOTERS = 20, 3
WIDTH, CLASSES = 32, 4


@dataclass(frozen=True)
class Model:
    """One row of the table.

    Attributes:
        name: in words.
        build: makes it, with the random numbers of the seed.
        optimizer: of its parameters.
        label: ``"green"`` or ``"red"`` for a clear one; ``""`` at the edge.
    """

    name: str
    build: Callable[[], nn.Module]
    optimizer: Callable[..., Optimizer]
    label: str = ""


@dataclass(frozen=True)
class Row:
    """What came of a model.

    Attributes:
        name, label: as in ``Model``.
        red: of ``SEEDS`` without a vote.
        red_by_vote: of ``SEEDS`` with one.
        kinds: of the findings without a vote.
    """

    name: str
    label: str
    red: int
    red_by_vote: int
    kinds: tuple[str, ...]

    def count_flips(self, red: int) -> int:
        """Seeds against the label; at the edge, against what most seeds say."""
        if self.label:
            return SEEDS - red if self.label == "red" else red
        return min(red, SEEDS - red)


def build_chain(activation: Callable[[], nn.Module], depth: int, init: str = "") -> nn.Module:
    """Linear layers with activations between; torch's own initialisation unless one is named."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, depth):
        layers[f"fc{number}"] = nn.Linear(WIDTH, WIDTH)
        if init == "norm":
            layers[f"norm{number}"] = nn.BatchNorm1d(WIDTH)
        layers[f"act{number}"] = activation()
    layers["head"] = nn.Linear(WIDTH, CLASSES)
    model = nn.Sequential(layers)
    if init == "he":
        for linear in (layer for layer in model if isinstance(layer, nn.Linear)):
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
    return model


class Residual(nn.Module):
    """Blocks around which the signal has a way."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(build_block() for _ in range(6))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.head(x)
        return out


def build_block() -> nn.Module:
    """LayerNorm, two linear layers and a GELU between them."""
    return nn.Sequential(
        nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)
    )


def build_silent() -> nn.Module:
    """A chain whose second layer's bias silences all of its units."""
    model = build_chain(nn.ReLU, 4, "he")
    nn.init.constant_(model.get_submodule("fc2").bias, -12.0)  # type: ignore[arg-type]
    return model


class Detached(nn.Module):
    """An encoder that the loss does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = build_chain(nn.ReLU, 3, "he")
        self.head = nn.Linear(CLASSES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(x).detach())
        return out


def sgd(rate: float) -> Callable[..., Optimizer]:
    """SGD with this learning rate."""
    return lambda params: SGD(params, lr=rate)


def adam(rate: float) -> Callable[..., Optimizer]:
    """Adam with this learning rate."""
    return lambda params: Adam(params, lr=rate)


MODELS = (
    Model("4 layers, ReLU, He; SGD", lambda: build_chain(nn.ReLU, 4, "he"), sgd(0.02), "green"),
    Model(
        "10 layers, ReLU, BatchNorm; Adam",
        lambda: build_chain(nn.ReLU, 10, "norm"),
        adam(1e-3),
        "green",
    ),
    Model("6 residual blocks, GELU; Adam", Residual, adam(1e-3), "green"),
    Model("10 layers, Sigmoid; SGD", lambda: build_chain(nn.Sigmoid, 10), sgd(0.1), "red"),
    Model("4 layers, ReLU, a bias of -12; SGD", build_silent, sgd(0.02), "red"),
    Model("encoder behind detach(); Adam", Detached, adam(1e-3), "red"),
    Model("10 layers, ReLU, torch's init; Adam", lambda: build_chain(nn.ReLU, 10), adam(1e-3)),
    Model("10 layers, ReLU, torch's init; SGD", lambda: build_chain(nn.ReLU, 10), sgd(0.01)),
    Model("10 layers, Tanh, torch's init; SGD", lambda: build_chain(nn.Tanh, 10), sgd(0.05)),
    Model("5 layers, Sigmoid; SGD", lambda: build_chain(nn.Sigmoid, 5), sgd(0.1)),
    Model("5 layers, Sigmoid; Adam", lambda: build_chain(nn.Sigmoid, 5), adam(1e-3)),
    Model("12 layers, SiLU, torch's init; Adam", lambda: build_chain(nn.SiLU, 12), adam(1e-3)),
)


def make_batches(seed: int, count: int = 8, size: int = 64) -> list[tuple[Tensor, Tensor]]:
    """Points around one centre for each class; the seed draws the centres as well."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, WIDTH, generator=generator)
    batches = []
    for _ in range(count):
        y = torch.randint(CLASSES, (size,), generator=generator)
        batches.append((centres[y] + 0.5 * torch.randn(size, WIDTH, generator=generator), y))
    return batches


def judge(model: Model, seed: int, data_seed: int) -> Report:
    """One check."""
    torch.manual_seed(seed)
    return gradwatch.check(
        model.build, make_batches(data_seed), nn.CrossEntropyLoss(), model.optimizer
    )


def measure(model: Model) -> Row:
    """All seeds of one model, without a vote and with one."""
    single = [judge(model, seed, seed) for seed in range(SEEDS)]
    votes = [
        merge_reports([judge(model, VOTERS * seed + voter, seed) for voter in range(VOTERS)])
        for seed in range(SEEDS)
    ]
    kinds = sorted({finding.kind for report in single for finding in report.findings})
    counts = [sum(not report.healthy for report in reports) for reports in (single, votes)]
    return Row(model.name, model.label, *counts, tuple(kinds))


def read_rows() -> list[Row]:
    """The stored results."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    return [Row(**{**row, "kinds": tuple(row["kinds"])}) for row in content]


def write_table(rows: Sequence[Row]) -> str:
    """The table of docs/ci.md."""
    return "\n".join(_write_lines(rows))


def _write_lines(rows: Sequence[Row]) -> Iterator[str]:
    yield f"| Model | Should be | Red of {SEEDS} | Flips | Red by vote | Flips | Kinds |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        cells = (
            row.name,
            row.label or "at the edge",
            row.red,
            row.count_flips(row.red),
            row.red_by_vote,
            row.count_flips(row.red_by_vote),
            ", ".join(row.kinds) or "–",
        )
        yield "| " + " | ".join(map(str, cells)) + " |"


def fill_page(text: str, rows: Sequence[Row]) -> str:
    """The page with this table in its place."""
    return fill_between(text, BEGIN, END, write_table(rows))


def main() -> None:
    """Measure, print, and store what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flips")
    parser.add_argument("--save", action="store_true", help="write the results and docs/ci.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for model in MODELS:
        rows.append(measure(model))
        print(list(_write_lines(rows))[-1], flush=True)
    if options.save:
        content = json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False)
        RESULTS.write_text(content + "\n", encoding="utf-8")
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(fill_page(page, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
