"""Every row: its unit, how it merges over ranks, whether it follows the loss; and a row of one's
own, from a training to a log and back."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.capture import statistics as capture_statistics
from gradwatch.capture.call_measures import CallMeasures
from gradwatch.capture.device_values import PLAIN, RawValue
from gradwatch.capture.rank_codec import Codec
from gradwatch.capture.rank_messages import join_layer_sets
from gradwatch.errors import InvalidInput
from gradwatch.records import LayerSet, Rows, StepRecord
from gradwatch.schema import statistics
from gradwatch.schema.activations import find_activation
from gradwatch.schema.statistics import (
    STATISTICS,
    CallMerge,
    RankMerge,
    Scope,
    Statistic,
    Unit,
    find_statistic,
    list_names,
    register_statistic,
)
from tests.capture.tools import make_loop, watch_run
from tests.records_builder import build_chain, make_record

every_row = pytest.mark.parametrize("row", STATISTICS.values(), ids=lambda r: f"{r.scope}-{r.name}")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that a test adds are gone behind it."""
    monkeypatch.setattr(statistics, "STATISTICS", dict(STATISTICS))


@every_row
def test_a_row_is_whole(row: Statistic) -> None:
    assert row.scope in get_args(Scope)
    assert row.over_calls in get_args(CallMerge)
    assert row.over_ranks in get_args(RankMerge)
    assert row.name.endswith(row.unit)
    assert not any(row.name.endswith(unit) for unit in get_args(Unit) if unit != row.unit and unit)
    assert row.meaning
    assert find_statistic(row.scope, row.name) is row
    if row.unit == "l2_norm":
        assert row.is_logarithmic
        assert row.over_ranks.startswith("l2")
    if row.unit == "fraction":
        assert "mean" in (row.over_ranks, row.over_calls)
    if row.over_ranks == "l2_of_mean_loss":
        assert row.scales_with_loss


MERGED = {"l2": 5.0, "l2_of_mean_loss": 2.5, "mean": 3.5, "sum": 7.0}
"""Of 3 on one rank and 4 on the other."""


def merge_ranks(values: tuple[float, float], parts: list[int]) -> StepRecord:
    """Records of two ranks, all of whose numbers are the same, as the collective joins them."""
    layer_set = build_chain(2)
    records = []
    for value in values:
        record = make_record(layer_set)
        for array in (record.layer_values, record.param_values, record.step_values):
            array[:] = value
        records.append(record)
    codec = Codec(join_layer_sets([layer_set, layer_set]), parts)
    total = sum(codec.encode(record) for record in records)
    return codec.decode(np.asarray(total), records[0], len(values))


@every_row
def test_ranks_merge_as_the_row_says(row: Statistic) -> None:
    merged = merge_ranks((3.0, 4.0), parts=[2, 2])
    expected = MERGED[row.over_ranks]
    if row.scope == "step":
        assert merged.step(row.name) == pytest.approx(expected)
    elif row.scope == "param":
        assert merged.param(row.name) == pytest.approx(expected)
        copies = merge_ranks((3.0, 4.0), parts=[1, 1])
        assert copies.param(row.name) == pytest.approx(3.5)
    else:
        assert merged.layer(row.name) == pytest.approx(expected)


def test_a_rank_with_another_order_of_rows_is_merged_by_name() -> None:
    layer_set = build_chain(2)
    turned = LayerSet(
        layer_set.layers, layer_set.params, (), Rows(param=Rows().param[::-1], step=("passes",))
    )
    first, second = make_record(layer_set), make_record(layer_set)
    second = StepRecord(
        0, turned, second.layer_values, second.param_values[::-1], second.step_values[:1]
    )
    codec = Codec(join_layer_sets([layer_set, turned]), [1, 1])
    merged = codec.decode(codec.encode(first) + codec.encode(second), first, 2)
    assert merged.layer_set.rows.step == ("passes",)
    np.testing.assert_allclose(merged.param_values, first.param_values)


class Kept(nn.Module):
    """Keeps every call's input and output, so that a test can compute from them."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)
        self.layers = nn.Sequential(*layers).double()
        nn.init.constant_(layers[0].bias[:3], -99.0)
        nn.init.normal_(layers[2].weight, std=3.0)
        self.kept: dict[str, tuple[Tensor, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.layers.named_children():
            y = layer(x)
            y.retain_grad()
            self.kept[f"layers.{name}"] = x, y
            x = y
        return x


@pytest.fixture(scope="module")
def measured() -> tuple[Kept, dict[str, Tensor], StepRecord]:
    """The last of three steps over one batch, too small to matter but for its own update."""
    torch.manual_seed(0)
    model = Kept()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    loop = make_loop(model, optimizer, torch.randn(128, 5, dtype=torch.float64), steps=1)
    with gradwatch.watch(model, optimizer, every_n_steps=1) as watch:
        for _ in range(3):
            before = {name: param.detach().clone() for name, param in model.named_parameters()}
            loop()
    return model, before, watch.report().history.records[-1]


WITH_FORMULA = [row for row in STATISTICS.values() if row.formula]


def list_facts(row: Statistic, model: Kept, before: dict[str, Tensor]) -> list[dict[str, Any]]:
    """What the row's formula may name, for each of its places in order."""
    if row.scope == "param":
        return [
            {"grad": param.grad, "weight": before[name], "update": param.detach() - before[name]}
            for name, param in model.named_parameters()
        ]
    places = []
    for name, (x, y) in model.kept.items():
        facts = {"output": y.detach(), "grad_output": y.grad, "grad_input": x.grad}
        known = find_activation(type(model.get_submodule(name)).__name__)
        if known:
            facts |= {"slope": known.derivative(x, y, {}).detach(), "steepest": known.maximum}
        is_of_rectifiers = row.name in ("zero_fraction", "dead_fraction")
        applies = known and (known.can_die or not is_of_rectifiers)
        places.append(facts if row.scope == "layer" or applies else {})
    return places


def evaluate(row: Statistic, facts: dict[str, Any]) -> float:
    """NaN where the row does not apply, as the gradient of an input that has none."""
    try:
        return float(eval(row.formula, dict(facts)))
    except (NameError, AttributeError):
        return math.nan


@pytest.mark.parametrize("row", WITH_FORMULA, ids=lambda r: f"{r.scope}-{r.name}")
def test_the_formula_of_a_row_is_what_is_measured(row: Statistic, measured) -> None:
    model, before, record = measured
    expected = [evaluate(row, facts) for facts in list_facts(row, model, before)]
    if row.scope == "param":
        found = record.param(row.name)
    else:
        names = [layer.fqn for layer in record.layer_set.layers]
        found = record.layer(row.name)[[names.index(name) for name in model.kept]]
    assert found == pytest.approx(expected, rel=1e-5, nan_ok=True)


def run(factor: float) -> StepRecord:
    """One step under Adam, whose update does not know the loss's scale."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    model.double()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-30)
    x = torch.randn(16, 5, dtype=torch.float64)
    loop = make_loop(model, optimizer, x, steps=1, loss_fn=lambda y: factor * y.square().mean())
    return watch_run(model, optimizer, loop)[0]


@pytest.fixture(scope="module")
def scaled() -> tuple[StepRecord, StepRecord]:
    return run(1.0), run(4.0)


@every_row
def test_what_follows_the_loss_says_so(row: Statistic, scaled) -> None:
    plain, larger = (
        np.atleast_1d(
            getattr(record, "layer" if row.scope == "activation" else row.scope)(row.name)
        )
        for record in scaled
    )
    assert larger == pytest.approx(plain * (4.0 if row.scales_with_loss else 1.0), nan_ok=True)


@pytest.mark.usefixtures("registry")
def test_a_name_that_is_taken_or_hides_its_unit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="taken"):
        register_statistic(Statistic("zero_fraction", "layer", "fraction", "mean", "mean", "zeros"))
    with pytest.raises(InvalidInput, match="ends in its unit"):
        register_statistic(Statistic("energy", "layer", "l2_norm", "l2", "l2", "||y||"))


@pytest.mark.usefixtures("registry")
def test_a_new_statistic_takes_its_row_and_the_line_that_measures_it(monkeypatch) -> None:
    row = Statistic("output_mean", "layer", "", "mean", "mean", "mean of the output")
    assert register_statistic(row).name in list_names("layer")
    measure = CallMeasures.measure_activation

    def measure_more(self, call, activation, x, y, options):
        measure(self, call, activation, x, y, options)
        self._table.note("output_mean", call, RawValue(y.detach().sum(), PLAIN, y.numel()))

    monkeypatch.setattr(CallMeasures, "measure_activation", measure_more)
    record = run(1.0)
    known = record.layer("output_mean")
    tanh = [layer.type for layer in record.layer_set.layers].index("Tanh")
    assert 0 < abs(known[tanh]) < 1
    again = StepRecord.from_vector(
        0, LayerSet.from_json(record.layer_set.to_json()), record.to_vector()
    )
    np.testing.assert_allclose(again.layer("output_mean"), known, rtol=1e-6)
    assert capture_statistics.find_merge("output_mean") == "mean"


def test_a_statistic_that_nobody_knows_is_refused() -> None:
    record = make_record(build_chain(2))
    for ask in (record.layer, record.param, record.step):
        with pytest.raises(InvalidInput, match=r"statistic among .*, got 'colour'"):
            ask("colour")


def test_what_is_registered_but_not_in_a_record_is_nan() -> None:
    record = make_record(build_chain(2))
    rows = Rows(step=("passes",), param=("grad_l2_norm",))
    old = StepRecord(
        0,
        LayerSet(record.layer_set.layers, record.layer_set.params, (), rows),
        record.layer_values,
        record.param_values[:1],
        record.step_values[:1],
    )
    assert np.isnan(old.param("update_l2_norm")).all()
    assert old.param("update_l2_norm").shape == (2,)
    assert math.isnan(old.step("loss"))
    assert old.step("passes") == 1
