"""What ``gradwatch check`` says of trainings that were cut off: killed, out of disk, out of a rank.

python -m benchmarks.kills            all three; a full disk needs root for a file system of 1 MB
python -m benchmarks.kills --save     and keeps the table in benchmarks/results/kills.md
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import gradwatch
from gradwatch.cli import main as run_cli
from gradwatch.log.reader import read_runs

RESULTS = Path(__file__).parent / "results" / "kills.md"
KILLS = 50
LATEST_SECONDS = 1.5
"""A kill comes at a random moment of so many seconds."""

HEAD = """\
% Made by `python -m benchmarks.kills --save`; change the benchmark, not this table.

| What happened | Times | Status | With `--allow-unfinished` | Records | What is said |
|---|---|---|---|---|---|
"""

Row = tuple[str, int, int, int, str, str]


def train(model: nn.Module, watched: nn.Module, logdir: Path, steps: int, die_at: int = -1) -> None:
    """An ordinary loop; the process dies in the middle of it where that is asked for."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gradwatch.watch(watched, optimizer, logdir=logdir, every_n_steps=1):
        for step in range(steps):
            if step == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            x = torch.randn(16, 8)
            optimizer.zero_grad()
            cross_entropy(model(x), x[:, :4].argmax(1)).backward()
            optimizer.step()


def build(width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))


def ask(logdir: Path, *options: str) -> tuple[int, str]:
    """Status of ``check``, and why it does not judge."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        status = run_cli(["check", str(logdir), *options])
    lines = err.getvalue().splitlines()
    return int(status), lines[-1].partition(" judged: ")[2] if lines else ""


def judge(title: str, logdir: Path) -> Row:
    """A row of the table."""
    status, words = ask(logdir)
    allowed, _ = ask(logdir, "--allow-unfinished")
    records = sum(len(run) for run in read_runs(logdir))
    return title, 1, status, allowed, str(records), words.replace("|", "/")


# Killed at a random moment -------------------------------------------------------------------


def train_for_ever(logdir: str) -> None:
    torch.set_num_threads(1)
    model = build()
    train(model, model, Path(logdir), 10**9)


def kill_at_random(root: Path, seed: int) -> list[Row]:
    """50 trainings killed with signal 9, each judged as it lies; a row for each pair of results."""
    rng, rows = random.Random(seed), []
    context = multiprocessing.get_context("fork")
    for place in range(KILLS):
        logdir = root / f"killed{place}"
        process = context.Process(target=train_for_ever, args=(str(logdir),))
        process.start()
        while not any(logdir.glob("*tfevents*")):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, LATEST_SECONDS))
        process.kill()
        process.join()
        rows.append(judge("killed with signal 9 at a random moment", logdir))
    return [
        sum_up([row for row in rows if (row[2], row[3]) == pair])
        for pair, _ in Counter((row[2], row[3]) for row in rows).most_common()
    ]


def sum_up(rows: list[Row]) -> Row:
    """Many rows of the same statuses as one."""
    counts = sorted(int(row[4]) for row in rows)
    title, _, status, allowed, _, words = rows[-1]
    return title, len(rows), status, allowed, f"{counts[0]} to {counts[-1]}", words


# A disk of 1 MB --------------------------------------------------------------------------------


@contextlib.contextmanager
def mount_small(folder: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take what space is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def run_out_of_space(root: Path, has_space_again: bool) -> Row:
    """A training whose disk is full from step 20 on, or for 20 steps."""
    title = "disk full, and space again" if has_space_again else "disk full to the end"
    with mount_small(root / title.replace(" ", "_")) as folder:
        model = build()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        ballast = folder / "ballast"
        with (
            warnings.catch_warnings(),
            gradwatch.watch(model, optimizer, logdir=folder / "run", every_n_steps=1),
        ):
            warnings.simplefilter("ignore", RuntimeWarning)
            for step in range(60):
                if step == 20:
                    ballast = fill(folder)
                if step == 40 and has_space_again:
                    ballast.unlink()
                x = torch.randn(16, 8)
                optimizer.zero_grad()
                cross_entropy(model(x), x[:, :4].argmax(1)).backward()
                optimizer.step()
        return judge(title, folder / "run")


# Two ranks, of which one dies ------------------------------------------------------------------


def run_rank(rank: int, port: int, logdir: str, dying: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model = DistributedDataParallel(build())
    train(model, model, Path(logdir), 60, die_at=30 if rank == dying else -1)
    dist.destroy_process_group()


def lose_a_rank(root: Path, dying: int) -> Row:
    """Rank 0 writes the log; gloo raises on the one that is left."""
    logdir = root / f"rank{dying}"
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    arguments = [(rank, port, str(logdir), dying) for rank in range(2)]
    ranks = [context.Process(target=run_rank, args=given) for given in arguments]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        process.kill()
    return judge(f"rank {dying} of 2 is killed at step 30", logdir)


def main() -> None:
    """Run all of them, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp())
    try:
        rows = kill_at_random(root, options.seed)
        rows += [run_out_of_space(root, has_space_again) for has_space_again in (False, True)]
        rows += [lose_a_rank(root, dying) for dying in (1, 0)]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    text = HEAD + "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)
    print(text)
    if options.save:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
