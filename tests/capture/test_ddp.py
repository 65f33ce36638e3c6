"""DistributedDataParallel over gloo: one record for the job, the same on every rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradwatch.capture import ranks
from gradwatch.capture.rank_spread import ROWS
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import Session
from gradwatch.records import LAYER_STATISTICS, PARAM_STATISTICS, StepRecord
from tests.capture.tools import list_keys, take_state
from tests.rank_processes import run_job

pytestmark = pytest.mark.distributed


class Net(nn.Module):
    def __init__(self, branches: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)
        self.extra = nn.ModuleList(nn.Linear(6, 6) for _ in range(2)) if branches else None
        self.branch = 0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.first(x))
        if self.extra is not None:
            x = self.extra[self.branch](x)
        return self.second(torch.relu(x))


def make_batches(steps: int) -> Tensor:
    return torch.randn(steps, 8, 4, generator=torch.Generator().manual_seed(9))


def train(
    model: nn.Module, watched: nn.Module | None, parts: Callable[[Tensor], Tensor], steps: int = 5
) -> tuple[list[StepRecord], dict[str, Any], BaseException | None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    records: list[StepRecord] = []
    session = Session(watched or model, (optimizer,), Schedule(1), records.append)
    if watched is not None:
        session.start()
    for batch in make_batches(steps):
        optimizer.zero_grad()
        model(parts(batch)).square().mean().backward()
        optimizer.step()
    session.stop()
    return records, take_state(model, (optimizer,)), session.failure


def run_cases(rank: int, world: int, names: list[str]) -> dict[str, Any]:
    return {name: CASES[name](rank, world) for name in names}


def launch(names: list[str], world: int) -> dict[str, list[Any]]:
    """What each rank gave in each case; the processes are started once."""
    found = run_job(run_cases, world, world, names)
    return {name: [found[rank][name] for rank in range(world)] for name in names}


@pytest.fixture(scope="module")
def two() -> dict[str, list[Any]]:
    return launch(["plain", "inner", "inside", "branches", "alone"], 2)


@pytest.fixture(scope="module")
def four() -> dict[str, list[Any]]:
    return launch(["plain", "many"], 4)


def choose(rank: int, world: int) -> Callable[[Tensor], Tensor]:
    return lambda batch: batch.chunk(world)[rank]


def run_plain(rank: int, world: int) -> Any:
    torch.manual_seed(0)
    model = DistributedDataParallel(Net())
    _, state, _ = train(model, None, choose(rank, world))
    collectives: list[int] = []
    original = dist.all_reduce

    def count(*args: Any, **kwargs: Any) -> Any:
        collectives.append(1)
        return original(*args, **kwargs)

    torch.manual_seed(0)
    model = DistributedDataParallel(Net())
    dist.all_reduce = count
    records, watched_state, failure = train(model, model, choose(rank, world))
    dist.all_reduce = original
    same = all(
        torch.equal(state["weights"][key], watched_state["weights"][key])
        for key in state["weights"]
    )
    return records, same, failure, len(collectives)


def run_inner(rank: int, world: int) -> Any:
    """The model inside the wrapper is what was handed to the watch."""
    torch.manual_seed(0)
    model = DistributedDataParallel(Net())
    return train(model, model.module, choose(rank, world))[::2]


def run_branches(rank: int, world: int) -> Any:
    """Each rank's data takes another branch, and the branches change on the way."""
    torch.manual_seed(0)
    inner = Net(branches=True)
    model = DistributedDataParallel(inner, find_unused_parameters=True)
    inner.branch = rank % 2
    return train(model, model, choose(rank, world))[::2]


def run_alone(rank: int, world: int) -> Any:
    """Only rank 0 is watched: nobody waits for the others for ever."""
    torch.manual_seed(0)
    model = DistributedDataParallel(Net())
    return train(model, model if rank == 0 else None, choose(rank, world))[::2]


class Outer(nn.Module):
    def __init__(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.module = nn.ModuleDict({"net": wrap(Net())})

    def forward(self, x: Tensor) -> Tensor:
        return self.module["net"](x)


def run_inside(rank: int, world: int) -> Any:
    """The wrapper is a part of what is watched; ``module`` is also a name of the user's."""
    torch.manual_seed(0)
    model = Outer(DistributedDataParallel)
    return train(model, model, choose(rank, world))[::2]


def run_many(rank: int, world: int) -> Any:
    """More ranks than are merged."""
    ranks.MOST_MERGED = 2
    try:
        torch.manual_seed(0)
        model = DistributedDataParallel(Net())
        return train(model, model, choose(rank, world))[::2]
    finally:
        ranks.MOST_MERGED = 256


CASES = {
    "many": run_many,
    "inside": run_inside,
    "plain": run_plain,
    "inner": run_inner,
    "branches": run_branches,
    "alone": run_alone,
}


def run_single() -> list[StepRecord]:
    torch.manual_seed(0)
    model = Net()
    return train(model, model, lambda batch: batch)[0]


@pytest.mark.parametrize("world", ["two", "four"])
def test_equal_to_one_process_on_the_same_batch(world: str, request: pytest.FixtureRequest) -> None:
    results = request.getfixturevalue(world)["plain"]
    expected = run_single()
    for records, same, failure, collectives in results:
        assert failure is None
        assert same
        assert collectives == 0  # none of ours, for which a rank would have to come
        assert len(records) == 5
    for step, single in enumerate(expected):
        merged = [records[step] for records, *_ in results]
        for record in merged:
            assert record.to_vector() == pytest.approx(merged[0].to_vector(), nan_ok=True, abs=0)
            assert record.layer_set == merged[0].layer_set
        assert list_keys(merged[0]) == list_keys(single)
        for row, name in enumerate(LAYER_STATISTICS):
            if name == "dead_fraction":  # each rank knows its own units only: an upper bound
                continue
            found, wanted = merged[0].layer_values[row], single.layer_values[row]
            if name == "unit_samples" and not (found > 0).any():
                continue
            assert found == pytest.approx(wanted, rel=1e-5, nan_ok=True), name
        for row, name in enumerate(PARAM_STATISTICS):
            found, wanted = merged[0].param_values[row], single.param_values[row]
            if name in ROWS:  # what one process cannot have
                assert (found == 0).all(), name
            else:
                assert found == pytest.approx(wanted, rel=1e-5, nan_ok=True), name
        assert merged[0].step_values == pytest.approx(single.step_values)


def test_the_model_inside_the_wrapper(two: dict[str, list[Any]]) -> None:
    first, second = two["inner"]
    for step, single in enumerate(run_single()):
        for records, failure in (first, second):
            assert failure is None
            grads = records[step].layer("grad_output_l2_norm")
            assert grads == pytest.approx(single.layer("grad_output_l2_norm"), rel=1e-5)


def test_wrappers_inside_the_model_are_merged_and_no_part_of_names(
    two: dict[str, list[Any]],
) -> None:
    torch.manual_seed(0)
    model = Outer(lambda net: net)
    expected = train(model, model, lambda batch: batch)[0]
    for records, failure in two["inside"]:
        assert failure is None
        for merged, single in zip(records, expected, strict=True):
            assert list_keys(merged) == list_keys(single)
            names = [
                [param.fqn for param in record.layer_set.params] for record in (merged, single)
            ]
            assert names[0] == names[1]
            grads = merged.layer("grad_output_l2_norm")
            assert grads == pytest.approx(single.layer("grad_output_l2_norm"), rel=1e-5)


def test_ranks_that_take_different_branches(two: dict[str, list[Any]]) -> None:
    for records, failure in two["branches"]:
        assert failure is None
        assert {"extra.0", "extra.1"} <= set(list_keys(records[-1]))
        assert (records[-1].layer("grad_output_l2_norm") > 0).all()


def test_a_watch_on_one_rank_only(two: dict[str, list[Any]]) -> None:
    (records, failure), (others, _) = two["alone"]
    assert failure is None
    assert len(records) == 5
    assert not others


def test_of_many_ranks_an_even_choice_is_merged(four: dict[str, list[Any]]) -> None:
    single = run_single()
    for records, failure in four["many"]:
        assert failure is None
        assert len(records) == 5
        for merged, wanted, first in zip(records, single, four["many"][0][0], strict=True):
            assert merged.to_vector() == pytest.approx(first.to_vector(), nan_ok=True, abs=0)
            assert any("2 of 4 ranks" in note for note in merged.layer_set.notes)
            grads = merged.param("grad_l2_norm")  # reduced over all ranks already
            assert grads == pytest.approx(wanted.param("grad_l2_norm"), rel=1e-5)
            layers = merged.layer("grad_output_l2_norm")
            assert layers == pytest.approx(wanted.layer("grad_output_l2_norm"), rel=0.8)
