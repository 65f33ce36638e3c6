"""FSDP of both kinds over gloo: norms of whole parameters from local shards."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from gradwatch.capture.rank_codec import Codec
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import Session
from gradwatch.records import StepRecord
from gradwatch.verdict.engine import diagnose
from tests.capture.tools import list_keys, make_loop, watch_run
from tests.rank_processes import run_job

fsdp = pytest.importorskip("torch.distributed.fsdp")
pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="this torch has no fully_shard"),
]

WORLD = 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x))


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), Block(), Block(), nn.Linear(6, 3))


def make_batches() -> Tensor:
    return torch.randn(4, 8, 4, generator=torch.Generator().manual_seed(9))


def train(model: nn.Module, rank: int, world: int, watched: bool = True) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    records: list[StepRecord] = []
    session = Session(model, (optimizer,), Schedule(1), records.append)
    if watched:
        session.start()
    losses = []
    for batch in make_batches():
        optimizer.zero_grad()
        loss = model(batch.chunk(world)[rank]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    session.stop()
    return records, losses, repr(session.failure)


def shard_new(model: nn.Module) -> nn.Module:
    mesh = dist.device_mesh.init_device_mesh("cpu", (WORLD,))
    for part in (model[1], model[2], model):
        fsdp.fully_shard(part, mesh=mesh)
    return model


def shard_old(model: nn.Module, use_orig_params: bool) -> nn.Module:
    return fsdp.FullyShardedDataParallel(
        model,
        device_id=torch.device("cpu"),
        auto_wrap_policy=ModuleWrapPolicy({Block}),
        use_orig_params=use_orig_params,
    )


KINDS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "fully_shard": shard_new,
    "original parameters": partial(shard_old, use_orig_params=True),
    "flat parameters": partial(shard_old, use_orig_params=False),
}


def train_twice(rank: int, kind: str) -> list[Any]:
    """Without a watch, and with."""
    return [train(KINDS[kind](make_net()), rank, WORLD, is_watched) for is_watched in (False, True)]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_sharded_parameters(kind: str) -> None:
    if kind == "fully_shard" and not hasattr(torch.cpu.Stream, "record_event"):
        pytest.skip("this torch cannot run fully_shard on a CPU")
    ranks = run_job(train_twice, WORLD, kind)
    assert len(ranks) == WORLD
    single, *_ = train(make_net(), 0, 1)
    for (_, expected, _), (records, losses, failure) in ranks.values():
        assert failure == "None"
        assert losses == expected
        assert len(records) == 4
        kinds = {finding.kind for finding in diagnose(records).findings}
        assert not kinds & {"mishandled", "ranks", "unmoved"}
        for merged, plain in zip(records, single, strict=True):
            compare(merged, plain, kind)


def compare(merged: StepRecord, plain: StepRecord, kind: str) -> None:
    assert list_keys(merged) == list_keys(plain)
    for name in ("grad_output_l2_norm", "output_l2_norm"):
        assert merged.layer(name) == pytest.approx(plain.layer(name), rel=1e-5), name
    for name in ("grad_l2_norm", "weight_l2_norm", "update_l2_norm"):
        found, wanted = merged.param(name), plain.param(name)
        if kind == "flat parameters":  # all parameters of a wrapped part are one
            found, wanted = (np.array([np.linalg.norm(value)]) for value in (found, wanted))
        assert found == pytest.approx(wanted, rel=1e-5), name
    if kind == "fully_shard":  # the older kind tells the shape of the local part only
        shapes = [param.shape for param in merged.layer_set.params]
        assert shapes == [param.shape for param in plain.layer_set.params]


def test_copies_of_a_part_are_counted_once() -> None:
    """Hybrid sharding: two parts on four ranks, each of them twice."""
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = watch_run(model, optimizer, make_loop(model, optimizer, torch.randn(3, 4)))[0]
    codec = Codec(record.layer_set, parts=[2, 1])
    merged = codec.decode(4 * codec.encode(record), record, world=4)
    weight, bias = record.param("grad_l2_norm")
    assert merged.param("grad_l2_norm") == pytest.approx([2**0.5 * weight, bias])
    assert merged.layer("output_l2_norm") == pytest.approx(2 * record.layer("output_l2_norm"))
