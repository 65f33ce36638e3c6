"""Records as vectors: every number comes back, equal ones take one, old logs can be read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradwatch.errors import UnreadableLog
from gradwatch.records import GENERAL_STATISTICS, StepRecord
from gradwatch.schema.packing import is_intact, pack_rows, unpack_rows
from tests.display.samples import make_layer_set, make_record

NUMBERS = st.floats(width=32) | st.sampled_from((0.0, -0.0, 1.0, float("nan"), float("inf")))
ROWS = st.lists(hnp.arrays(np.float64, st.integers(0, 6), elements=NUMBERS), max_size=60)


@given(hnp.arrays(np.float64, 5, elements=NUMBERS), ROWS)
def test_every_number_comes_back(head: np.ndarray, rows: list[np.ndarray]) -> None:
    vector = pack_rows(head, rows)
    plain = np.concatenate((head, *rows)).astype(np.float32)
    found = unpack_rows(vector, len(head), [len(row) for row in rows])
    assert found.dtype == vector.dtype == np.float32
    np.testing.assert_array_equal(found, plain)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(plain))


def test_equal_numbers_take_one() -> None:
    rows = [np.zeros(1000), np.full(1000, np.nan), np.arange(10.0)]
    assert pack_rows(np.ones(5), rows).size == 3 + 5 + 1 + 1 + 10


def test_any_number_of_rows() -> None:
    """The marks of 24 rows fit into one number; those of more take further ones."""
    rows = [np.arange(3.0) if place % 3 else np.full(3, float(place)) for place in range(50)]
    vector = pack_rows(np.ones(1), rows)
    assert vector.size == 2 + 3 + 1 + 17 + 33 * 3
    np.testing.assert_array_equal(
        unpack_rows(vector, 1, [3] * 50), np.concatenate((np.ones(1), *rows))
    )


def list_numbers(record: StepRecord) -> np.ndarray:
    """The vector of schema 1: every number, one after another."""
    n_general = len(GENERAL_STATISTICS)
    parts = (
        record.step_values,
        record.layer_values[:n_general].ravel(),
        record.layer_values[n_general:, record.layer_set.activations].ravel(),
        record.param_values.ravel(),
    )
    return np.concatenate(parts).astype(np.float32)


@given(ROWS, st.data())
def test_a_changed_bit_shows(rows: list[np.ndarray], data: st.DataObject) -> None:
    vector = pack_rows(np.ones(3), rows)
    assert is_intact(vector)
    place = data.draw(st.integers(1, vector.size - 1))
    vector.view(np.uint32)[place] ^= 1 << data.draw(st.integers(0, 31))
    assert not is_intact(vector)
    np.testing.assert_array_equal(unpack_rows(vector, 3, [len(row) for row in rows]), vector)


def drop_checksum(vector: np.ndarray) -> np.ndarray:
    """The form of schema 2."""
    return np.concatenate((np.float32([-2.0]), vector[2:]))


@pytest.mark.parametrize("form", ["checked", "unchecked", "schema 1"])
def test_a_record_comes_back_from_every_form(form: str) -> None:
    written = make_record(3, make_layer_set(7))
    written.param_values[0] = np.arange(written.param_values.shape[1])
    vector = list_numbers(written) if form == "schema 1" else written.to_vector()
    vector = drop_checksum(vector) if form == "unchecked" else vector
    read = StepRecord.from_vector(3, written.layer_set, vector)
    for row in dataclasses.fields(StepRecord)[2:5]:
        np.testing.assert_array_equal(getattr(read, row.name), getattr(written, row.name))


def test_a_vector_of_another_length_is_refused() -> None:
    written = make_record(3, make_layer_set(7))
    written.layer_values[0] = np.arange(7)
    for vector in (written.to_vector()[:-1], list_numbers(written)[:-1], np.float32([-2.0, 0])):
        with pytest.raises(UnreadableLog, match="Expected a record of"):
            StepRecord.from_vector(3, written.layer_set, vector)
