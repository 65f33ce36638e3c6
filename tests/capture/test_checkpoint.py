"""Activation checkpointing of both kinds: the recomputation is not counted twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.capture.tools import (
    assert_harmless,
    list_keys,
    make_again,
    make_loop,
    read,
    train,
    watch_run,
)

KINDS = pytest.mark.parametrize("reentrant", [False, True], ids=["non_reentrant", "reentrant"])
SPANS = pytest.mark.parametrize("span", ["blocks", "whole", "activation"])


class Net(nn.Module):
    def __init__(self, reentrant: bool | None, span: str) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.2)) for _ in range(3)
        )
        self.head = nn.Linear(4, 2)
        self.reentrant, self.span = reentrant, span

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None or self.span != "whole":
            return self.body(x)
        return checkpoint(self.body, x, use_reentrant=self.reentrant)

    def body(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            if self.reentrant is None or self.span == "whole":
                x = block(x)
            elif self.span == "blocks":
                x = checkpoint(block, x, use_reentrant=self.reentrant)
            else:
                x = block[2](checkpoint(block[1], block[0](x), use_reentrant=self.reentrant))
        return self.head(x)


@KINDS
@SPANS
def test_equal_to_the_same_without_checkpointing(reentrant: bool, span: str) -> None:
    def make(kind: bool | None = reentrant):
        return Net(kind, span).double(), torch.randn(7, 4, dtype=torch.float64).requires_grad_()

    records = assert_harmless(train(make, steps=3))
    model, x = make_again(lambda: make(None))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plain = watch_run(model, optimizer, make_loop(model, optimizer, x, steps=3))
    for record, expected in zip(records, plain, strict=True):
        assert set(list_keys(record)) - {""} == set(list_keys(expected))
        for key in list_keys(expected):
            for statistic in ("grad_output_l2_norm", "grad_input_l2_norm", "saturated_fraction"):
                found = read(record, statistic, key)
                wanted = read(expected, statistic, key)
                assert found == pytest.approx(wanted, rel=1e-6, nan_ok=True), (key, statistic)
        assert record.param_values == pytest.approx(expected.param_values, rel=1e-6, nan_ok=True)
        assert record.step("passes") == 1


@KINDS
def test_with_accumulation_and_several_segments(reentrant: bool) -> None:
    torch.manual_seed(0)
    model = Net(reentrant, "blocks")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loop() -> None:
        for _ in range(2):
            for _ in range(3):
                model(torch.randn(5, 4).requires_grad_()).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    records = watch_run(model, optimizer, loop)
    assert [record.step("passes") for record in records] == [3, 3]
    assert not any("#" in key for key in list_keys(records[-1]))


def test_a_teacher_without_gradients_is_no_checkpoint() -> None:
    """The same module runs once under ``no_grad`` in training mode, once for real."""
    torch.manual_seed(0)
    model = Net(False, "blocks")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(5, 4)

    def loop() -> None:
        with torch.no_grad():
            target = model(x)
        (model(x) - target).square().sum().backward()
        optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    assert not any("#" in key for key in list_keys(record))
