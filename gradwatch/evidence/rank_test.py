"""Whether numbers fall, or lie above 0, by their ranks alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import nan, sqrt


def score_fall(early: Sequence[float], late: Sequence[float]) -> float:
    """By how many standard deviations the late numbers rank below the early ones.

    Ranks ask neither for a scale nor for a zero, and a peak among many counts as one number. Of
    numbers that stay, chance takes one score in forty above 2.

    Args:
        early: at least one number, none of them NaN.
        late: likewise.

    Returns:
        The score; below 0 where the late ones are larger, 0 where all are the same, NaN where
        either is empty.

    Source:
        Mann & Whitney (1947), "On a test of whether one of two random variables is stochastically
        larger than the other"; the variance with its usual correction for ties.

    Example:
        >>> round(score_fall([5.0, 4.0, 3.0], [2.0, 1.0, 0.0]), 3)
        1.964
    """
    count = len(early) + len(late)
    if not (early and late):
        return nan
    pairs = len(early) * len(late)
    below = sum((x > y) + (x == y) / 2 for x in early for y in late)
    ties = sum(size**3 - size for size in Counter([*early, *late]).values())
    variance = pairs / 12 * (count + 1 - ties / (count * (count - 1)))
    return (below - pairs / 2) / sqrt(variance) if variance > 0 else 0.0


def score_sign(values: Sequence[float]) -> float:
    """By how many standard deviations numbers lie above 0 rather than below.

    Args:
        values: none of them NaN; zeros do not count.

    Returns:
        The score; above 0 where most of them, or the larger ones, are; 0 without any.

    Source:
        Wilcoxon (1945), "Individual comparisons by ranking methods": the signed-rank test. Of equal
        sizes the earlier one has the lower rank.

    Example:
        >>> round(score_sign([0.5, 2.0, -0.1, 1.0]), 3), round(score_sign([1.0, -1.0, 0.0]), 3)
        (1.461, -0.447)
    """
    ordered = sorted((value for value in values if value), key=abs)
    count = len(ordered)
    if not count:
        return 0.0
    total = sum(rank if value > 0 else -rank for rank, value in enumerate(ordered, start=1))
    return total / sqrt(count * (count + 1) * (2 * count + 1) / 6)
