"""Signs that last become findings; findings whose signs are gone have recovered."""

from __future__ import annotations

from dataclasses import replace

from gradwatch.thresholds import Thresholds
from gradwatch.verdict.episodes import Tracker
from gradwatch.verdict.rule import Explanation, Rule, Sign

THRESHOLDS = Thresholds(persistence=3, persistence_steps=25)


def make_rule(kind: str = "vanishing", persistence: int | None = None) -> Rule:
    return Rule("GW999", kind, "a rule", lambda history, thresholds: [], "", persistence)


def make_sign(*layers: str, **facts) -> Sign:
    facts = {"cause": "weight_scale", "observed": 0.1, "threshold": 1.0, "message": "m", **facts}
    return Sign(layers or ("fc1",), **facts)


class Course:
    """One rule over the steps of a run: what the tracker answers to its signs."""

    def __init__(self, rule: Rule | None = None) -> None:
        self.rule = rule or make_rule()
        self.tracker = Tracker(THRESHOLDS)
        self.began: list[int] = []
        self.ended: list[int] = []

    def see(self, step: int, *signs: Sign) -> None:
        for change in self.tracker.update(self.rule, list(signs), step):
            (self.began if change.began else self.ended).append(step)

    def see_all(self, steps, *signs: Sign) -> None:
        for step in steps:
            self.see(step, *signs)


def test_a_sign_that_lasts_is_a_finding():
    course = Course()
    course.see_all(range(5), make_sign())
    assert course.began == [2]
    (episode,) = course.tracker.current
    finding = episode.describe()
    assert (finding.first_step, finding.last_step) == (0, 4)


def test_a_sign_that_passes_is_none():
    course = Course()
    for start in (0, 3, 6):
        course.see_all((start, start + 1), make_sign())
        course.see(start + 2)
    assert course.began == []
    assert course.tracker.current == []


def test_two_signs_far_apart_are_enough():
    course = Course()
    course.see_all((0, 50), make_sign())
    assert course.began == [50]


def test_two_signs_close_together_are_not():
    course = Course()
    course.see_all((0, 24), make_sign())
    assert course.began == []


def test_a_sign_that_looks_back_needs_not_last():
    course = Course()
    course.see(7, make_sign(looks_back=True))
    assert course.began == [7]


def test_a_rule_may_ask_for_less():
    course = Course(make_rule(persistence=1))
    course.see(7, make_sign())
    assert course.began == [7]


def test_notes_wake_nobody():
    course = Course()
    course.see_all(range(9), make_sign(severity="note"))
    course.see_all(range(9, 60))
    assert course.began == course.ended == []
    (past,) = course.tracker.past
    assert past.describe().severity == "note"


def test_a_note_that_grows_into_a_finding_begins_again():
    course = Course()
    course.see_all(range(5), make_sign(severity="note"))
    course.see_all(range(5, 10), make_sign())
    assert course.began == [7]


def test_recovery_takes_half_the_time_of_the_illness():
    course = Course()
    course.see_all(range(41), make_sign())
    course.see_all(range(41, 100))
    (ended,) = course.ended
    assert ended == 40 + THRESHOLDS.recovery_share * 40
    assert course.tracker.current == []
    (past,) = course.tracker.past
    assert past.ended
    assert past.last_step == 40


def test_a_short_absence_does_not_end_it():
    course = Course()
    course.see_all(range(41), make_sign())
    course.see_all(range(41, 55))
    course.see_all(range(55, 60), make_sign())
    assert course.ended == []
    (episode,) = course.tracker.current
    assert (episode.first_step, episode.last_step) == (0, 59)


def test_after_a_recovery_it_can_begin_again():
    course = Course()
    course.see_all(range(5), make_sign())
    course.see_all(range(5, 40))
    course.see_all(range(40, 45), make_sign())
    assert course.began == [2, 42]
    assert len(course.tracker.past) == len(course.tracker.current) == 1


def test_a_region_may_move_from_step_to_step():
    course = Course()
    for step in range(4):
        course.see(step, make_sign(f"fc{step}", f"fc{step + 1}"))
    assert course.began == [2]
    assert course.tracker.current[0].describe().layers == ("fc3", "fc4")


def test_elsewhere_after_a_gap_is_another_disease():
    course = Course()
    course.see_all(range(20), make_sign("fc1"))
    course.see(20)
    course.see_all(range(21, 25), make_sign("fc9"))
    assert course.began == [2, 23]
    assert len(course.tracker.current) == 2


def test_two_signs_at_one_step_are_two_episodes():
    course = Course()
    course.see_all(range(4), make_sign("left"), make_sign("right"))
    assert course.began == [2, 2]


def test_the_first_signs_name_the_cause():
    course = Course()
    course.see_all(range(THRESHOLDS.cause_votes), make_sign(cause="depth"))
    course.see_all(range(THRESHOLDS.cause_votes, 40), make_sign(cause="dead_units"))
    assert course.tracker.current[0].describe().cause == "depth"


def test_confirming_believes_what_has_shown_so_far():
    course = Course(make_rule("exploding"))
    course.see(0, make_sign())
    assert course.tracker.confirm("vanishing") == []
    (change,) = course.tracker.confirm("exploding")
    assert change.began
    assert change.finding.kind == "exploding"
    assert course.tracker.confirm("exploding") == []


def test_rules_are_followed_apart():
    tracker = Tracker(THRESHOLDS)
    first, second = make_rule("dead"), make_rule("saturated")
    for step in range(4):
        tracker.update(first, [make_sign()], step)
        tracker.update(second, [make_sign()], step)
    assert [episode.rule for episode in tracker.current] == [first, second]


def test_where_nobody_reads_changes_the_episodes_are_the_same():
    tracker, rule = Tracker(THRESHOLDS, tells_changes=False), make_rule("exploding")
    assert all(tracker.update(rule, [make_sign()], step) == [] for step in range(20))
    (episode,) = tracker.current
    assert (episode.first_step, episode.last_step) == (0, 19)
    assert all(tracker.update(rule, [], step) == [] for step in range(20, 60))
    assert tracker.past == [episode]


def test_costly_explanations_are_asked_for_only_when_somebody_reads_them():
    asked: list[int] = []

    def explain() -> Explanation:
        asked.append(1)
        return Explanation("depth", "because")

    course = Course()
    sign = make_sign(cause=None, message="", explain=explain)
    course.see_all(range(200), sign)
    assert len(asked) <= THRESHOLDS.cause_votes
    finding = course.tracker.current[0].describe()
    assert (finding.cause, finding.message) == ("depth", "because")
    assert len(asked) <= THRESHOLDS.cause_votes + 1


def test_a_step_that_shows_nothing_of_the_layers_is_no_absence():
    """As where two optimizers take turns, and every other record holds the other's layers only."""
    course = Course()
    for step in range(6):
        signs = [make_sign()] if step % 2 == 0 else []
        answers = course.tracker.update(course.rule, signs, step, sees=lambda _: False)
        course.began += [step for change in answers if change.began]
    assert course.began == [4]
    assert course.tracker.past == []


def test_what_speaks_of_the_whole_run_is_withdrawn_at_once():
    course = Course(replace(make_rule(), withdraws=True))
    course.see_all(range(40), make_sign())
    course.see(40)
    assert course.ended == [40]
