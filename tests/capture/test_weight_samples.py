"""Samples of weights through views that are kept for a step: they show what is there now."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradwatch.capture.inventory import Inventory
from gradwatch.capture.sample_rows import StackedRows, match_rows
from gradwatch.capture.weight_samples import WeightSamples

WIDTH = 120  # so that one weight is sampled and the others are read whole


def build() -> tuple[nn.Module, Inventory, WeightSamples]:
    torch.manual_seed(0)
    model, inventory = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.PReLU()), Inventory()
    return model, inventory, inventory.find_weights(inventory.list_watched(model))


def list_rows(samples: list[StackedRows]) -> dict[int, Tensor]:
    return {
        index: row
        for rows in samples
        for index, row in zip(
            rows.table.indices, rows.values.split(rows.table.lengths), strict=True
        )
    }


def move(weight: nn.Parameter) -> None:
    weight.data = weight.data + 1


def shrink(weight: nn.Parameter) -> None:
    weight.data = weight.data[: WIDTH // 2]


def transpose(weight: nn.Parameter) -> None:
    weight.data = weight.data.t().contiguous()


def write(weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight.mul_(2)


@pytest.mark.parametrize("change", [move, shrink, transpose, write])
@pytest.mark.parametrize("takes_again", [False, True])
def test_a_weight_that_has_changed_is_read_as_it_is(
    change: Callable[[nn.Parameter], None], takes_again: bool
) -> None:
    model, inventory, weights = build()
    weights.take()
    change(model[0].weight)
    found = list_rows(weights.take_again() if takes_again else weights.take())
    fresh = list_rows(WeightSamples(inventory.list_watched(model), inventory.gatherer).take())
    assert found.keys() == fresh.keys() == {0, 1, 2}
    assert all(torch.equal(found[index], row) for index, row in fresh.items())


def test_samples_are_taken_over_once_and_by_the_same_parameters_alone() -> None:
    model, inventory, weights = build()
    rows = weights.take()
    inventory.weights = weights
    known = inventory.find_weights(inventory.list_watched(model))
    assert known is weights
    assert known.take_again() is rows
    assert known.take_again() is not rows
    model[1] = nn.PReLU()
    inventory.weights = weights
    assert inventory.find_weights(inventory.list_watched(model)) is not weights


def test_rows_are_matched_by_tensor_and_length() -> None:
    model, _, weights = build()
    (before,) = weights.take()
    assert match_rows(before, before) == ([0, 1, 2], [0, 1, 2])
    shrink(model[0].weight)
    (after,) = weights.take()
    places, others = match_rows(before, after)
    assert [before.table.indices[place] for place in places] == [2, 1]
    assert [after.table.indices[other] for other in others] == [2, 1]
    assert torch.equal(before.choose(places).values, after.choose(others).values)
