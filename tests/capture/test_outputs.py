"""Outputs and inputs of every shape: tuples, dicts, dataclasses, keyword arguments, no tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.capture.tools import (
    assert_harmless,
    list_keys,
    make_again,
    make_loop,
    read,
    train,
    watch_run,
)


@dataclass
class Pair:
    left: Tensor
    right: Tensor
    label: str = "two"


class Named(NamedTuple):
    left: Tensor
    right: Tensor


WRAPS = {
    "tuple": lambda a, b: (a, b),
    "list": lambda a, b: [a, b],
    "dict": lambda a, b: {"left": a, "right": b, "mode": "x", "none": None},
    "dataclass": Pair,
    "named": Named,
    "nested": lambda a, b: {"deep": [(a,), {"b": b}], "count": 3},
}


def unwrap(value: Any) -> tuple[Tensor, Tensor]:
    if isinstance(value, dict):
        deep = value.get("deep")
        return (deep[0][0], deep[1]["b"]) if deep else (value["left"], value["right"])
    return (value.left, value.right) if hasattr(value, "left") else tuple(value)


class Twin(nn.Linear):
    """A layer with weights of its own and two outputs."""

    def __init__(self, kind: str) -> None:
        super().__init__(4, 4)
        self.kind = kind

    def forward(self, *, x: Tensor, scale: float, mode: str = "a", extra: Any = None) -> Any:
        y = super().forward(x)
        return WRAPS[self.kind](y * scale, torch.exp(-y))


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.stem, self.twin, self.never = nn.Linear(3, 4), Twin(kind), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = unwrap(self.twin(x=self.stem(x), scale=2.0, extra={"mask": [None]}))
        return left * right


@pytest.mark.parametrize("kind", sorted(WRAPS))
def test_structured_outputs_and_keyword_inputs(kind: str) -> None:
    def make():
        return Net(kind).double(), torch.randn(5, 3, dtype=torch.float64)

    record = assert_harmless(train(make))[0]
    assert list_keys(record)[:2] == ["stem", "twin"]
    model, x = make_again(make)
    h = model.stem(x).detach().requires_grad_()
    left, right = unwrap(model.twin(x=h, scale=2.0))
    left.retain_grad()
    right.retain_grad()
    (left * right).square().mean().backward()
    expected = (left.grad.square().sum() + right.grad.square().sum()).sqrt().item()
    assert read(record, "grad_output_l2_norm", "twin") == pytest.approx(expected, rel=1e-6)
    found = read(record, "grad_input_l2_norm", "twin")
    assert found == pytest.approx(h.grad.norm().item(), rel=1e-6)
    assert not next(p for p in record.layer_set.params if p.fqn == "never.weight").used


def test_outputs_without_a_tensor_or_a_gradient() -> None:
    class Count(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x.shape[0], "text", None, x.argmax(-1)

    class Host(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count, self.body = Count(), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.count(x)
            return self.body(x)

    model = Host()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = watch_run(model, optimizer, make_loop(model, optimizer, torch.randn(2, 3)))[0]
    assert list_keys(record) == ["body"]


def test_pieces_of_one_output() -> None:
    """``chunk`` and slices of a layer's output: the gradient is the whole one."""

    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 6), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.body(x)
            self.kept.retain_grad()
            a, b = self.kept.chunk(2, -1)
            return self.head(a * b.sigmoid())

    model = Split().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(4, 3, dtype=torch.float64)
    record = watch_run(model, optimizer, make_loop(model, optimizer, x, steps=1))[0]
    expected = model.kept.grad.norm().item()
    assert read(record, "grad_output_l2_norm", "body") == pytest.approx(expected, rel=1e-6)
