"""One module called several times, tied weights, loops: an entry per call."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradwatch.capture import calls
from gradwatch.capture.source_lines import find_source_line
from tests.capture.tools import (
    assert_harmless,
    list_keys,
    make_loop,
    read,
    read_param,
    watch_run,
)


class Unrolled(nn.Module):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.cell, self.times = nn.Linear(4, 4), times
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.kept.clear()
        for _ in range(self.times):
            x = self.cell(x)
            x.retain_grad()
            self.kept.append(x)
            x = torch.tanh(x)
        return x


def test_a_module_called_three_times_has_three_entries() -> None:
    model = Unrolled(3).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    record = watch_run(model, optimizer, make_loop(model, optimizer, x, steps=1))[0]
    assert list_keys(record) == ["cell", "tanh", "cell#1", "tanh#1", "cell#2", "tanh#2"]
    assert [layer.inputs for layer in record.layer_set.layers] == [(), (0,), (1,), (2,), (3,), (4,)]
    for key, value in zip(("cell", "cell#1", "cell#2"), model.kept, strict=True):
        expected = value.grad.norm().item()
        assert read(record, "grad_output_l2_norm", key) == pytest.approx(expected, rel=1e-6)


def test_calls_beyond_the_limit_are_said_to_have_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_CALLS", 4)
    model = Unrolled(6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = watch_run(model, optimizer, make_loop(model, optimizer, torch.randn(5, 4)))[0]
    assert "tanh#3" in list_keys(record)
    assert "tanh#4" not in list_keys(record)
    assert "cell: calls after the first 4 of a pass have no entry" in record.layer_set.notes


def test_tied_weights_are_one_parameter_with_two_names() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 4)
            self.head = nn.Linear(4, 9, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embed(ids))

    model = Tied()
    ids = torch.randint(0, 9, (3, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    record = watch_run(model, optimizer, make_loop(model, optimizer, ids, steps=1))[0]
    (param,) = record.layer_set.params
    assert (param.fqn, param.aliases, param.role) == ("embed.weight", ("head.weight",), "embedding")
    assert list_keys(record) == ["embed", "head"]
    expected = model.embed.weight.grad.norm().item()
    assert read_param(record, "grad_l2_norm", "embed.weight") == pytest.approx(expected, rel=1e-6)


def test_one_module_under_two_names_is_one_layer() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    record = watch_run(model, optimizer, make_loop(model, optimizer, torch.randn(2, 4)))[0]
    assert list_keys(record) == ["0", "1", "0#1"]


def test_a_module_that_calls_itself() -> None:
    class Tree(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.join = nn.Linear(8, 4)

        def forward(self, x: Tensor, depth: int = 2) -> Tensor:
            if depth == 0:
                return x
            halves = self(x, depth - 1), self(x.flip(0), depth - 1)
            return self.join(torch.cat(halves, -1)).tanh()

    def build():
        model = Tree()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, optimizer, make_loop(model, optimizer, torch.randn(3, 4))

    record = assert_harmless(build)[0]
    assert sum(layer.fqn == "join" for layer in record.layer_set.layers) == 3


def test_a_call_that_is_missing_once_does_not_begin_a_new_layer_set() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch, self.head = (nn.Linear(4, 4) for _ in range(3))
            self.steps = 0

        def forward(self, x: Tensor) -> Tensor:
            self.steps += 1
            x = self.stem(x)
            return self.head(self.branch(x) if self.steps % 2 else x)

    model = Sometimes()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    records = watch_run(model, optimizer, make_loop(model, optimizer, torch.randn(3, 4), steps=4))
    assert len({record.layer_set.digest for record in records}) == 1
    seen = [read(record, "grad_output_l2_norm", "branch") > 0 for record in records]
    assert seen == [True, False, True, False]
    assert records[0].layer_set.layers[2].inputs == (1,)


def test_a_line_of_an_installed_command_is_nobodys_line() -> None:
    """pip wrote it; the networks that ``gradwatch demo`` trains stand in no user's file."""
    named: dict[str, Any] = {"find_source_line": find_source_line}
    for folder, is_known in ((Path(sysconfig.get_path("scripts")), False), (Path.cwd(), True)):
        code = compile("line = find_source_line()", str(folder / "train"), "exec")
        exec(code, named)
        assert (named["line"] is not None) == is_known
