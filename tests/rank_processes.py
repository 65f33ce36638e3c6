"""Ranks of a job over gloo, forked from a process that has loaded torch once for all tests."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

mp.get_context("forkserver").set_forkserver_preload(
    ["pytest", "torch._dynamo", "torch.distributed.fsdp", "gradwatch.watcher", __name__]
)


def run_job(
    run: Callable[..., Any], world: int, *arguments: object, ends_together: bool = True
) -> dict[int, Any]:
    """What each rank gives; one that has died gives nothing.

    Args:
        run: a module's function, called with the rank and the arguments in each process.
        world: how many ranks.
        *arguments: can be pickled.
        ends_together: each rank waits for the others before its process ends.
    """
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        job = world, port, folder, ends_together, run, arguments
        mp.start_processes(_run_rank, job, nprocs=world, start_method="forkserver")
        files = Path(folder).glob("*.pt")
        return {int(file.stem): torch.load(file, weights_only=False) for file in files}


def _run_rank(
    rank: int,
    world: int,
    port: int,
    folder: str,
    ends_together: bool,
    run: Callable[..., Any],
    arguments: tuple[object, ...],
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(world))
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.save(run(rank, *arguments), Path(folder) / f"{rank}.pt")
    if ends_together:
        dist.barrier()
        dist.destroy_process_group()
