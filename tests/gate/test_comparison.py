"""compare: layers that learn less, by the spread of several runs or by a factor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from gradwatch.errors import NothingToJudge
from gradwatch.gate.comparison import Comparison, compare_logdirs, compare_runs
from gradwatch.log.writer import EventLog
from gradwatch.output.comparison import describe_comparison, render_comparison
from gradwatch.records import StepRecord
from gradwatch.run_marks import RunDescription, RunHeader
from gradwatch.thresholds import Thresholds
from tests.gate.runs import damage, write_records
from tests.records_builder import build_chain, change, change_param, make_record

NAMES = [f"fc{number}" for number in range(4)]


def make_run(
    seed: int = 0, noise: float = 0.1, activation: str = "ReLU", steps: int = 20, **slower: float
) -> list[StepRecord]:
    """A chain whose weights move about alike; ``fc2=0.01`` slows one down."""
    rng = np.random.default_rng(seed)
    layer_set = build_chain(4, activation)
    own = {name: 10 ** rng.normal(0, noise) * slower.get(name, 1.0) for name in NAMES}
    record = make_record(layer_set)
    updates = {f"{name}.weight": 1e-3 * factor for name, factor in own.items()}
    record = change_param(record, "update_l2_norm", updates)
    return [replace(record, global_step=step) for step in range(steps)]


def compare(tmp_path: Path, olds, news, **options) -> Comparison:
    for side, runs in (("a", olds), ("b", news)):
        for number, records in enumerate(runs):
            write_records(tmp_path / side / str(number), records)
    return compare_logdirs(str(tmp_path / "a"), str(tmp_path / "b"), **options)


def list_layers(comparison: Comparison) -> list[tuple[str, str]]:
    return [(regression.fqn, regression.measure.name) for regression in comparison.regressions]


def test_the_same_twice(tmp_path: Path) -> None:
    comparison = compare(tmp_path, [make_run()], [make_run()])
    assert comparison.status == 0
    assert comparison.steps == tuple(range(20))
    assert comparison.n_layers == 7


@dataclass
class ReadRun:
    """A run as a server holds it, read from nothing."""

    entries: list[StepRecord]
    label: str = "run"
    damage: tuple[str, ...] = ()
    header: RunHeader | None = None

    def records(self) -> list[StepRecord]:
        return self.entries


def test_runs_that_are_read_already() -> None:
    old, new = (ReadRun(make_run(noise=0, fc2=factor)) for factor in (1.0, 0.01))
    content = describe_comparison(compare_runs([old], [new]))
    assert (content["status"], content["layers"]) == (1, 7)
    (row,) = content["regressions"]
    assert (row["layer"], row["measure"]) == ("fc2", "update_ratio")
    assert row["words"].startswith("fc2: update per step fell")


@pytest.mark.parametrize(("slower", "status"), [(0.12, 0), (0.08, 1)])
def test_a_single_run_allows_a_factor_of_ten(tmp_path: Path, slower, status) -> None:
    comparison = compare(tmp_path, [make_run(noise=0)], [make_run(noise=0, fc2=slower)])
    assert comparison.status == status
    assert list_layers(comparison) == [("fc2", "update_ratio")][:status]


def test_a_factor_of_ones_own(tmp_path: Path) -> None:
    olds, news = [make_run(noise=0)], [make_run(noise=0, fc2=0.4)]
    assert compare(tmp_path, olds, news, factor=2.0).status == 1
    assert compare(tmp_path, olds, news, factor=3.0).status == 0


def test_several_runs_tell_how_far_they_lie_apart(tmp_path: Path) -> None:
    olds = [make_run(seed, noise=0.05) for seed in range(4)]
    news = [make_run(seed, noise=0.05) for seed in range(4, 8)]
    assert compare(tmp_path / "alike", olds, news).status == 0
    slow = [make_run(seed, noise=0.05, fc1=0.2) for seed in range(4, 8)]
    assert list_layers(compare(tmp_path / "slow", olds, slow)) == [("fc1", "update_ratio")]
    wide = [make_run(seed, noise=0.4) for seed in range(4)]
    assert compare(tmp_path / "wide", wide, slow).status == 0


def test_dead_units(tmp_path: Path) -> None:
    dying = [change(record, "dead_fraction", {"act1": 0.6}) for record in make_run(noise=0)]
    comparison = compare(tmp_path, [make_run(noise=0)], [dying])
    assert list_layers(comparison) == [("act1", "dead_fraction")]
    assert str(comparison.regressions[0]) == (
        "act1: dead units rose from 0% to 60% (allowed: 50% more)"
    )


def test_gradient(tmp_path: Path) -> None:
    layer_set = build_chain(4, "ReLU")
    weak = make_record(layer_set, gains={"act2": 1e-2}, update_ratio=1e-3)
    full = make_record(layer_set, update_ratio=1e-3)
    runs = [[replace(record, global_step=step) for step in range(9)] for record in (full, weak)]
    comparison = compare(tmp_path, [runs[0]], [runs[1]])
    assert set(list_layers(comparison)) == {(name, "grad_ratio") for name in ("fc0", "fc1", "fc2")}


def test_a_layer_that_stands_still_late_is_seen_by_its_gradient(tmp_path: Path) -> None:
    layer_set = build_chain(4, "ReLU")
    full = make_record(layer_set, update_ratio=1e-3)
    cut = make_record(layer_set, gains={"act2": 0.0}, update_ratio=1e-3)
    late = [replace(full if step < 9 else cut, global_step=step) for step in range(20)]
    well = [replace(full, global_step=step) for step in range(20)]
    layers = {fqn for fqn, _ in list_layers(compare(tmp_path, [well], [late]))}
    assert layers == {"fc0", "fc1", "fc2"}


def test_a_share_of_the_loss_change_counts_only_with_the_layers_own_update(tmp_path) -> None:
    def run(name: str, change: float, **slower: float) -> list[StepRecord]:
        shares = {**{f"{other}.weight": -1.0 for other in NAMES}, f"{name}.weight": change}
        return [
            change_param(record, "loss_change", shares) for record in make_run(noise=0, **slower)
        ]

    base = [run("fc1", -1.0)]
    louder = compare(tmp_path / "louder", base, [run("fc1", -1000.0)])
    assert louder.regressions == ()
    less = compare(tmp_path / "less", base, [run("fc1", -0.01, fc1=0.01)])
    assert set(list_layers(less)) == {("fc1", "loss_change"), ("fc1", "update_ratio")}


def test_a_measure_that_another_kind_of_layer_lacks_is_no_regression(tmp_path: Path) -> None:
    records = make_run(noise=0)
    other = [change(record, "dead_fraction", {"act1": np.nan}) for record in records]
    assert compare(tmp_path, [records], [other]).status == 0


def test_a_layer_that_has_no_numbers_any_more_is_worse(tmp_path: Path) -> None:
    frozen = [
        change_param(record, "update_l2_norm", {"fc2.weight": np.nan}) for record in make_run()
    ]
    (regression,) = compare(tmp_path, [make_run()], [frozen]).regressions
    assert (regression.fqn, regression.after) == ("fc2", None)
    assert "is no number any more" in str(regression)


@pytest.mark.parametrize(("n_params", "n_trainable", "status"), [(9, 5, 1), (9, 9, 2), (8, 5, 2)])
def test_a_layer_that_is_frozen_is_worse_and_one_that_went_is_not_compared(
    n_params: int, n_trainable: int, status: int
) -> None:
    shorter = make_record(build_chain(3, "ReLU"), update_ratio=1e-3)
    records = [replace(shorter, global_step=step) for step in range(20)]
    headers = [
        RunHeader("0" * 8, description=RunDescription(n_params=all_, n_trainable=some))
        for all_, some in ((9, 9), (n_params, n_trainable))
    ]
    old = ReadRun(make_run(noise=0), header=headers[0])
    comparison = compare_runs([old], [ReadRun(records, header=headers[1])])
    assert comparison.status == status
    assert ("fc3", "update_ratio") in list_layers(comparison) or status == 2


def test_faster_is_not_worse(tmp_path: Path) -> None:
    assert compare(tmp_path, [make_run()], [make_run(fc2=100.0)]).status == 0


class TestCannotBeCompared:
    def test_no_common_steps(self, tmp_path: Path) -> None:
        late = [replace(record, global_step=record.global_step + 100) for record in make_run()]
        with pytest.raises(NothingToJudge, match="sampled steps that all runs share, got 0"):
            compare(tmp_path, [make_run()], [late])

    def test_no_common_layers(self, tmp_path: Path) -> None:
        record = make_record(_rename(build_chain(2)))
        other = [replace(record, global_step=step) for step in range(9)]
        with pytest.raises(NothingToJudge, match="trainings of the same model"):
            compare(tmp_path, [make_run()], [other])

    def test_a_layer_that_went_is_said_and_is_no_pass(self, tmp_path: Path) -> None:
        record = make_record(build_chain(3, "ReLU"), update_ratio=1e-3)
        shorter = [replace(record, global_step=step) for step in range(20)]
        comparison = compare(tmp_path, [make_run()], [shorter])
        assert comparison.status == 2
        assert "has no layer act2, fc3" in comparison.warnings[0]

    def test_damage_is_no_pass(self, tmp_path: Path) -> None:
        write_records(tmp_path / "a" / "0", make_run(steps=40))
        write_records(tmp_path / "b" / "0", make_run(steps=40))
        damage(tmp_path / "b" / "0")
        comparison = compare_logdirs(str(tmp_path / "a"), str(tmp_path / "b"))
        assert comparison.status == 2
        assert "0 is damaged" in comparison.warnings[0]

    @pytest.mark.parametrize(("records", "allowed"), [(20, True), (0, False)])
    def test_a_training_that_broke_off_is_no_pass(self, tmp_path, records, allowed) -> None:
        for side in ("a", "b"):
            write_records(tmp_path / side / "0", make_run())
        log = EventLog(tmp_path / "b" / "1")
        log.begin(Thresholds(), RunDescription())
        for record in make_run(steps=records):
            log.write_record(record)
        log.close()
        sides = str(tmp_path / "a"), str(tmp_path / "b")
        comparison = compare_logdirs(*sides)
        assert comparison.status == 2
        assert "1 is not finished: it has no end" in comparison.warnings[0]
        assert "! Not compared whole" in next(render_comparison(comparison)).plain
        assert compare_logdirs(*sides, allow_unfinished=True).status == (0 if allowed else 2)


def _rename(layer_set):
    layers = tuple(replace(layer, fqn=f"other.{layer.fqn}") for layer in layer_set.layers)
    params = tuple(
        replace(param, fqn=f"other.{param.fqn}", module=f"other.{param.module}")
        for param in layer_set.params
    )
    return replace(layer_set, layers=layers, params=params)
