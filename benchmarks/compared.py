"""What ``gradwatch compare`` says of seeds and of changes: ``python -m benchmarks.compared``.

Five networks are trained five times each, with other seeds of weights and data: twenty pairs,
none of which may be red. Ten changes are planted, each of which lasts over the whole training, with
five seeds of its own against one run: all must be red and name first a layer from which the change
takes something.

``--save`` writes the stored results and the table in docs/ci.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW, Optimizer

import gradwatch
from benchmarks.results import fill_between
from gradwatch.gate.comparison import compare_logdirs

RESULTS = Path(__file__).parent / "results" / "compared.json"
PAGE = Path(__file__).parents[1] / "docs" / "ci.md"
BEGIN, END = "<!-- compared: written by python -m benchmarks.compared --save -->", "<!-- end -->"

STEPS, BATCH, WIDTH, CLASSES, LENGTH = 200, 64, 32, 4, 12
SEEDS = 5

Parameters = Iterable[nn.Parameter]


class Chain(nn.Module):
    """Linear layers with an activation behind each; the encoder's output may be cut off."""

    def __init__(self, activation: type[nn.Module], depth: int) -> None:
        super().__init__()
        layers = [part for _ in range(depth) for part in (nn.Linear(WIDTH, WIDTH), activation())]
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.encoder = nn.Sequential(*layers)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.is_cut = False

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encoder(x)
        return self.head(hidden.detach() if self.is_cut else hidden)


class Residual(nn.Module):
    """Six blocks with a norm in front and a skip around each; a branch may be weighed."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(6)
        )
        self.head = nn.Linear(WIDTH, CLASSES)
        self.scales = [1.0] * 6

    def forward(self, x: Tensor) -> Tensor:
        for block, scale in zip(self.blocks, self.scales, strict=True):
            x = x + scale * block(x)
        return self.head(x)


class Convolutional(nn.Module):
    """Three convolutions with batch normalisation over the features as a line."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(inputs, 16, 3, padding=1) for inputs in (1, 16, 16))
        self.norms = nn.ModuleList(nn.BatchNorm1d(16) for _ in range(3))
        self.head = nn.Linear(16 * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)).relu()
        return self.head(x.flatten(1))


class Recurrent(nn.Module):
    """An LSTM over the features as a sequence of rows; its input may be scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH // 4, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.input_scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        rows = x.unflatten(1, (4, WIDTH // 4)) * self.input_scale
        return self.head(self.lstm(rows)[0][:, -1])


class Attentive(nn.Module):
    """Two encoder layers of a transformer over the features as eight tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH // 8, WIDTH)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 2, 64, dropout=0.1, batch_first=True)
            for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.unflatten(1, (8, WIDTH // 8)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


@dataclass(frozen=True)
class Network:
    """A training without a change.

    Attributes:
        name: in words.
        build: makes the model, with the random numbers of the seed.
        optimize: makes the optimizer of its parameters.
    """

    name: str
    build: Callable[[], nn.Module]
    optimize: Callable[[Parameters], Optimizer]


NETWORKS = {
    "chain": Network("6 layers, ReLU; SGD", lambda: Chain(nn.ReLU, 6), lambda p: SGD(p, 0.05)),
    "residual": Network("6 residual blocks; Adam", Residual, lambda p: Adam(p, 1e-3)),
    "conv": Network("3 convolutions, BatchNorm; SGD", Convolutional, lambda p: SGD(p, 0.05, 0.9)),
    "lstm": Network("LSTM; Adam", Recurrent, lambda p: Adam(p, 3e-3)),
    "attention": Network("2 encoder layers; AdamW", Attentive, lambda p: AdamW(p, 1e-3)),
}


@dataclass(frozen=True)
class Change:
    """Something that went wrong between two commits.

    Attributes:
        name: in words.
        network: key of ``NETWORKS``.
        apply: does it to the model that was built.
        layers: patterns of the layers from which it takes something.
        left_out: pattern of parameters that the optimizer does not get; ``""`` for none.
    """

    name: str
    network: str
    apply: Callable[[nn.Module], object]
    layers: tuple[str, ...]
    left_out: str = ""


def _cut(model: nn.Module) -> None:
    model.is_cut = True


def _use_sigmoid(model: nn.Module) -> None:
    for place, layer in enumerate(model.encoder):
        if isinstance(layer, nn.ReLU):
            model.encoder[place] = nn.Sigmoid()


def _weaken_a_branch(model: nn.Module) -> None:
    model.scales[2] = 1e-4


def _scale_input(model: nn.Module) -> None:
    model.input_scale = 1e4


def _multiply(tensor: Tensor, factor: float) -> None:
    with torch.no_grad():
        tensor *= factor


def _shrink_encoder(model: nn.Module) -> None:
    for param in model.encoder.parameters():
        _multiply(param, 0.05)


def _sharpen_attention(model: nn.Module) -> None:
    _multiply(model.blocks[0].self_attn.in_proj_weight[: 2 * WIDTH], 100.0)


CHANGES = (
    Change("detach() behind the encoder", "chain", _cut, ("encoder.*",)),
    Change("Sigmoid for ReLU", "chain", _use_sigmoid, ("encoder.*",)),
    Change(
        "a bias of -100 in encoder.4",
        "chain",
        lambda m: nn.init.constant_(m.encoder[4].bias, -100.0),
        ("encoder.[0-5]",),
    ),
    Change("weights of the encoder times 0.05", "chain", _shrink_encoder, ("encoder.*",)),
    Change("a branch times 1e-4", "residual", _weaken_a_branch, ("blocks.2.*",)),
    Change(
        "blocks.3 frozen",
        "residual",
        lambda m: m.blocks[3].requires_grad_(False),
        ("blocks.3.*",),
    ),
    Change("convs.1 not in the optimizer", "conv", lambda m: None, ("convs.1",), "convs.1.*"),
    Change(
        "no_grad() around the first two convolutions",
        "conv",
        lambda m: [conv.requires_grad_(False) for conv in (*m.convs[:2], *m.norms[:2])],
        ("convs.[01]", "norms.[01]"),
    ),
    Change("input times 1e4", "lstm", _scale_input, ("lstm*",)),
    Change("queries and keys times 100", "attention", _sharpen_attention, ("blocks.0.self_attn*",)),
)


def train(network: Network, seed: int, logdir: Path, change: Change | None = None) -> None:
    """One training under watch, with a log."""
    torch.manual_seed(seed)
    model = network.build()
    generator = torch.Generator().manual_seed(1000 + seed)
    target = torch.randn(WIDTH, CLASSES, generator=generator)
    if change is not None:
        change.apply(model)
    left_out = change.left_out if change is not None else ""
    optimizer = network.optimize(
        [param for name, param in model.named_parameters() if not fnmatchcase(name, left_out)]
    )
    with gradwatch.watch(model, optimizer, logdir=str(logdir), log_findings=False):
        for _ in range(STEPS):
            x = torch.randn(BATCH, WIDTH, generator=generator)
            optimizer.zero_grad()
            cross_entropy(model(x), (x @ target).argmax(1)).backward()
            optimizer.step()


@dataclass(frozen=True)
class Row:
    """What came of a comparison.

    Attributes:
        network: in words.
        change: what was planted; ``""`` where only the seed differs.
        red: of ``compared`` comparisons.
        compared: how many.
        first: the layer that is named first, of each that is red.
        right: of those, how many name a layer from which the change takes something.
        words: what is said of the first, of the first that is red.
    """

    network: str
    change: str
    red: int
    compared: int
    first: tuple[str, ...] = ()
    right: int = 0
    words: str = ""


def compare(
    pairs: Sequence[tuple[Path, Path]], network: Network, change: Change | None = None
) -> Row:
    """All of these pairs in a row."""
    found = [compare_logdirs(str(before), str(after)).regressions for before, after in pairs]
    worst = [regressions[0] for regressions in found if regressions]
    patterns = change.layers if change is not None else ()
    right = [row for row in worst if any(fnmatchcase(row.fqn, pattern) for pattern in patterns)]
    return Row(
        network.name,
        change.name if change is not None else "",
        len(worst),
        len(pairs),
        tuple(row.fqn for row in worst),
        len(right),
        str(worst[0]) if worst else "",
    )


def measure(key: str, folder: Path) -> list[Row]:
    """A network's seeds, and each change to it with a seed of its own."""
    network = NETWORKS[key]
    for seed in range(SEEDS):
        train(network, seed, folder / f"{key}-{seed}")
    plain = [folder / f"{key}-{seed}" for seed in range(SEEDS)]
    rows = [compare(list(pairwise(plain)), network)]
    for number, change in enumerate(change for change in CHANGES if change.network == key):
        pairs = []
        for seed, before in enumerate(plain):
            logdir = folder / f"{key}-changed-{number}-{seed}"
            train(network, 100 + SEEDS * number + seed, logdir, change)
            pairs.append((before, logdir))
        rows.append(compare(pairs, network, change))
    return rows


def fill_page(page: str, rows: Sequence[Row]) -> str:
    """The page with the table of these rows between its marks."""
    lines = [
        "| Network | Change | Red | Named first |",
        "|---|---|---|---|",
        *(
            f"| {row.network} | {row.change or 'another seed'} | {row.red} of {row.compared} "
            f"| {row.words or '–'} |"
            for row in rows
        ),
    ]
    return fill_between(page, BEGIN, END, "\n".join(lines))


def read_rows() -> list[Row]:
    """As they are stored."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    return [Row(**{**row, "first": tuple(row["first"])}) for row in rows]


def main() -> None:
    """Measure, print, and store what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compared")
    parser.add_argument("--save", action="store_true", help="write the results and docs/ci.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for key in NETWORKS:
            for row in measure(key, Path(folder)):
                rows.append(row)
                print(row.network, row.change, f"{row.red}/{row.compared}", row.right, row.words)
    if options.save:
        content = json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False)
        RESULTS.write_text(content + "\n", encoding="utf-8")
        page = fill_page(PAGE.read_text(encoding="utf-8"), rows)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
