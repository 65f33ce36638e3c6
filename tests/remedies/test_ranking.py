"""The order of trials, from numbers typed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

from gradwatch.thresholds import Thresholds
from gradwatch.verdict.findings import Finding
from gradwatch.verdict.trials import Measurement, Trial, rank_trials


def make_trial(change: str, **after: object) -> Trial:
    before = Measurement(1e-9, 1e-12, 2.3, 2.25)
    measured = replace(Measurement(0.5, 1e-3, 2.4, 1.5), **after)
    return Trial(change, change, "", 40, before, measured)


def make_finding(kind: str) -> Finding:
    return Finding("GW", kind, "critical", None, ("a",), 0, 1, 0.0, 0.0, "", "")


class TestRanking:
    def rank(self, *trials: Trial) -> list[tuple[str, str]]:
        return [(trial.change, trial.outcome) for trial in rank_trials(trials, Thresholds())]

    def test_blow_ups_are_not_rewarded_however_much_they_move(self) -> None:
        nan = make_trial("residual", loss_end=math.nan, early_update=1e9)
        diverged = make_trial("activation", early_update=7.0, loss_end=2.35)
        doubled = make_trial("inputs", loss_end=9.0)
        says_so = make_trial("initialisation", findings=(make_finding("exploding"),))
        well = make_trial("normalisation", loss_end=2.0)
        ranked = self.rank(nan, diverged, doubled, says_so, well)
        assert ranked[0] == ("normalisation", "healthy")
        assert {outcome for _, outcome in ranked[1:]} == {"blew up"}

    def test_the_smaller_change_wins_unless_it_hardly_learns(self) -> None:
        assert self.rank(make_trial("residual", loss_end=0.5), make_trial("activation"))[0] == (
            "activation",
            "healthy",
        )
        slow = make_trial("learning_rate", loss_end=2.29)
        assert self.rank(slow, make_trial("residual", loss_end=0.5))[0] == ("residual", "healthy")

    def test_falling_back_from_a_larger_loss_is_no_progress(self) -> None:
        fallen = make_trial("residual", loss_start=6.0, loss_end=2.35)
        assert fallen.progress < 0
        assert self.rank(fallen) == [("residual", "no better")]

    def test_a_finding_that_stays_is_at_best_better(self) -> None:
        unhealthy = make_trial("residual", findings=(make_finding("vanishing"),))
        still = make_trial("activation", early_update=1e-13)
        assert self.rank(still, unhealthy) == [("residual", "better"), ("activation", "no better")]
