"""Ranks that are late, done early, unwatched or dead: nobody waits, and the record says so."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gradwatch
from gradwatch.capture import exchange
from tests.rank_processes import run_job

pytestmark = pytest.mark.distributed

STEPS = 12


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return DistributedDataParallel(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, skips: bool = False) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    if not skips:
        optimizer.step()


def train_to_the_end(model: Any, optimizer: Any, rank: int) -> None:
    for _ in range(STEPS):
        step(model, optimizer)


def join(model: Any, optimizer: Any, rank: int) -> None:
    """Rank 0 has more batches than the others."""
    with model.join():
        for _ in range(STEPS if rank == 0 else 3):
            step(model, optimizer)


def skip_a_step(model: Any, optimizer: Any, rank: int) -> None:
    for number in range(STEPS):
        step(model, optimizer, skips=rank == 1 and number == 4)


def die(model: Any, optimizer: Any, rank: int) -> None:
    for number in range(STEPS):
        if rank == 1 and number == 4:
            os._exit(0)
        step(model, optimizer)


SCENES: dict[str, Callable[[Any, Any, int], None]] = {
    "all": train_to_the_end,
    "join": join,
    "skip": skip_a_step,
    "rank 0 only": train_to_the_end,
    "rank 1 only": train_to_the_end,
    "dead": die,
}


def watches(name: str, rank: int) -> bool:
    return not name.endswith("only") or name == f"rank {rank} only"


def run(rank: int, name: str, is_watched: bool) -> dict[str, Any]:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    dist.barrier()
    began = time.perf_counter()
    watching = None
    if is_watched and watches(name, rank):
        watching = gradwatch.watch(model, optimizer, every_n_steps=1)
    error = ""
    try:
        SCENES[name](model, optimizer, rank)
    except RuntimeError as broken:  # of gloo, when the other one died
        error = str(broken)
    finally:
        if watching is not None:
            watching.detach()
    seconds = time.perf_counter() - began
    found: dict[str, Any] = {"seconds": seconds, "error": error}
    if watching is not None:
        history = watching.report().history
        records = () if history is None else history.records
        found["steps"] = [record.global_step for record in records]
        found["notes"] = records[-1].layer_set.notes if records else ()
        found["failure"] = watching.failure
    return found


def launch(name: str, world: int = 2, is_watched: bool = True) -> dict[int, dict[str, Any]]:
    return run_job(run, world, name, is_watched, ends_together=False)


def test_ranks_that_come_are_merged_whole() -> None:
    for outcome in launch("all").values():
        assert outcome["failure"] is None
        assert outcome["steps"] == list(range(STEPS))
        assert outcome["notes"] == ()


def test_a_rank_that_skips_a_step_stays_in_the_records() -> None:
    for outcome in launch("skip").values():
        assert outcome["failure"] is None
        common = STEPS - 1  # rank 1 takes a step less; the last is merged if it comes in time
        assert outcome["steps"][:common] == list(range(common))


@pytest.mark.parametrize("name", ["join", "rank 0 only"])
def test_rank_0_goes_on_and_names_the_rank_that_is_missing(name: str) -> None:
    found = launch(name)[0]
    assert found["failure"] is None
    assert found["steps"] == list(range(STEPS))
    assert any(note.startswith("rank 1 of 2 sent nothing") for note in found["notes"])


def test_a_watch_without_rank_0_reports_for_itself() -> None:
    found = launch("rank 1 only")[1]
    assert found["failure"] is None
    assert found["steps"] == list(range(STEPS))
    assert any("those of rank 1 alone" in note for note in found["notes"])


def test_the_rank_that_survives_keeps_what_it_has_seen() -> None:
    found = launch("dead")[0]
    assert found["error"]
    assert found["failure"] is None
    assert found["steps"][:4] == list(range(4))


def test_waiting_has_one_limit_for_a_whole_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_WAIT_S", 0.02)
    store = dist.HashStore()
    monkeypatch.setattr(exchange, "_get_store", lambda: store)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    channel = exchange.Exchange("here")
    slept: list[float] = []
    original = time.sleep
    monkeypatch.setattr(time, "sleep", lambda s: (slept.append(s), original(s)))
    assert not channel.wait(["nobody"])
    before = len(slept)
    assert before > 0
    assert not channel.wait(["nobody else"])
    assert len(slept) == before
    channel.put("somebody", b"1")
    assert channel.take("somebody") == b"1"


if __name__ == "__main__":
    for scene in SCENES:
        for size in map(int, sys.argv[1:]):
            without, watched = launch(scene, size, False), launch(scene, size)
            for rank in sorted(watched):
                plain = without[rank]["seconds"]
                print(
                    scene,
                    size,
                    rank,
                    f"{plain:.2f} {watched[rank]['seconds']:.2f}",
                    {k: v for k, v in watched[rank].items() if k not in ("seconds",)},
                )
