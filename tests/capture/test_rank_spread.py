"""Ranks that should be equal and are not, over gloo; beside them ranks that differ on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import post_localSGD_hook as local_sgd
from torch.nn.parallel import DistributedDataParallel

import gradwatch
from tests.capture.tools import make_net
from tests.rank_processes import run_job

pytestmark = pytest.mark.distributed

STEPS = 12
KINDS = ("mishandled", "ranks", "unmoved")
Scene = Callable[[int], gradwatch.Report]
Found = list[tuple[str, str | None, tuple[str, ...]]]


def run(
    rank: int,
    model: nn.Module,
    called: nn.Module | None = None,
    before_step: Callable[[], Any] = lambda: None,
    after_step: Callable[[int], Any] = lambda step: None,
    backward: Callable[[Tensor], None] = Tensor.backward,
    clears: bool = True,
) -> gradwatch.Report:
    """An ordinary loop over this rank's part of the data."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(rank)
    with gradwatch.watch(model, optimizer, every_n_steps=1) as watch:
        for step in range(STEPS):
            if clears:
                optimizer.zero_grad()
            x = torch.randn(8, 4, generator=generator)
            backward((called or model)(x).square().mean())
            before_step()
            optimizer.step()
            after_step(step)
    assert watch.failure is None
    return watch.report()


def stay_equal(rank: int) -> gradwatch.Report:
    model = DistributedDataParallel(make_net())
    return run(rank, model, before_step=lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.1))


def view_buckets(rank: int) -> gradwatch.Report:
    """Gradients are views of what is sent, and are set to zero in place."""
    model = DistributedDataParallel(make_net(), gradient_as_bucket_view=True)
    return run(rank, model, after_step=lambda _: model.zero_grad(set_to_none=False))


def replace_a_layer(rank: int) -> gradwatch.Report:
    """Behind the wrapper, which does not know of it; every rank draws its own."""
    inner = make_net()
    model = DistributedDataParallel(inner, find_unused_parameters=True)
    torch.manual_seed(rank)
    inner[2] = nn.Linear(6, 2)
    return run(rank, model)


def move_the_parameters(rank: int) -> gradwatch.Report:
    """After the wrapper was made, and before the optimizer is: these are other tensors."""
    inner = make_net()
    model = DistributedDataParallel(inner, find_unused_parameters=True)
    for layer in (inner[0], inner[2]):
        for name, param in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(param.detach().clone()))
    return run(rank, model, after_step=lambda _: dist.barrier())


def clear_nothing(rank: int) -> gradwatch.Report:
    model = DistributedDataParallel(make_net())
    return run(rank, model, clears=False)


def clear_too_early(rank: int) -> gradwatch.Report:
    model = DistributedDataParallel(make_net())
    return run(rank, model, before_step=model.zero_grad)


def accumulate(rank: int) -> gradwatch.Report:
    """Three passes of a step are sent with the fourth."""
    model = DistributedDataParallel(make_net())
    generator = torch.Generator().manual_seed(rank)

    def backward(loss: Tensor) -> None:
        with model.no_sync():
            for _ in range(3):
                model(torch.randn(8, 4, generator=generator)).square().mean().backward()
        model(torch.randn(8, 4, generator=generator)).square().mean().backward()

    return run(rank, model, called=model.module, backward=backward)


def play_against_each_other(rank: int) -> gradwatch.Report:
    """Two wrapped networks with an optimizer each."""
    torch.manual_seed(0)
    maker = DistributedDataParallel(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)))
    critic = DistributedDataParallel(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)))
    model = nn.ModuleDict({"maker": maker, "critic": critic})
    makes, judges = (torch.optim.SGD(part.parameters(), lr=0.05) for part in (maker, critic))
    generator = torch.Generator().manual_seed(rank)
    with gradwatch.watch(model, (makes, judges), every_n_steps=1) as watch:
        for _ in range(STEPS):
            x, z = torch.randn(2, 8, 4, generator=generator)
            judges.zero_grad()
            (critic(torch.cat([x, maker(z).detach()])).square().mean()).backward()
            judges.step()
            makes.zero_grad()
            (critic(maker(z)) - 1).square().mean().backward()
            makes.step()
    assert watch.failure is None
    return watch.report()


def shard(rank: int) -> gradwatch.Report:
    from torch.distributed.fsdp import fully_shard

    model = make_net()
    for part in (model[0], model[2], model):
        fully_shard(part)
    return run(rank, model, before_step=lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.1))


def call_the_inner_model(rank: int) -> gradwatch.Report:
    """Nothing paces these ranks but a barrier: records of ranks far apart are not compared."""
    model = DistributedDataParallel(make_net())
    return run(rank, model, called=model.module, after_step=lambda _: dist.barrier())


def clip_on_one_rank(rank: int) -> gradwatch.Report:
    model = DistributedDataParallel(make_net())

    def clip() -> None:
        if rank == 1:
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)

    return run(rank, model, before_step=clip)


def lose_a_message(rank: int) -> gradwatch.Report:
    """Rank 1 trains on what it had, once."""
    model, passes = DistributedDataParallel(make_net()), 0

    def average(_: None, bucket: Any) -> Any:
        nonlocal passes
        passes += 1
        own = bucket.buffer().clone()
        work = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
        is_lost = rank == 1 and passes == 4

        def finish(done: Any) -> Tensor:
            return own if is_lost else done.value()[0] / 2

        return work.then(finish)

    average.__annotations__.clear()  # torch wants none, or classes where these are strings
    model.register_comm_hook(None, average)
    return run(rank, model)


def ignore_a_layer(rank: int) -> gradwatch.Report:
    """As the experts of a mixture, of which each rank has its own."""
    inner = make_net()
    names = ["2.weight", "2.bias"]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(inner, names)
    return run(rank, DistributedDataParallel(inner))


def average_now_and_then(rank: int) -> gradwatch.Report:
    """Local SGD by hand, in which the wrapper reduces nothing."""
    model = DistributedDataParallel(make_net())

    def average(step: int) -> None:
        if step % 5 == 4:
            with torch.no_grad():
                for param in model.parameters():
                    dist.all_reduce(param)
                    param /= 2

    with model.no_sync():
        return run(rank, model, after_step=average)


def average_in_a_hook(rank: int) -> gradwatch.Report:
    """Local SGD of torch's own: after two steps no gradient is reduced."""
    model = DistributedDataParallel(make_net())
    state = local_sgd.PostLocalSGDState(None, None, 2, post_local_gradient_allreduce=False)
    model.register_comm_hook(state, local_sgd.post_localSGD_hook)
    return run(rank, model)


def wrap_nothing(rank: int) -> gradwatch.Report:
    return run(rank, make_net())


SCENES: dict[str, tuple[Scene, Found]] = {
    "equal": (stay_equal, []),
    "bucket views": (view_buckets, []),
    "replaced": (replace_a_layer, [("ranks", "not_reduced", ("2",))]),
    "moved": (move_the_parameters, [("ranks", "not_reduced", ("0", "2"))]),
    "not cleared": (clear_nothing, [("mishandled", "not_cleared", ("0", "2"))]),
    "cleared too early": (clear_too_early, [("mishandled", "cleared", ("0", "2"))]),
    "accumulated": (accumulate, []),
    "two players": (play_against_each_other, []),
    "inner": (call_the_inner_model, [("ranks", "not_reduced", ("0", "2"))]),
    "clipped": (clip_on_one_rank, [("ranks", "clipped_apart", ("0", "2"))]),
    "message": (lose_a_message, [("ranks", "weights_apart", ("0", "2"))]),
    "ignored": (ignore_a_layer, []),
    "local SGD": (average_now_and_then, []),
    "local SGD in a hook": (average_in_a_hook, []),
    "unwrapped": (wrap_nothing, []),
}

if hasattr(torch.cpu.Stream, "record_event"):  # else fully_shard does not run on a CPU
    SCENES["sharded"] = shard, []


def play_scenes(rank: int) -> dict[str, tuple[Found, tuple[str, ...]]]:
    results = {}
    for name, (scene, _) in SCENES.items():
        report = scene(rank)
        found = [
            (finding.kind, finding.cause, tuple(sorted(finding.layers)))
            for finding in report.findings
        ]
        results[name] = found, report.unseen
    return results


@pytest.fixture(scope="module")
def reports() -> list[Any]:
    """What each of two ranks reports of each scene; the processes are started once."""
    found = run_job(play_scenes, 2)
    return [found[rank] for rank in range(2)]


@pytest.mark.parametrize("name", SCENES)
def test_both_ranks_say_what_differs(reports: list[Any], name: str) -> None:
    for report in reports:
        found, unseen = report[name]
        assert [finding for finding in found if finding[0] in KINDS] == SCENES[name][1]
        says = any("judged by itself" in note for note in unseen)
        assert says == (name == "unwrapped")
