"""The layer table's cells and its abbreviation."""

from __future__ import annotations

import dataclasses
import math

import pytest

from gradwatch.display.layer_table import (
    Gap,
    abridge_rows,
    choose_columns,
    cut_name,
    make_printable,
    write_number,
    write_share,
)
from tests.display.samples import make_layers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.0, "0"),
        (0.2213, "0.22"),
        (2.6e-7, "2.6e-07"),
        (123.4, "123"),
        (45678.0, "4.6e+04"),
        (math.nan, ""),
        (math.inf, "inf"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert write_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0%"), (0.001, "<1%"), (0.5, "50%"), (0.999, "99%"), (1.0, "100%"), (math.nan, "")],
)
def test_shares_never_round_to_none_or_all(value: float, text: str) -> None:
    assert write_share(value) == text


def test_columns_without_a_number_are_left_out() -> None:
    titles = [column.title for column in choose_columns(make_layers(4))]
    assert titles == ["Gradient", "Gain", "Satur.", "Update"]


def test_a_short_table_is_whole() -> None:
    layers = make_layers(24, 3)
    assert abridge_rows(layers, 24) == list(layers)


@pytest.mark.parametrize("n_flagged", [0, 1, 40, 500])
def test_a_long_table_keeps_ends_and_borders_and_counts_the_rest(n_flagged: int) -> None:
    layers = make_layers(500, n_flagged)
    rows = abridge_rows(layers, 24)
    shown = [row for row in rows if not isinstance(row, Gap)]
    gaps = [row for row in rows if isinstance(row, Gap)]
    assert {layers[0], layers[1], layers[498], layers[499]} <= set(shown)
    if 0 < n_flagged < 500:
        assert {layers[n_flagged - 1], layers[n_flagged]} <= set(shown)
    assert len(shown) + sum(gap.n_layers for gap in gaps) == 500
    flagged = sum(row.flagged for row in shown) + sum(gap.n_flagged for gap in gaps)
    assert flagged == n_flagged
    assert len(shown) <= 24 + len(gaps)


def test_a_flagged_layer_in_the_middle_is_shown_with_its_neighbours() -> None:
    layers = list(make_layers(300))
    layers[150] = dataclasses.replace(layers[150], flagged=True)
    rows = abridge_rows(layers, 24)
    assert all(layers[index] in rows for index in (149, 150, 151))


def test_gap_says_what_it_hides() -> None:
    assert [str(Gap(7, count)) for count in (0, 3, 7)] == [
        "7 more",
        "7 more, 3 flagged",
        "7 more, all flagged",
    ]


def test_names_are_shortened_in_the_middle() -> None:
    name = "model.encoder.blocks.11.attention.projection"
    assert cut_name(name, 99) == name
    short = cut_name(name, 20)
    assert len(short) == 20
    assert short.startswith("model")
    assert short.endswith("projection")


def test_control_characters_and_direction_marks_are_spelled_out() -> None:
    assert make_printable("a\x1b[31m\nb\u202ec") == "a\\x1b[31m\\nb\\u202ec"
    assert make_printable("naïve.層") == "naïve.層"
