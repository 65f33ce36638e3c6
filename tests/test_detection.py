"""The benchmark's detection result, which is deterministic, and the arithmetic behind it.

An unhealthy run is trained once with a watch and once without, and ends the same to the last bit:
it is deterministic, and the watch changes nothing of it. Of the first steps of the healthy ones
``test_do_no_harm`` holds the same.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.detection import choose_cases, choose_detectors
from benchmarks.known import KNOWN
from benchmarks.results import RESULTS, read_results, write_results
from benchmarks.rivals import RIVALS
from benchmarks.scoring import judge_outcome, measure_delay, score_detector
from benchmarks.sighting import Sighting
from benchmarks.tables import PAGE, score_all, summarise, write_page
from benchmarks.trial import Outcome, run_case
from benchmarks.watched import GradWatch
from tests.traces import capture_results, list_attachments, list_differences
from tests.zoo import CASES, Case, Training

EVERY_N_STEPS = 50
NAME = f"gradwatch@{EVERY_N_STEPS}"


pytestmark = pytest.mark.usefixtures("one_thread")


class Traced(GradWatch):
    """And what the training leaves behind.

    Attributes:
        losses: of each step.
        results: weights, states and losses at the end.
        attached: hooks and attributes before the watch and after it.
    """

    losses: Sequence[float]
    results: dict[str, Any]

    def attach(self, training: Training) -> None:
        self._training = training
        self.attached = [list_attachments(training.model, training.optimizers)]
        super().attach(training)

    def judge(self, losses: Sequence[float]) -> list[Sighting]:
        training, self.losses = self._training, losses
        self.attached.append(list_attachments(training.model, training.optimizers))
        self.results = capture_results(training.model, training.optimizers, losses)
        return super().judge(losses)


def run_unwatched(case: Case) -> dict[str, Any]:
    """As ``Traced.results``."""
    training = case.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = training.run()
    return capture_results(training.model, training.optimizers, losses)


@pytest.mark.zoo
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradwatch_judges_the_run_as_it_is_labelled(case: Case) -> None:
    watched = Traced(EVERY_N_STEPS)
    outcome = run_case(case, {NAME: lambda: watched})[0]
    problems = judge_outcome(case, outcome)
    assert set(problems) <= set(KNOWN.get(case.name, {})), problems  # some by one processor only
    if not case.healthy:
        assert 60 <= len(watched.losses) <= 400
        assert list_differences(*watched.attached) == []
        assert list_differences(run_unwatched(case), watched.results) == []


def test_exceptions_are_of_cases_that_there_are() -> None:
    assert set(KNOWN) <= {case.name for case in CASES}
    assert all(reason for problems in KNOWN.values() for reason in problems.values())


def test_stored_results_cover_the_zoo() -> None:
    stored = read_results()
    names = {outcome.detector for outcome in stored}
    assert names >= {NAME, *RIVALS}
    assert Counter(outcome.case for outcome in stored) == {case.name: len(names) for case in CASES}


def test_page_is_made_from_the_stored_results() -> None:
    made = write_page(read_results(RESULTS))
    assert made == PAGE.read_text(encoding="utf-8"), "run: python -m benchmarks.tables"


def test_stored_results_show_what_is_claimed() -> None:
    stored = read_results()
    scores = score_all(CASES, sorted({outcome.detector for outcome in stored}), stored)
    ours = scores[NAME]
    assert set(ours.misses) == {name for name, wrong in KNOWN.items() if "missed" in wrong}
    assert set(ours.alarms) == {name for name, wrong in KNOWN.items() if "alarm" in wrong}
    assert ours.steps is not None
    assert ours.steps <= 5
    rivals = [scores[name] for name in RIVALS]
    assert all(ours.found > rival.found for rival in rivals)
    assert all(len(ours.alarms) <= len(rival.alarms) for rival in rivals)


# The arithmetic


def _build() -> Training:
    raise AssertionError("scoring must not train")


UNHEALTHY = Case("unhealthy", _build, ("vanishing",), ("dead",), "weight_scale", ("early.*",))
LATE = Case("late", _build, ("dead",), (), "learning_rate", ("act",), unhealthy_from_step=40)
WELL = Case("well", _build)
FULL = Sighting("vanishing", ("early.0.weight",), 3, "weight_scale")


def _say(case: Case, *sightings: Sighting, error: str = "") -> Outcome:
    return Outcome(case.name, "some", sightings, error)


@pytest.mark.parametrize(
    ("case", "sightings", "problems"),
    [
        (UNHEALTHY, (FULL,), set()),
        (UNHEALTHY, (), {"missed"}),
        (UNHEALTHY, (Sighting("dead", ("early.0",), 3),), {"missed"}),
        (UNHEALTHY, (Sighting("vanishing", ("early.0",), 3, "depth"),), {"cause"}),
        (UNHEALTHY, (Sighting("vanishing", ("late",), 3, "weight_scale"),), {"place"}),
        (UNHEALTHY, (FULL, Sighting("dead", ("early.0",), 3)), set()),
        (UNHEALTHY, (FULL, Sighting("exploding", ("early.0",), 3)), {"extra"}),
        (WELL, (), set()),
        (WELL, (FULL,), {"alarm"}),
        (WELL, (Sighting("dead", ("x",), 3, lasting=False),), {"passing alarm"}),
    ],
)
def test_outcome_is_judged(case: Case, sightings: tuple[Sighting, ...], problems: set[str]) -> None:
    assert set(judge_outcome(case, _say(case, *sightings))) == problems


def test_crash_is_nothing_but_a_crash() -> None:
    assert judge_outcome(WELL, _say(WELL, error="ValueError: no")) == {"crash": "ValueError: no"}


def test_further_call_of_a_module_is_in_its_region() -> None:
    seen = Sighting("vanishing", ("early.0#2",), 3, "weight_scale")
    assert judge_outcome(UNHEALTHY, _say(UNHEALTHY, seen)) == {}


def test_delay_counts_from_becoming_unhealthy() -> None:
    assert measure_delay(UNHEALTHY, _say(UNHEALTHY, FULL)) == 3
    assert measure_delay(LATE, _say(LATE, Sighting("dead", ("act",), 47))) == 7
    assert measure_delay(LATE, _say(LATE, Sighting("dead", ("act",), 33))) == 0
    assert measure_delay(LATE, _say(LATE)) is None


def test_score_counts_what_is_right_and_wrong() -> None:
    stray = Sighting("vanishing", ("x",), 9)
    outcomes = {
        "unhealthy": _say(UNHEALTHY, FULL),
        "late": _say(LATE, stray),
        "well": _say(WELL, stray),
    }
    score = score_detector([UNHEALTHY, LATE, WELL], outcomes)
    assert (score.unhealthy, score.healthy, score.found, score.noticed) == (2, 1, 1, 2)
    assert (score.misses, score.alarms) == (("late",), ("well",))
    assert (score.wrong_causes, score.wrong_places) == (("late",), ("late",))
    assert (score.steps, score.late_steps) == (3, None)
    vanishing, dead = score.kinds["vanishing"], score.kinds["dead"]
    assert (vanishing.recall, vanishing.precision) == (1.0, 1 / 3)
    assert (dead.recall, dead.precision) == (0.0, None)


def test_crash_misses_the_disease_and_spares_the_healthy() -> None:
    outcomes = {"unhealthy": _say(UNHEALTHY, error="no"), "well": _say(WELL, error="no")}
    score = score_detector([UNHEALTHY, WELL], outcomes)
    assert (score.misses, score.alarms, score.crashes) == (
        ("unhealthy",),
        (),
        ("unhealthy", "well"),
    )


def test_summary_has_no_cause_where_none_is_named() -> None:
    scores = score_all([UNHEALTHY], ["some"], [_say(UNHEALTHY, FULL)])
    assert summarise(scores).rows[0][:6] == ["some", "1 of 1", "1", "0 of 0", "0", "–"]


def test_results_survive_the_file(tmp_path: Path) -> None:
    outcomes = [_say(UNHEALTHY, FULL), _say(WELL, error='a "quoted"\nerror')]
    write_results(tmp_path / "made" / "some.json", outcomes)
    assert read_results(tmp_path / "made" / "some.json") == outcomes
    assert len(json.loads((tmp_path / "made" / "some.json").read_text())) == 2


def test_choices_are_checked() -> None:
    assert choose_detectors(["gradwatch"], [1, 50]) == ["gradwatch@1", "gradwatch@50"]
    assert [case.name for case in choose_cases("lstm_short")] == ["lstm_short"]
    with pytest.raises(SystemExit, match="no_such"):
        choose_cases("no_such_*")
    with pytest.raises(SystemExit, match="no_such"):
        choose_detectors(["no_such"], [1])
