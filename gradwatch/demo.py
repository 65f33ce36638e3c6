"""``gradwatch demo``: an unhealthy and a healthy training on real data, both watched.

A 12-layer sigmoid network with PyTorch's default initialisation, then the same depth with ReLU and
He initialisation, both under plain SGD on scikit-learn's handwritten digits (1,797 images of 8x8,
part of the package, so nothing is downloaded). torch is imported inside the functions, so that the
command line can load this module at no cost.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch.errors import GradWatchError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from torch import Tensor, nn

    from gradwatch.report import Report

DEPTH = 12
WIDTH = 64
BATCH_SIZE = 64
LEARNING_RATE = 0.03
EVERY_N_STEPS = 10
N_CLASSES = 10
TRIAL_STEPS = 40  # of each remedy that is tried on the unhealthy network


@dataclass(frozen=True)
class Recipe:
    """One of the two networks.

    Attributes:
        run: name of its run, and of the directory of its log.
        title: for the terminal.
        activation: class in ``torch.nn``.
        with_he: He initialisation instead of torch's own.
    """

    run: str
    title: str
    activation: str
    with_he: bool


RECIPES = (
    Recipe("sigmoid", "12 layers, sigmoid, default initialisation", "Sigmoid", with_he=False),
    Recipe("relu", "12 layers, ReLU, He initialisation", "ReLU", with_he=True),
)


def run_demo(logdir: str, steps: int, console: Console | None = None) -> tuple[Report, ...]:
    """Train both networks, show what gradwatch says of each, and how to see more.

    Args:
        logdir: each run gets a directory of its own below it.
        steps: optimizer steps per network.
        console: where to print; the terminal by default.

    Returns:
        A report of each network, in the order of ``RECIPES``.

    Raises:
        GradWatchError: scikit-learn is not installed.
        InvalidInput: the log directory cannot be written.
    """
    from rich.console import Console

    console = console or Console(highlight=False)
    images, labels = load_digits()
    console.print(
        f"Two networks learn to read {len(images):,} handwritten digits, {steps} steps each.\n"
    )
    root = Path(logdir).expanduser()
    with _use_one_thread():
        shown = [
            _train_and_show(recipe, images, labels, root, steps, console) for recipe in RECIPES
        ]
    _show_commands(root, console)
    return tuple(shown)


@contextmanager
def _use_one_thread() -> Iterator[None]:
    """Networks of this size wait for a second thread longer than it computes."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load_digits() -> tuple[Tensor, Tensor]:
    """Images as ``(1797, 64)`` with mean 0 and variance 1, and their labels.

    Returns:
        Float32, and int64 ``(1797,)`` from 0 to 9.

    Raises:
        GradWatchError: scikit-learn is not installed.
    """
    import torch

    try:
        from sklearn import datasets
    except ImportError as error:
        raise GradWatchError(
            "Expected scikit-learn, whose digits the demo trains on, got none installed. "
            "Run: pip install 'gradwatch[demo]'"
        ) from error
    bunch = datasets.load_digits()
    images = torch.tensor(bunch.data, dtype=torch.float32)
    return (images - images.mean()) / images.std(), torch.tensor(bunch.target)


def build_network(recipe: Recipe, n_inputs: int) -> nn.Sequential:
    """``fc1, act1, ..., fc12``.

    Args:
        recipe: its activation and initialisation.
        n_inputs: features of a sample.

    Returns:
        Takes ``(N, n_inputs)`` and gives logits ``(N, N_CLASSES)``.
    """
    from torch import nn

    network = nn.Sequential()
    sizes = [n_inputs, *[WIDTH] * (DEPTH - 1), N_CLASSES]
    for place in range(1, DEPTH + 1):
        linear = nn.Linear(sizes[place - 1], sizes[place])
        if recipe.with_he:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
        network.add_module(f"fc{place}", linear)
        if place < DEPTH:
            network.add_module(f"act{place}", getattr(nn, recipe.activation)())
    return network


def _train_and_show(
    recipe: Recipe, images: Tensor, labels: Tensor, root: Path, steps: int, console: Console
) -> Report:
    import torch

    from gradwatch.display.terminal import render_report

    torch.manual_seed(0)
    network = build_network(recipe, images.shape[1])
    with _make_progress(console) as progress:
        report = _train(recipe, network, images, labels, root, steps, progress)
    with torch.no_grad():
        accuracy = (network(images).argmax(dim=1) == labels).float().mean().item()
    console.print(f"Reads {accuracy:.0%} of its training digits right (guessing: 10%).\n")
    console.print(render_report(report, table=True))
    if not report.healthy:
        _show_trials(network, images, labels, root / recipe.run, console)
    console.print()
    return report


def _show_trials(
    network: nn.Sequential, images: Tensor, labels: Tensor, logdir: Path, console: Console
) -> None:
    """What each remedy does to copies of the unhealthy network; kept with the run for the tab."""
    from torch import nn
    from torch.optim import SGD

    import gradwatch
    from gradwatch.display.trial_table import render_trials

    batches = [
        (images[chosen], labels[chosen]) for chosen in _draw_batches(len(images), TRIAL_STEPS)
    ]
    optimizer = SGD(network.parameters(), lr=LEARNING_RATE)
    console.print()
    with console.status("Trying remedies on copies of the network"):
        trials = gradwatch.try_remedies(
            network, batches, nn.CrossEntropyLoss(), optimizer, steps=TRIAL_STEPS, logdir=logdir
        )
    console.print(render_trials(trials))


def _make_progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}", markup=False),
        TimeElapsedColumn(),
        console=console,
    )


def _train(
    recipe: Recipe,
    network: nn.Sequential,
    images: Tensor,
    labels: Tensor,
    root: Path,
    steps: int,
    progress: Progress,
) -> Report:
    """An ordinary loop; the ``with`` line and ``watch.report()`` are all that knows gradwatch."""
    from torch import nn
    from torch.optim import SGD

    import gradwatch

    optimizer = SGD(network.parameters(), lr=LEARNING_RATE)
    loss_fn = nn.CrossEntropyLoss()
    task = progress.add_task(recipe.title, total=steps, loss="")
    logdir = root / recipe.run
    with gradwatch.watch(
        network,
        optimizer,
        logdir=logdir,
        every_n_steps=EVERY_N_STEPS,
        run=recipe.run,
        log_findings=False,
    ) as watch:
        for batch in _draw_batches(len(images), steps):
            loss = loss_fn(network(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            progress.update(task, advance=1, loss=f"loss {loss.item():.2f}")
    return watch.report()


def _draw_batches(n_images: int, steps: int) -> Iterator[Tensor]:
    """Shuffled epochs, cut into batches, for as many steps as asked for."""
    import torch

    batches: list[Tensor] = []
    for _ in range(steps):
        if not batches:
            batches = list(torch.randperm(n_images).split(BATCH_SIZE))
        yield batches.pop()


def _show_commands(root: Path, console: Console) -> None:
    place = shlex.quote(str(root))
    console.print("See both in TensorBoard:")
    console.print(f"  tensorboard --logdir {place}", style="bold", markup=False, soft_wrap=True)
    console.print("Judge them as a CI job would:")
    console.print(f"  gradwatch check {place}", style="bold", markup=False, soft_wrap=True)
