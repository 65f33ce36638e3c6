"""Make docs/images/gallery_*.png: what twelve typical trainings look like on the page.

    python scripts/gallery.py [--out docs/images] [--logdir DIR]

Needs what ``scripts/screenshots.py`` needs. Each training takes seconds on one core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gradwatch

sys.path.insert(0, str(Path(__file__).parents[1]))
from scripts.screenshots import open_browser, serve

STEPS, DEPTH, WIDTH = 300, 12, 32
Task = tuple[torch.Tensor, torch.Tensor]
Change = Callable[[nn.Module, torch.optim.Optimizer, int], None]


def make_task() -> Task:
    """Ten classes around ten points: easy for any network that learns at all."""
    torch.manual_seed(0)
    centres, labels = torch.randn(10, WIDTH), torch.randint(0, 10, (2000,))
    return centres[labels] + 0.7 * torch.randn(2000, WIDTH), labels


def stack(activation: type[nn.Module], depth: int = DEPTH, gain: float = 0.0) -> nn.Sequential:
    """Linear layers with an activation between; ``gain`` scales a normal initialisation."""
    model = nn.Sequential()
    for place in range(1, depth + 1):
        last = place == depth
        layer = nn.Linear(WIDTH, 10 if last else WIDTH)
        if gain:
            nn.init.normal_(layer.weight, std=gain / WIDTH**0.5)
            nn.init.zeros_(layer.bias)
        model.add_module(f"fc{place}", layer)
        if not last:
            model.add_module(f"act{place}", activation())
    return model


class Recurrent(nn.Module):
    """An RNN over sixty steps of noise, whose answer stands in the first of them."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(WIDTH, WIDTH, batch_first=True)
        nn.init.orthogonal_(self.rnn.weight_hh_l0, gain=0.8)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = 0.3 * torch.randn(len(x), 60, WIDTH)
        steps[:, 0] = x
        answer: torch.Tensor = self.head(self.rnn(steps)[0][:, -1])
        return answer


class Cut(nn.Module):
    """A stem whose output is detached by mistake."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stack(nn.ReLU, 3, 1.41)
        self.body = nn.Sequential(nn.Linear(10, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.body(self.stem(x).detach())
        return answer


class Residual(nn.Module):
    """Sixteen blocks with a skip around each."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Tanh())
            for _ in range(16)
        )
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        answer: torch.Tensor = self.head(x)
        return answer


def jump(_: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Half-way the learning rate is a thousand times what it was, as by a faulty schedule."""
    if step == STEPS // 2:
        optimizer.param_groups[0]["lr"] *= 1000


def push(_: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """For ten steps the learning rate is a few hundred times what it was."""
    if step in (STEPS // 2, STEPS // 2 + 10):
        optimizer.param_groups[0]["lr"] *= 300 if step == STEPS // 2 else 1 / 300


def silence(model: nn.Module, _: torch.optim.Optimizer, step: int) -> None:
    """Before the first step, biases so low that most units never fire."""
    if step == 0:
        with torch.no_grad():
            for name, param in model.named_parameters():
                if name in ("fc4.bias", "fc5.bias", "fc6.bias"):
                    param.fill_(-6.0)


CASES: dict[str, tuple[Callable[[], nn.Module], str, Change | None]] = {
    "healthy": (lambda: stack(nn.ReLU, gain=1.41), "sgd", None),
    "residual": (Residual, "adam", None),
    "vanishing_activation": (lambda: stack(nn.Sigmoid), "sgd", None),
    "vanishing_weights": (lambda: stack(nn.Tanh, gain=0.2), "sgd", None),
    "vanishing_depth": (lambda: stack(nn.Tanh, depth=60, gain=0.85), "sgd", None),
    "exploding": (lambda: stack(nn.ReLU, gain=4.0), "slow", None),
    "dead": (lambda: stack(nn.ReLU, gain=1.41), "sgd", silence),
    "saturated": (lambda: stack(nn.Tanh, depth=6, gain=12.0), "sgd", None),
    "late": (lambda: stack(nn.Tanh, gain=1.0), "sgd", push),
    "diverging": (lambda: stack(nn.ReLU, depth=6, gain=1.41), "sgd", jump),
    "through_time": (Recurrent, "sgd", None),
    "disconnected": (Cut, "sgd", None),
}
"""Model, optimizer, and what happens to it on the way."""


def train(name: str, logdir: Path) -> gradwatch.Report:
    """One case."""
    build, kind, change = CASES[name]
    x, labels = make_task()
    torch.manual_seed(1)
    model = build()
    params = model.parameters()
    rate = {"sgd": 0.02, "slow": 1e-10, "adam": 1e-3}[kind]
    optimizer = (torch.optim.Adam if kind == "adam" else torch.optim.SGD)(params, lr=rate)
    with gradwatch.watch(model, optimizer, logdir=logdir / name, every_n_steps=10) as watch:
        for step in range(STEPS):
            if change is not None:
                change(model, optimizer, step)
            batch = torch.randint(len(x), (64,))
            loss = nn.functional.cross_entropy(model(x[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return watch.report()


def main() -> None:
    """Train, serve, look."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--logdir", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        logdir = options.logdir or Path(scratch)
        for name in CASES:
            if not (logdir / name).exists():
                print(f"{name}: {train(name, logdir)!r}")
        with serve(logdir) as address, open_browser() as browser:
            for name in take(browser, address):
                browser.shot(options.out / f"gallery_{name}.png")


def take(browser: Any, address: str) -> Iterator[str]:
    """Shows each case; answers its name when it is on the screen."""
    page = browser.new_page(viewport={"width": 1000, "height": 720}, color_scheme="light")
    browser.shot = lambda path: page.screenshot(path=path)
    for name in CASES:
        page.goto("about:blank")
        page.goto(f"{address}/data/plugin_entry.html?name=gradwatch#run={name}")
        page.locator(f'.pane[aria-label="Run {name}"][data-drawn]').wait_for()
        page.evaluate("document.querySelector('.top').style.display = 'none'")
        page.wait_for_timeout(900)  # the last frame of Plotly's drawing
        yield name
    page.close()


if __name__ == "__main__":
    main()
