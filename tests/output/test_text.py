"""Many runs in a terminal."""

from __future__ import annotations

from gradwatch.cli.printing import draw_parts
from gradwatch.display.layer_table import LEGEND
from gradwatch.gate.outcome import Gate
from gradwatch.output.text import MAX_TABLES, list_parts
from gradwatch.verdict.engine import diagnose
from gradwatch.workers.pool import Workers
from tests.display.trainings import make_training
from tests.gate.runs import HEALTHY, UNHEALTHY, wrap


def write(*gains: float) -> str:
    verdicts = {gain: diagnose(make_training(gain)) for gain in set(gains)}
    outcome = Gate().decide(wrap(*(verdicts[gain] for gain in gains)))
    return draw_parts(list_parts(outcome), Workers(), to_stdout=False)


def test_the_first_runs_with_findings_have_a_layer_table() -> None:
    text = write(HEALTHY, *[UNHEALTHY] * (MAX_TABLES + 2))
    assert text.count(LEGEND[:20]) == MAX_TABLES
    assert text.count("CRITICAL") >= MAX_TABLES + 2
    assert "Layer tables left out: 2; --run NAME shows one." in text


def test_as_many_as_are_drawn_leave_none_out() -> None:
    text = write(*[UNHEALTHY] * MAX_TABLES, HEALTHY)
    assert text.count(LEGEND[:20]) == MAX_TABLES
    assert "left out" not in text
