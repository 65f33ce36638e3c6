"""Modules put together in unusual ways: checkpoints, bare parameters, odd names, unused parts."""

from __future__ import annotations

from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from tests.zoo.case import Case, Training
from tests.zoo.healthy_models import relu_mlp
from tests.zoo.healthy_tasks import Batch, blobs, glyphs, healthy, spirals, split, train, waves

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class Checkpointed(nn.Module):
    """Blocks that are recomputed in backward."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 48)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(48, 48), nn.LayerNorm(48), nn.ReLU()) for _ in range(4)
        )
        self.head = nn.Linear(48, 2)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for block in self.blocks:
            h = checkpoint(block, h, use_reentrant=self.reentrant)
        return self.head(h)


@healthy(_cases, "checkpointing without re-entry: forward runs twice, gradients once; loss falls")
def checkpoint_non_reentrant() -> Training:
    model = Checkpointed(reentrant=False)
    return train(model, torch.optim.Adam(model.parameters(), 3e-3), spirals(), _cross_entropy, 100)


@healthy(
    _cases, "re-entrant checkpointing: first forward without a graph, as it is made; loss falls"
)
def checkpoint_reentrant() -> Training:
    model = Checkpointed(reentrant=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return train(model, optimizer, spirals(), _cross_entropy, steps=150)


class SequentialCheckpoint(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        convs: list[nn.Module] = []
        for _ in range(4):
            convs += [nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*convs)
        self.head = nn.Linear(12 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.max_pool2d(self.stem(x), 2)
        h = checkpoint_sequential(self.body, 2, h, use_reentrant=False)
        return self.head(h.flatten(1))


@healthy(_cases, "checkpoint_sequential over convolutions with in-place ReLUs; loss falls")
def checkpoint_sequential_inplace() -> Training:
    model = SequentialCheckpoint()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=90)


@healthy(
    _cases, "in-place ReLU after every convolution, in-place leaky ReLU in the head; loss falls"
)
def inplace_after_convolutions() -> Training:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.1),
        nn.Flatten(), nn.Linear(512, 32), nn.LeakyReLU(inplace=True), nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=80)


class OddNames(nn.Module):
    """Names with spaces, markup and other letters; a branch that is never called; buffers only."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(
            {"größe": nn.Linear(2, 48), "a b": nn.Linear(48, 48), "<b>x/y": nn.Linear(48, 48)}
        )
        self.spare = nn.Linear(48, 48)
        self.scale = nn.BatchNorm1d(48, affine=False)
        self.head = nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts.values():
            x = functional.relu(part(x))
        return self.head(self.scale(x))


@healthy(_cases, "a spare module is never called and so never gets a gradient; all others learn")
def module_never_called() -> Training:
    model = OddNames()
    return train(model, torch.optim.Adam(model.parameters(), 5e-3), spirals(), _cross_entropy, 100)


class UnusedParameter(nn.Module):
    """Keeps a parameter for a variant that this configuration has switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.net = relu_mlp(4, 48, 3, 1)
        self.temperature = nn.Parameter(torch.ones(1))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        return self.net(x)


@healthy(_cases, "a parameter of a switched-off variant takes no part in forward; loss falls")
def unused_parameter() -> Training:
    model = UnusedParameter()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return train(model, optimizer, waves(), nn.MSELoss(), steps=120)


class Factorisation(nn.Module):
    """Matrix factorisation with bare parameters and no module inside."""

    def __init__(self, rows: int = 60, columns: int = 40, rank: int = 6) -> None:
        super().__init__()
        self.row = nn.Parameter(0.3 * torch.randn(rows, rank))
        self.column = nn.Parameter(0.3 * torch.randn(columns, rank))
        self.bias = nn.Parameter(torch.zeros(rows))

    def forward(self, entry: Tensor) -> Tensor:
        row, column = entry.unbind(1)
        return (self.row[row] * self.column[column]).sum(1) + self.bias[row]


def _ratings() -> list[Batch]:
    source = torch.Generator().manual_seed(17)
    truth = torch.randn(60, 4, generator=source) @ torch.randn(4, 40, generator=source) / 2
    entry = torch.cartesian_prod(torch.arange(60), torch.arange(40))
    entry = entry[torch.randperm(len(entry), generator=source)]
    return split(entry, truth[entry[:, 0], entry[:, 1]], 256)


@healthy(_cases, "matrix factorisation of bare parameters: most rows are untouched in a step")
def matrix_factorisation() -> Training:
    model = Factorisation()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    return train(model, optimizer, _ratings(), nn.MSELoss(), steps=120)


class BilinearScore(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(2, 16), nn.Linear(2, 16)
        self.pair = nn.Bilinear(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return self.pair(torch.tanh(self.left(left)), torch.tanh(self.right(right)))


@healthy(_cases, "nn.Bilinear joins two inputs of one batch; loss falls")
def bilinear_pairing() -> Training:
    model = BilinearScore()
    batches = [(x, x[:, :1] * x[:, 2:3] + x[:, 1:2]) for x, _ in waves()]
    return train(model, torch.optim.Adam(model.parameters(), 0.01), batches, nn.MSELoss(), 150)


class GraphConvolution(nn.Module):
    """Two rounds of message passing by a normalised adjacency matrix."""

    def __init__(self, adjacency: Tensor, classes: int) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        self.first, self.second = nn.Linear(8, 32), nn.Linear(32, classes)

    def forward(self, features: Tensor) -> Tensor:
        h = functional.relu(self.adjacency @ self.first(features))
        return self.adjacency @ self.second(h)


@healthy(_cases, "graph convolution, full graph, a tenth of the nodes labelled: the rest is masked")
def graph_convolution_masked() -> Training:
    source = torch.Generator().manual_seed(18)
    label = torch.randint(3, (120,), generator=source)
    same = label[:, None] == label[None]
    chance = torch.where(same, 0.15, 0.01)
    edges = torch.bernoulli(chance, generator=source).triu(1)
    edges = edges + edges.T + torch.eye(120)
    degree = edges.sum(1).rsqrt()
    features = torch.randn(120, 8, generator=source) + functional.one_hot(label, 8)
    model = GraphConvolution(degree[:, None] * edges * degree[None], classes=3)
    target = torch.where(torch.arange(120) % 10 == 0, label, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=5e-4)
    return train(model, optimizer, [(features, target)], _cross_entropy, steps=100)


class ComplexSpectrum(nn.Module):
    """A learned complex filter in the frequency domain (as in the FNet and FNO families)."""

    def __init__(self, length: int = 16, width: int = 16) -> None:
        super().__init__()
        self.lift = nn.Linear(1, width)
        self.filter = nn.Parameter(0.3 * torch.randn(length // 2 + 1, width, dtype=torch.cfloat))
        self.mix, self.head = nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x[..., None])
        spectrum = torch.fft.rfft(h, dim=1) * self.filter
        h = functional.gelu(torch.fft.irfft(spectrum, n=x.shape[1], dim=1) + self.mix(h))
        return self.head(h)[..., 0]


@healthy(_cases, "complex weights multiply a spectrum; the net learns a circular derivative")
def complex_spectral_filter() -> Training:
    model = ComplexSpectrum()
    x = torch.randn(256, 16, generator=torch.Generator().manual_seed(19))
    batches = split(x, x.roll(1, 1) - x.roll(-1, 1), 64)
    return train(model, torch.optim.Adam(model.parameters(), 0.01), batches, nn.MSELoss(), 120)


@healthy(_cases, "functional_call with a dict of tensors in place of the module's own; loss falls")
def functional_call_loop() -> Training:
    model = relu_mlp(2, 64, 3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    parameters = dict(model.named_parameters())

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(spirals()), 120):
            optimizer.zero_grad()
            loss = functional.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


class TwoTowers(nn.Module):
    """Two towers of different depth whose sum decides."""

    def __init__(self) -> None:
        super().__init__()
        self.deep, self.wide = relu_mlp(16, 48, 4, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.deep(x) + self.wide(x)


@healthy(_cases, "wide and deep: one linear tower, one deep tower, both learn; loss falls")
def wide_and_deep() -> Training:
    model = TwoTowers()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
    return train(model, optimizer, blobs(spread=2.0), _cross_entropy, steps=100)


CASES: tuple[Case, ...] = tuple(_cases)
