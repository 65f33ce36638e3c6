"""Numbers and regions as a person would say them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.wording.module_names import group_names
from gradwatch.wording.phrases import name_lack, name_number, name_percent, name_region


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (1, "1"),
        (3.84, "3.8"),
        (9.96, "10"),
        (46_234, "46,000"),
        (999_999, "1 million"),
        (3.84e6, "3.8 million"),
        (3.2e11, "320 billion"),
        (9.99e11, "1 trillion"),
        (3.2e14, "320 trillion"),
        (9.96e14, "over 1,000 trillion"),
        (3e25, "over 1,000 trillion"),
        (math.inf, "countless"),
    ],
)
def test_numbers_have_two_digits_and_a_word(value, words):
    assert name_number(value) == words


@given(st.floats(min_value=0.01, max_value=1e14))
def test_the_words_say_the_number_to_two_digits(value):
    sizes = {"million": 1e6, "billion": 1e9, "trillion": 1e12}
    digits, _, word = name_number(value).partition(" ")
    said = float(digits.replace(",", "")) * sizes.get(word, 1.0)
    assert said == pytest.approx(value, rel=0.051)
    assert "e" not in digits


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (2.6e-7, "3.8 million times less gradient than fc9"),
        (0.0, "no gradient at all, unlike fc9"),
        (math.nan, "far less gradient than fc9"),
        (5e-324, "practically no gradient, unlike fc9"),
    ],
)
def test_a_lack_of_gradient_is_a_factor_or_none_at_all(share, words):
    assert name_lack(share, "fc9") == words


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (["fc1"], "fc1"),
        ([""], "the model"),
        (["fc1", "fc2"], "fc1 and fc2"),
        (["fc3", "fc1", "fc2"], "fc3, fc1 and fc2"),
        (["fc4", "fc1", "fc3", "fc2"], "fc1 to fc4"),
        (["fc1", "fc2", "fc3", "fc4", "head"], "fc1 to fc4 and head"),
        (["net.0", "net.2", "net.4", "net.6"], "4 layers from net.0 to net.6"),
        (["fc9", "fc10", "fc11", "fc12"], "fc9 to fc12"),
        (["fc1", "fc2", "fc4", "fc9"], "4 layers from fc1 to fc9"),
        (["b.0.fc1", "b.0.fc2", "b.1.fc1", "b.1.fc2"], "4 layers from b.0.fc1 to b.1.fc2"),
        (["l1.fc", "l1.act", "l2.fc", "l2.act"], "l1.fc to l2.fc and l1.act to l2.act"),
        (["fc1", "fc9", "stem", "head"], "2 layers from fc1 to fc9, stem and head"),
        (["a", "b", "c", "d"], "a, b, c and 1 more layer"),
        (["a", "b", "c", "d1", "d2", "e"], "a, b, c and 3 more layers"),
    ],
)
def test_regions_are_named_by_names_ranges_or_patterns(layers, words):
    assert name_region(layers) == words


@given(st.lists(st.text("ab.019:", max_size=8), unique=True))
def test_groups_hold_every_name_once(names):
    grouped = [name for group in group_names(names) for name in group.names]
    assert sorted(grouped) == sorted(names)


@given(st.integers(0, 99), st.integers(1, 9), st.integers(2, 20))
def test_a_range_ends_at_the_smallest_and_the_largest_number(first, spacing, count):
    numbers = range(first, first + spacing * count, spacing)
    (group,) = group_names([f"net.{number}.fc" for number in reversed(numbers)])
    assert group.spacing == spacing
    assert group.ends == (f"net.{numbers[0]}.fc", f"net.{numbers[-1]}.fc")


def test_percent_are_whole():
    assert name_percent(0.874) == "87 %"
