"""What ranks that are late, done early, unwatched or dead cost the others: seconds, on gloo.

``python -m benchmarks.late_ranks`` trains each scene of ``tests/capture/test_late_ranks.py`` with
and without a watch that samples every step, with 2 and with 4 processes, and writes the slowest
rank's seconds to ``benchmarks/results/late_ranks.json``. Each process has watched another model
before: what is loaded at the first watch is no wait for a rank.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import gradwatch
from tests.capture.test_late_ranks import SCENES, run
from tests.networks import make_mlp

RESULTS = Path(__file__).parent / "results" / "late_ranks.json"
WORLDS = (2, 4)
ATTEMPTS = 4


def run_rank(rank: int, world: int, port: int, scene: str, folder: str) -> None:
    """One process of a scene."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    network = make_mlp()
    with gradwatch.watch(network.model, network.optimizer) as watch:
        network.train(3)
    str(watch.report())
    dist.init_process_group("gloo", rank=rank, world_size=world)
    is_watched = scene.endswith("watched")
    found = run(scene.removesuffix(" watched"), rank, is_watched)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found["seconds"]))


def measure(scene: str, world: int) -> float:
    """Seconds of the slowest rank; where a rank dies, gloo aborts another now and then."""
    for _ in range(ATTEMPTS):
        try:
            return measure_once(scene, world)
        except mp.ProcessExitedException as error:
            print(f"{scene}, {world} processes: {error}; tried again", flush=True)
    raise RuntimeError(f"{scene!r} with {world} processes aborted {ATTEMPTS} times")


def measure_once(scene: str, world: int) -> float:
    """The same, once."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run_rank, (world, port, scene, folder), nprocs=world)
        return max(float(file.read_text()) for file in Path(folder).glob("*.json"))


def main() -> None:
    """Measure, print and write."""
    rows = []
    for scene in SCENES:
        for world in WORLDS:
            plain, watched = measure(scene, world), measure(f"{scene} watched", world)
            seconds = {"plain_s": round(plain, 2), "watched_s": round(watched, 2)}
            rows.append({"scene": scene, "processes": world, **seconds})
            print(f"| {scene} | {world} | {plain:.2f} | {watched:.2f} |", flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
