"""One rule over hand-made records."""

from __future__ import annotations

import numpy as np

from gradwatch.records import StepRecord
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.rule import Rule, Sign
from tests.records_builder import fill_history


def examine(rule: Rule, *records: StepRecord, **thresholds) -> list[Sign]:
    """Signs at the last record, with cause and message found."""
    history = fill_history(records)
    with np.errstate(all="ignore"):
        signs = rule.examine(history, Thresholds(**thresholds))
    return [sign.explained() for sign in signs]


def see(rule: Rule, *records: StepRecord, **thresholds) -> Sign:
    """The one sign that there must be."""
    (sign,) = examine(rule, *records, **thresholds)
    return sign
