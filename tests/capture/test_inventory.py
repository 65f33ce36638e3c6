"""Modules and parameters are listed once, and again where something was exchanged."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
from torch import nn

from gradwatch.capture.inventory import Inventory
from gradwatch.capture.parameters import list_parameters
from gradwatch.capture.wrappers import name_modules


def make_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))


def replace_parameter(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(model[0].weight.detach().clone())


def tie(model: nn.Sequential) -> None:
    model[1].add_module("again", model[1][1])


def rename(model: nn.Sequential) -> None:
    model[0].register_parameter("scale", model[0]._parameters.pop("bias"))


def freeze(model: nn.Sequential) -> None:
    model[0].weight.requires_grad_(False)


def shrink(model: nn.Sequential) -> None:
    del model[1][1]


@pytest.mark.parametrize("change", [replace_parameter, tie, rename, freeze, shrink])
def test_a_changed_model_is_listed_as_it_is(change: Callable[[nn.Sequential], None]) -> None:
    model, inventory = make_model(), Inventory()
    for _ in range(2):
        assert_lists(inventory, model)
    change(model)
    for _ in range(2):
        assert_lists(inventory, model)


def assert_lists(inventory: Inventory, model: nn.Module) -> None:
    modules = name_modules(model)
    found, expected = inventory.list_watched(model), list_parameters(modules)
    assert [entry.fqn for entry in found] == [entry.fqn for entry in expected]
    assert all(entry.param is other.param for entry, other in zip(found, expected, strict=True))
    assert [entry.was_trainable for entry in found] == [entry.was_trainable for entry in expected]
    assert inventory.modules == {id(module): fqn for fqn, module in modules}


def test_a_lazy_parameter_is_listed_once_it_exists() -> None:
    model, inventory = nn.Sequential(nn.LazyLinear(4)), Inventory()
    assert inventory.list_watched(model) == []
    model[0].initialize_parameters(nn.Linear(3, 1).weight.new_zeros(5, 3))
    assert [entry.fqn for entry in inventory.list_watched(model)] == ["0.weight", "0.bias"]


def test_an_inventory_keeps_nothing_alive() -> None:
    model, inventory = make_model(), Inventory()
    inventory.list_watched(model)
    seen = weakref.ref(model), weakref.ref(model[0].weight)
    del model
    gc.collect()
    assert [ref() for ref in seen] == [None, None]
