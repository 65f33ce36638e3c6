"""Logs of other versions: the rows that they lack, and those that only they have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gradwatch.errors import UnreadableLog
from gradwatch.judgement import judge_logdir
from gradwatch.log.reader import read_runs
from gradwatch.log.writer import EventLog
from gradwatch.records import ROWS_OF_SCHEMA_2, LayerSet, Rows, StepRecord
from gradwatch.verdict.engine import diagnose
from tests.records_builder import build_chain, make_record, repeat

DATA = Path(__file__).parent / "data"
"""``schema_2`` was written by the version before rows were named: nine Sigmoid layers, 12 steps."""


def test_a_log_that_does_not_name_its_rows_is_judged_as_when_it_was_written() -> None:
    (verdict,) = judge_logdir(str(DATA / "schema_2")).verdicts
    (finding,) = verdict.findings
    assert (finding.code, finding.kind, finding.severity) == ("GW101", "vanishing", "critical")
    assert finding.cause == "activation_derivative"
    assert finding.layers == ("0", "2", "4", "6", "8", "10", "12")
    assert (finding.first_step, finding.last_step, verdict.records) == (0, 11, 12)
    assert finding.observed == pytest.approx(6.178522390742416e-08, rel=1e-6)


def test_its_records_have_its_own_rows() -> None:
    (run,) = read_runs(DATA / "schema_2")
    record = next(iter(run.records()))
    assert record.layer_set.rows == ROWS_OF_SCHEMA_2
    assert record.layer("grad_output_l2_norm").shape == (19,)
    assert np.isfinite(record.param("weight_l2_norm")).all()
    assert np.isnan(record.param("loss_change")).all()
    again = StepRecord.from_vector(0, record.layer_set, record.to_vector())
    np.testing.assert_array_equal(again.layer_values, record.layer_values)


def write_and_read(records: list[StepRecord], path: Path) -> list[StepRecord]:
    log = EventLog(path)
    for record in records:
        log.write_record(record)
    log.close()
    (run,) = read_runs(path)
    return list(run.records())


def make_vanishing(times: int = 10) -> list[StepRecord]:
    return repeat(make_record(build_chain(10), gains={"Sigmoid": 0.22}), times)


def with_more(record: StepRecord, layer_set: LayerSet) -> StepRecord:
    """As a later version would write it: one more row of each scope, in front of the others."""
    values = record.layer_values
    activations = np.where(np.isnan(record.layer("derivative_mean")), np.nan, 4.0)
    layer_values = np.vstack((np.full(values.shape[1], 3.0), values[:4], activations, values[4:]))
    param_values = np.vstack((np.arange(float(len(layer_set.params))), record.param_values))
    step_values = np.concatenate(([2.0], record.step_values))
    return replace(
        record,
        layer_set=layer_set,
        layer_values=layer_values,
        param_values=param_values,
        step_values=step_values,
    )


def test_rows_that_only_the_log_knows_are_kept(tmp_path: Path) -> None:
    plain = make_vanishing()
    known, own = plain[0].layer_set, Rows()
    rows = Rows(
        step=("phase", *own.step),
        layer=("heat", *own.layer),
        activation=("colour", *own.activation),
        param=("age", *own.param),
    )
    layer_set = LayerSet(known.layers, known.params, known.notes, rows)
    records = write_and_read([with_more(record, layer_set) for record in plain], tmp_path)
    assert records[0].layer_set == layer_set
    assert (records[0].layer("heat") == 3).all()
    assert np.nansum(records[0].layer("colour")) == 4 * 9
    assert records[0].param("age").tolist() == list(range(10))
    assert records[0].step("phase") == 2
    assert records[0].to_vector().tobytes() == with_more(plain[0], layer_set).to_vector().tobytes()
    assert diagnose(records).to_dict() == diagnose(write_and_read(plain, tmp_path / "b")).to_dict()


def test_rows_that_the_log_lacks_are_nan(tmp_path: Path) -> None:
    lacking = Rows(layer=Rows().layer[:3], step=Rows().step[:-1])
    records = []
    for record in make_vanishing():
        layer_set = LayerSet(record.layer_set.layers, record.layer_set.params, (), lacking)
        values = np.delete(record.layer_values, 3, axis=0)
        shorter = replace(record, layer_values=values, step_values=record.step_values[:-1])
        records.append(replace(shorter, layer_set=layer_set))
    found = write_and_read(records, tmp_path)
    assert np.isnan(found[0].layer("grad_zero_fraction")).all()
    assert np.isnan(found[0].step(Rows().step[-1]))
    assert [finding.kind for finding in diagnose(found).findings] == ["vanishing"]


@pytest.mark.parametrize(
    "rows",
    [
        {"param": ["grad_l2_norm", "grad_l2_norm"]},
        {"layer": ["zero_fraction"], "activation": ["zero_fraction"]},
        {"wavelength": []},
        ["grad_l2_norm"],
        {"param": 7},
    ],
)
def test_rows_that_make_no_sense_are_refused(rows: object) -> None:
    content = {**json.loads(build_chain(2).to_json()), "rows": rows}
    with pytest.raises(UnreadableLog, match="Expected a layer set written by gradwatch"):
        LayerSet.from_json(json.dumps(content))
