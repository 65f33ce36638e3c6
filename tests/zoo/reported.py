"""Trainings that people ask about, in two sizes each: models, data and loops, without labels.

What is wrong in one of them is switched by an argument, so that a run and its twin differ in
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.zoo.case import Training

Batch = tuple[object, Tensor]
Draw = Callable[[int], Batch]


def drive(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    draw: Draw,
    loss_fn: Callable[..., Tensor],
    steps: int,
) -> Training:
    """A loop over batches that are drawn as they are needed."""

    def run() -> list[float]:
        losses = []
        for step in range(steps):
            x, y = draw(step)
            loss = loss_fn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


def draw_classes(features: int, classes: int, size: int = 64, seed: int = 0) -> Draw:
    """Normal features, and which of some random directions they point to most."""
    source = torch.Generator().manual_seed(seed)
    directions = torch.randn(features, classes, generator=source)

    def draw(_: int) -> Batch:
        x = torch.randn(size, features, generator=source)
        return x, (x @ directions).argmax(1)

    return draw


class Adapted(nn.Module):
    """A frozen linear layer with a product of two factors beside it."""

    def __init__(self, inputs: int, outputs: int, rank: int, std: float) -> None:
        super().__init__()
        self.pretrained = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down = nn.Parameter(std * torch.randn(inputs, rank))
        self.up = nn.Parameter(torch.zeros(rank, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.pretrained(x) + x @ self.down @ self.up


def adapt(width: int, rank: int, std: float) -> Training:
    """Two adapters; with a standard deviation of 0 both factors of each begin at zero."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(Adapted(20, width, rank, std), nn.Tanh(), Adapted(width, 5, rank, std)),
    )
    held = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.Adam(held, lr=1e-2)
    return drive(model, optimizer, draw_classes(20, 5), functional.cross_entropy, 100)


class Speller(nn.Module):
    """An embedding, a rectified recurrent network and a decoder."""

    def __init__(self, letters: int, width: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, width)
        self.memory = nn.RNN(width, width, 2, nonlinearity="relu")
        self.guess = nn.Linear(width, letters)

    def forward(self, x: Tensor) -> Tensor:
        return self.guess(self.memory(self.letters(x))[0]).flatten(0, 1)


def spell(letters: int, width: int, rate: float, clip: float) -> Training:
    """Sequences that count on by five; gradients are clipped."""
    torch.manual_seed(0)
    model, source = Speller(letters, width), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    optimizer.register_step_pre_hook(
        lambda *_: nn.utils.clip_grad_norm_(model.parameters(), clip) and None
    )

    def draw(_: int) -> Batch:
        first = torch.randint(letters, (1, 16), generator=source)
        x = (first + 5 * torch.arange(30)[:, None]) % letters
        return x[:-1], x[1:].flatten()

    return drive(model, optimizer, draw, functional.cross_entropy, 90)


def chain(act: Callable[[], nn.Module], depth: int, residual: bool = False) -> Training:
    """Layers as torch initialises them; with skips, and time to learn, where asked."""
    torch.manual_seed(0)
    body = [part for _ in range(depth) for part in (nn.Linear(24, 24), act())]
    model = Skipping(body) if residual else nn.Sequential(*body, nn.Linear(24, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = 120 if residual else 60
    return drive(model, optimizer, draw_classes(24, 4), functional.cross_entropy, steps)


class Skipping(nn.Module):
    """Pairs of layer and activation with a skip around each; each adds its part of the whole."""

    def __init__(self, body: list[nn.Module]) -> None:
        super().__init__()
        pairs = zip(body[::2], body[1::2], strict=True)
        self.blocks = nn.ModuleList(nn.Sequential(*pair) for pair in pairs)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x) / len(self.blocks)
        return self.head(x)


def steer(scale: float, width: int) -> Training:
    """A policy whose output tanh has to follow its states, which come in their own units."""
    torch.manual_seed(0)
    source = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
        *(nn.Linear(width, 2), nn.Tanh()),
    )
    units = scale * torch.tensor([1.0, 3.0, 0.3, 2.0])

    def draw(_: int) -> Batch:
        states = torch.rand(64, 4, generator=source) * 2 - 1
        return states * units, 0.6 * torch.stack([states[:, 0], -states[:, 1]], 1)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return drive(model, optimizer, draw, functional.mse_loss, 150)


class Recomputed(nn.Module):
    """Blocks inside reentrant checkpoints."""

    def __init__(self, act: Callable[[], nn.Module], depth: int, width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), act()) for _ in range(depth)
        )
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        for stage in self.stages:
            x = checkpoint(stage, x, use_reentrant=True)
        return self.out(x)


def recompute(act: Callable[[], nn.Module], depth: int, width: int) -> Training:
    """A deep chain whose activations are not kept."""
    torch.manual_seed(0)
    model = Recomputed(act, depth, width)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return drive(model, optimizer, draw_classes(width, 3), functional.cross_entropy, 100)


def differentiate(act: Callable[[], nn.Module], depth: int) -> Training:
    """Gradients from ``torch.autograd.grad``, put into ``grad`` by hand."""
    torch.manual_seed(0)
    body = [part for _ in range(depth) for part in (nn.Linear(20, 20), act())]
    model = nn.Sequential(*body, nn.Linear(20, 4))
    optimizer, draw = torch.optim.Adam(model.parameters(), lr=3e-3), draw_classes(20, 4)

    def run() -> list[float]:
        losses, params = [], [param for param in model.parameters() if param.requires_grad]
        for step in range(100):
            x, y = draw(step)
            loss = functional.cross_entropy(model(x), y)
            for param, grad in zip(params, torch.autograd.grad(loss, params), strict=True):
                param.grad = grad
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


def restore(size: int, channels: int, bias: float, kept: int) -> Training:
    """Pictures from blurred ones, few at a time; all but ``kept`` channels get a bias."""
    torch.manual_seed(0)
    first, middle, last = (
        nn.Conv2d(wide, out, 3, padding=1)
        for wide, out in ((1, channels), (channels, channels), (channels, 1))
    )
    for conv in (first, middle):
        nn.init.zeros_(conv.bias)
    nn.init.constant_(middle.bias[kept:], bias)
    model = nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), last)
    source = torch.Generator().manual_seed(0)

    def draw(_: int) -> Batch:
        coarse = torch.rand(size, 1, 5, 5, generator=source)
        y = functional.interpolate(coarse, 20, mode="bilinear")
        return functional.avg_pool2d(y, 3, 1, 1), y

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return drive(model, optimizer, draw, functional.mse_loss, 150)


class Conditional(nn.Module):
    """A convolution and a projection of something else that is added before the activation."""

    def __init__(self, channels: int, dead: int) -> None:
        super().__init__()
        self.filters = nn.Conv2d(1, channels, 3, padding=1)
        self.condition = nn.Linear(5, channels)
        self.classify = nn.Linear(25 * channels, 4)
        nn.init.constant_(self.filters.bias[:dead], -40.0)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.filters(x.view(-1, 1, 5, 5))
        shift = 0.02 * self.condition(x[:, :5])
        return self.classify(functional.relu(maps + shift[:, :, None, None]).flatten(1))


def condition(channels: int, dead: int) -> Training:
    """Classes of small pictures."""
    torch.manual_seed(0)
    model = Conditional(channels, dead)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return drive(model, optimizer, draw_classes(25, 4), functional.cross_entropy, 120)


class Padded(nn.Module):
    """A projection of each position, beside a convolution over them."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.project = nn.Linear(6, width)
        self.mix = nn.Conv1d(6, width, 1)
        self.classify = nn.Linear(width, 3)
        nn.init.constant_(self.project.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        positions = functional.relu(self.project(x))
        return self.classify(positions.mean(1) + 0.1 * self.mix(x.transpose(1, 2)).mean(2))


def pad(width: int, bias: float) -> Training:
    """Sequences of 30 positions, of which the last 20 are zeros."""
    torch.manual_seed(0)
    source = torch.Generator().manual_seed(0)
    directions = torch.randn(6, 3, generator=source)

    def draw(_: int) -> Batch:
        x = torch.randn(48, 30, 6, generator=source)
        x[:, 10:] = 0
        return x, (x.sum(1) @ directions).argmax(1)

    model = Padded(width, bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return drive(model, optimizer, draw, functional.cross_entropy, 150)


class MaskedScores(nn.Module):
    """Scores of attention that hide what comes later, as a module of its own."""

    def __init__(self, hidden: float) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return scores.masked_fill(later, self.hidden)


class Reader(nn.Module):
    """One attention over an embedding."""

    def __init__(self, words: int, width: int, hidden: float) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(words, width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.scores = nn.Linear(width, width), MaskedScores(hidden)
        self.say = nn.Linear(width, words)

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x)
        weights = self.scores(self.query(x), self.key(x)).softmax(-1)
        return self.say(self.norm(x + weights @ self.value(x))).flatten(0, 1)


def read_on(words: int, width: int, hidden: float) -> Training:
    """The next of words that count on by two."""
    torch.manual_seed(0)
    source, model = torch.Generator().manual_seed(0), Reader(words, width, hidden)

    def draw(_: int) -> Batch:
        first = torch.randint(words, (16, 1), generator=source)
        x = (first + 2 * torch.arange(12)) % words
        return x[:, :-1], x[:, 1:].flatten()

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return drive(model, optimizer, draw, functional.cross_entropy, 100)


class Forecaster(nn.Module):
    """A recurrent network that is read at its last step."""

    def __init__(self, kind: type[nn.RNNBase], features: int, width: int) -> None:
        super().__init__()
        self.memory = kind(features, width, batch_first=True)
        self.read = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.memory(x)[0][:, -1])


def forecast(kind: type[nn.RNNBase], width: int, scale: float, noise: float) -> Training:
    """A sum of the last two of thirty steps, and noise that nobody can foresee."""
    torch.manual_seed(0)
    source, model = torch.Generator().manual_seed(0), Forecaster(kind, 3, width)

    def draw(_: int) -> Batch:
        x = torch.randn(64, 30, 3, generator=source)
        signal = (x[:, -1, 0] + x[:, -2, 1]) / 2**0.5
        draws = torch.randn(64, generator=source)
        y = signal * (1 - noise) ** 0.5 + draws * noise**0.5
        return x, scale * y[:, None]

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return drive(model, optimizer, draw, functional.mse_loss, 180)


class TwoAnswers(nn.Module):
    """A body that answers two questions at each call."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(18, width), nn.GELU())
        self.topic, self.tone = nn.Linear(width, 3), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(x)
        return self.topic(hidden), self.tone(hidden)


def answer(width: int, is_cut: bool = False) -> Training:
    """One of the two answers is trained; the cut lets nothing of it through to the trunk."""
    torch.manual_seed(0)
    model = TwoAnswers(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    if is_cut:
        model.trunk.register_forward_hook(lambda *given: given[-1].detach())
    return drive(
        *(model, optimizer, draw_classes(18, 4)),
        lambda answers, y: functional.cross_entropy(answers[1], y),
        80,
    )


def pair_up(width: int, twin_from: int) -> Training:
    """Distances between pairs, of which two are of one sample from ``twin_from`` on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, width), nn.Tanh(), nn.Linear(width, 3))
    optimizer, draw_half = torch.optim.Adam(model.parameters(), lr=1e-2), draw_classes(16, 4)

    def draw(step: int) -> Batch:
        halves: Iterator[Batch] = (draw_half(step) for _ in range(2))
        (a, ya), (b, yb) = halves
        if step >= twin_from:
            b[7], yb[7] = a[7], (ya[7] + 1) % 4
        return torch.cat([a, b]), (ya == yb).float()

    def contrast(out: Tensor, same: Tensor) -> Tensor:
        a, b = out.chunk(2)
        distance = (a - b).square().sum(1).sqrt()
        return (same * distance**2 + (1 - same) * functional.relu(1 - distance) ** 2).mean()

    return drive(model, optimizer, draw, contrast, 200)
