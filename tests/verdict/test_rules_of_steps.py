"""Rules on what lies between backward and step, over hand-made records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch.records import StepRecord
from gradwatch.verdict.engine import diagnose
from gradwatch.verdict.rules.mishandled import MISHANDLED
from gradwatch.verdict.rules.ranks import RANKS
from gradwatch.verdict.rules.unmoved import UNMOVED
from gradwatch.verdict.rules.vanishing import VANISHING
from tests.records_builder import build_chain, change_param, change_step, make_record, repeat
from tests.verdict.examination import examine, see

HEALTHY = make_record(build_chain(3, "Tanh"), loss=1.0)


def describe(record: StepRecord, **facts) -> StepRecord:
    """The same with other facts about its first weight."""
    first, *others = record.layer_set.params
    params = (replace(first, **facts), *others)
    return replace(record, layer_set=replace(record.layer_set, params=params))


class TestUnmoved:
    STILL = change_param(HEALTHY, "update_l2_norm", {"fc0.weight": 0.0})

    def test_a_lost_step_is_seen_when_it_lasts(self):
        sign = see(UNMOVED, *repeat(self.STILL, 3, every=10))
        assert (sign.layers, sign.cause) == (("fc0",), "lost_update")
        assert examine(UNMOVED, *repeat(self.STILL, 2, every=30)) == []
        assert examine(UNMOVED, *repeat(self.STILL, 9)) == []

    def test_a_gradient_too_large_to_be_squared_makes_steps_of_nothing(self):
        huge = change_param(self.STILL, "grad_l2_norm", {"fc0.weight": 1e20})
        sign = see(UNMOVED, huge, *repeat(self.STILL, 3, every=10, start=10))
        assert (sign.layers, sign.cause) == (("fc0",), "precision")
        assert "1e+20" in sign.message
        assert "clip" in sign.remedy

    def test_one_that_moves_between_samples_is_not_still(self):
        records = [
            change_param(record, "weight_l2_norm", {"fc0.weight": 8.0 + number})
            for number, record in enumerate(repeat(self.STILL, 9, every=10))
        ]
        assert examine(UNMOVED, *records) == []

    @pytest.mark.parametrize("gradient", [1.0, 1e-3])
    def test_one_that_has_moved_may_rest_where_its_gradient_has_fallen(self, gradient):
        resting = change_param(self.STILL, "step_grad_l2_norm", {"fc0.weight": gradient})
        records = [*repeat(HEALTHY, 3), *repeat(resting, 5, every=10, start=10)]
        assert len(examine(UNMOVED, *records)) == (gradient == 1.0)

    @pytest.mark.parametrize(
        ("statistic", "value"),
        [
            ("step_grad_l2_norm", 1e-6),  # float32 may round the step away
            ("loss_change", np.nan),  # a sparse gradient: its samples lie elsewhere
            ("zero_fraction", 1.0),  # no sampled element has a gradient
            ("grad_l2_norm", 0.0),
            ("learning_rate", np.nan),
        ],
    )
    def test_where_nothing_is_certain_nothing_is_said(self, statistic, value):
        record = change_param(self.STILL, statistic, {"fc0.weight": value})
        assert examine(UNMOVED, *repeat(record, 9, every=10)) == []

    def test_half_precision_rounds_away_what_an_underflow_tells(self):
        record = describe(self.STILL, dtype="bfloat16")
        assert examine(UNMOVED, *repeat(record, 9, every=10)) == []

    @pytest.mark.parametrize(("used", "signs"), [(1.0, 1), (1e-6, 0)])
    def test_clipping_for_which_an_optimizer_makes_up_is_no_want_of_steps(self, used, signs):
        """``g . dw`` is recorded with the clipped gradient; the loss knows the whole one."""
        record = make_record(build_chain(3, "Tanh"), loss=1.0)
        record = change_param(record, "grad_l2_norm", 1.0)
        record = change_param(record, "step_grad_l2_norm", used)
        record = change_param(record, "loss_change", -1e-9)
        found = examine(UNMOVED, *repeat(record, 12, every=10))
        assert [sign.cause for sign in found] == ["learning_rate"] * signs

    def test_nobody_calls_a_lost_step_vanishing(self):
        assert examine(VANISHING, *repeat(self.STILL, 9, every=10)) == []
        weak = change_param(self.STILL, "step_grad_l2_norm", {"fc0.weight": 1e-9})
        weak = change_param(weak, "loss_change", {"fc0.weight": 0.0})
        assert len(examine(VANISHING, *repeat(weak, 9, every=10))) == 1

    @pytest.mark.parametrize(
        ("facts", "severity"), [({}, "note"), ({"replaced": True}, "critical")]
    )
    def test_what_no_optimizer_holds(self, facts, severity):
        record = describe(self.STILL, optimized=False, **facts)
        sign = see(UNMOVED, *repeat(record, 5, every=10))
        assert (sign.layers, sign.cause, sign.severity) == (("fc0",), "not_optimized", severity)
        assert examine(UNMOVED, *repeat(record, 5, every=10), allow_unjudged=("fc*",)) == []
        frozen = describe(record, trainable=False)
        assert examine(UNMOVED, *repeat(frozen, 5, every=10)) == []

    def test_what_somebody_moves_without_our_optimizer(self):
        record = describe(HEALTHY, optimized=False)
        assert examine(UNMOVED, *repeat(record, 5, every=10)) == []


class TestMishandled:
    NEGATED = change_step(HEALTHY, raising_passes=1.0, loss=-2.0)

    def test_a_loss_that_is_negated(self):
        assert see(MISHANDLED, self.NEGATED).cause == "loss_sign"
        assert diagnose(repeat(self.NEGATED, 2)).findings == ()
        assert [found.cause for found in diagnose(repeat(self.NEGATED, 3)).findings] == [
            "loss_sign"
        ]

    @pytest.mark.parametrize("facts", [{"passes": 2.0}, {"loss": 2.0}, {"raising_passes": np.nan}])
    def test_one_that_is_only_a_part_of_a_step_or_not_known(self, facts):
        record = change_step(self.NEGATED, **facts)
        assert examine(MISHANDLED, record) == []

    def test_one_that_an_optimizer_goes_up(self):
        climbs = change_param(self.NEGATED, "loss_change", 0.1)
        assert examine(MISHANDLED, *repeat(climbs, 3)) == []

    def test_a_gradient_that_is_left_over(self):
        record = change_param(HEALTHY, "stale_grad_l2_norm", {"fc1.weight": 0.5})
        assert see(MISHANDLED, record).layers == ("fc1",)
        assert see(MISHANDLED, record).cause == "not_cleared"
        assert diagnose(repeat(record, 2)).findings == ()
        assert [finding.kind for finding in diagnose(repeat(record, 3)).findings] == ["mishandled"]

    def test_one_that_nobody_steps_with_or_that_was_zeroed(self):
        record = change_param(HEALTHY, "stale_grad_l2_norm", 0.0)
        assert examine(MISHANDLED, record) == []
        left = change_param(HEALTHY, "stale_grad_l2_norm", {"fc0.weight": 0.5})
        assert examine(MISHANDLED, describe(left, optimized=False)) == []

    def test_clipping_by_a_norm_that_overflows_clears_nothing(self):
        gone = change_param(HEALTHY, "step_grad_l2_norm", 0.0)
        gone = change_param(gone, "update_l2_norm", 0.0)
        assert examine(MISHANDLED, change_param(gone, "grad_l2_norm", 1.5e19)) == []
        assert see(MISHANDLED, change_param(gone, "grad_l2_norm", 1e15)).cause == "cleared"

    @pytest.mark.parametrize("used", [0.0, np.nan])
    def test_gradients_that_are_gone_when_the_optimizer_steps(self, used):
        gone = change_param(HEALTHY, "step_grad_l2_norm", used)
        gone = change_param(gone, "update_l2_norm", 0.0)
        assert see(MISHANDLED, gone).cause == "cleared"
        part = change_param(gone, "step_grad_l2_norm", {"fc1.weight": 1.0})
        assert examine(MISHANDLED, part) == []

    def test_an_older_log_does_not_know_what_the_optimizer_got(self):
        kept = [name for name in HEALTHY.layer_set.rows.param if name != "step_grad_l2_norm"]
        chosen = [HEALTHY.layer_set.rows.param.index(name) for name in kept]
        rows = replace(HEALTHY.layer_set.rows, param=tuple(kept))
        layer_set = replace(HEALTHY.layer_set, rows=rows)
        old = replace(HEALTHY, layer_set=layer_set, param_values=HEALTHY.param_values[chosen])
        assert examine(MISHANDLED, old) == []


class TestRanks:
    EQUAL = change_param(HEALTHY, "rank_grad_spread", 0.0)

    def spread(self, **spreads: float) -> StepRecord:
        record = HEALTHY
        for statistic in ("grad", "step_grad", "weight"):
            values = dict.fromkeys((param.fqn for param in record.layer_set.params), 0.0)
            values["fc1.weight"] = spreads.get(statistic, 0.0)
            record = change_param(record, f"rank_{statistic}_spread", values)
        return record

    @pytest.mark.parametrize(
        ("spreads", "cause"),
        [
            ({"grad": 0.3, "step_grad": 0.3, "weight": 0.01}, "not_reduced"),
            ({"step_grad": 0.3, "weight": 0.01}, "clipped_apart"),
            ({"weight": 0.01}, "weights_apart"),
        ],
    )
    def test_what_differs_first_is_the_cause(self, spreads, cause):
        sign = see(RANKS, self.spread(**spreads))
        assert (sign.layers, sign.cause) == (("fc1",), cause)

    def test_equal_ranks_and_sums_that_are_not_exact(self):
        assert examine(RANKS, self.spread()) == []
        assert examine(RANKS, self.spread(grad=1e-6, step_grad=1e-6, weight=1e-6)) == []
        assert examine(RANKS, HEALTHY) == []

    def test_gradients_of_rounding_may_differ(self):
        record = self.spread(grad=0.5, step_grad=0.5)
        assert examine(RANKS, change_param(record, "grad_l2_norm", {"fc1.weight": 1e-8})) == []

    def test_weights_that_meet_again_are_averaged_on_purpose(self):
        apart, met = self.spread(grad=0.3, step_grad=0.3, weight=0.01), self.spread(grad=0.3)
        assert examine(RANKS, apart, apart, met, apart) == []
        assert len(examine(RANKS, met, apart, apart)) == 1
