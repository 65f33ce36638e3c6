"""Rules on the flow of the gradient: what each must see, and close to it what it must not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from gradwatch.evidence.attribution import attribute_by_slopes
from gradwatch.evidence.worked_example import make_record as worked_record
from gradwatch.records import LayerSet, StepRecord
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import Doctor
from gradwatch.verdict.rules.exploding import EXPLODING
from gradwatch.verdict.rules.through_time import THROUGH_TIME
from gradwatch.verdict.rules.vanishing import VANISHING
from gradwatch.verdict.vanishing_words import describe_lack
from tests.records_builder import (
    NUMEL,
    Network,
    build_chain,
    change,
    change_param,
    fill_history,
    give,
    make_record,
    read,
    repeat,
    unroll,
)
from tests.verdict.examination import examine, see

SIGMOIDS = {"Sigmoid": 0.22}


class TestVanishing:
    def test_a_vanishing_chain_is_seen(self):
        sign = see(VANISHING, make_record(build_chain(10), gains=SIGMOIDS))
        assert sign.cause == "activation_derivative"
        assert sign.layers[:3] == ("fc0", "fc1", "fc2")
        assert "fc9" not in sign.layers
        assert sign.observed == pytest.approx(0.22**9)
        assert "830,000 times less gradient than act8" in sign.message
        assert "each activation multiplies by about 0.22" in sign.message
        assert "each weight multiplies by about 1." in sign.message

    def test_a_gradient_that_was_there_at_first_was_taken_by_the_steps(self):
        layer_set = build_chain(10)
        first, later = make_record(layer_set), make_record(layer_set, 60, SIGMOIDS)
        sign = see(VANISHING, first, later)
        assert sign.cause == "learning_rate"
        assert "at step 0 still 100 % arrived there" in sign.message
        twin = see(VANISHING, replace(later, global_step=0), later)
        assert twin.cause == "activation_derivative"
        assert "arrived there" not in twin.message

    @pytest.mark.parametrize(
        ("gains", "cause"),
        [
            ({"Sigmoid": 0.24, "Linear": 0.57}, "activation_derivative"),
            ({"Sigmoid": 1.0, "Linear": 0.05}, "weight_scale"),
        ],
    )
    def test_what_float32_rounds_to_nothing_has_no_factors(self, gains, cause):
        record = make_record(build_chain(200), gains=gains)
        for name in ("grad_output_l2_norm", "grad_input_l2_norm"):
            norms = record.layer(name)
            norms[norms < 1e-22] = 0
        record.layer("grad_zero_fraction")[:] = record.layer("grad_output_l2_norm") == 0
        sign = see(VANISHING, record)
        assert sign.cause == cause
        assert "on the way back, until it is below what float32 holds," in sign.message
        assert not re.search(r"the 1\d\d (weights|activations) together", sign.message)

    def test_a_product_that_nobody_can_have_measured_is_not_quoted(self):
        layer_set = build_chain(500, "Tanh")
        gains = {f"act{i}": 0.9 if i % 2 else 0.2 for i in range(500)}
        record = make_record(layer_set)
        slopes = {key: gains[key] for key in gains if int(key[3:]) < 499}
        record = change(record, "derivative_mean", slopes)
        bare = LayerSet(tuple(replace(layer, inputs=()) for layer in layer_set.layers))
        reading = read(replace(record, layer_set=replace(bare, params=layer_set.params)))
        reading.record.layer("grad_output_l2_norm")[0] = 1e-9
        split = attribute_by_slopes(read(reading.record), Thresholds())
        message = describe_lack(reading, ("fc0",), 0, split, 0.0, Thresholds())
        assert "the 499 activations together multiply by less than float32 holds" in message

    @pytest.mark.parametrize(
        ("count", "gain", "cause"), [(9, 0.1, "weight_scale"), (40, 0.7, "depth")]
    )
    def test_normalisations_that_take_the_gradient_are_no_activations_fault(
        self, count, gain, cause
    ):
        net = Network()
        for number in range(count):
            net.add(f"fc{number}", "Linear")
            net.add(f"norm{number}", "LayerNorm")
        net.add("head", "Linear", is_head=True)
        sign = see(VANISHING, make_record(net.build(), gains={"LayerNorm": gain}))
        assert sign.cause == cause
        assert f"each normalisation multiplies by about {gain}" in sign.message

    @pytest.mark.parametrize(
        ("update", "cause"), [(100.0, "learning_rate"), (1e-3, "weight_scale")]
    )
    def test_a_scale_that_was_open_has_been_closed_by_steps_that_replace_weights(
        self, update, cause, monkeypatch
    ):
        advise = "gradwatch.verdict.vanishing_causes.advise_on_factor"
        monkeypatch.setattr(advise, lambda *_: "Raise what multiplies the signal.")
        net = Network()
        net.add("fc0", "Linear")
        net.add("scale", "LayerNorm")
        net.add("fc1", "Linear", is_head=True)
        layer_set = net.build()
        began = make_record(layer_set, update_ratio=update)
        sign = see(VANISHING, began, make_record(layer_set, 1, gains={"scale": 1e-7}))
        assert (sign.layers, sign.cause) == (("fc0",), cause)
        assert ("Raise what multiplies" in sign.remedy) == (cause == "weight_scale")

    def test_an_optimizer_that_makes_up_for_it_does_no_harm(self):
        """The same profile under Adam: every weight moves."""
        record = make_record(build_chain(10), gains=SIGMOIDS, update_ratio=1e-3)
        assert examine(VANISHING, record) == []

    def test_standing_still_without_being_cut_off_is_convergence(self):
        assert examine(VANISHING, make_record(build_chain(10), loss_gradient=1e-9)) == []

    def test_a_schedule_makes_all_weights_stand_still(self):
        """What Adam makes up for, it makes up for at any learning rate."""
        layer_set = build_chain(10)
        records = [
            make_record(layer_set, step, SIGMOIDS, 1.0, rate, update_ratio=rate / 10)
            for step, rate in enumerate([1e-3] * 8 + [1e-4, 1e-5, 1e-6])
        ]
        assert examine(VANISHING, *records) == []
        (constant,) = examine(VANISHING, make_record(layer_set, 0, SIGMOIDS, update_ratio=1e-7))
        assert constant.layers[0] == "fc0"

    def test_while_the_rate_rises_weights_are_judged_against_each_other(self):
        layer_set = build_chain(10)
        rates = (1e-7, 2e-7, 3e-7)
        even = [make_record(layer_set, 0, SIGMOIDS, 1.0, rate, rate / 10) for rate in rates]
        assert examine(VANISHING, *even) == []
        assert examine(VANISHING, *[make_record(layer_set, 0, SIGMOIDS, 1.0, r) for r in rates])

    def pin(self, gain: float, loss: float = 1.0, **facts) -> StepRecord:
        net = Network()
        net.add("fc0", "Linear", inputs=())
        net.add("fc1", "Linear", is_head=True)
        net.add("out", "Sigmoid", is_head=True)
        return make_record(net.build(), gains={"out": gain}, loss=loss, **facts)

    def test_outputs_that_were_saturated_from_the_start_are_seen(self):
        sign = see(VANISHING, *repeat(self.pin(1e-6), 7, every=5))
        assert (sign.cause, sign.layers) == ("saturation", ("fc0", "fc1"))
        assert sign.message.startswith("Every layer gets 1 million times less gradient than")

    def test_outputs_that_became_sure_are_not(self):
        began = repeat(self.pin(0.1), 5)
        sure = repeat(self.pin(1e-6, loss=1e-3), 7, every=5, start=5)
        assert examine(VANISHING, *began, *sure) == []
        assert examine(VANISHING, *repeat(self.pin(1e-2), 7, every=5)) == []

    def test_outputs_that_close_while_the_loss_is_high_are_seen(self):
        began = repeat(self.pin(0.1), 5)
        closed = repeat(self.pin(1e-6, loss=0.8), 14, every=5, start=5)
        sign = see(VANISHING, *began, *closed)
        assert (sign.cause, sign.layers) == ("saturation", ("fc0", "fc1"))

    def test_a_minimum_above_zero_is_no_standstill(self):
        """Gradients of samples cancel in the weights; what arrives at the layers does not."""
        began = repeat(make_record(build_chain(3), loss=1.0), 5)
        rests = repeat(make_record(build_chain(3), loss=0.7, update_ratio=1e-9), 14, start=5)
        assert examine(VANISHING, *began, *rests) == []

    def test_a_network_that_never_moves_is_seen(self):
        record = make_record(build_chain(3), loss=1.0, loss_gradient=1e-8)
        assert set(see(VANISHING, *repeat(record, 7)).layers) == {"fc0", "fc1", "fc2"}

    def test_steps_that_are_too_small_for_the_gradient_are_another_rules(self):
        record = make_record(build_chain(3), loss=1.0, update_ratio=1e-9)
        assert examine(VANISHING, *repeat(record, 7)) == []

    def test_saturated_outputs_do_no_harm_to_weights_that_move(self):
        assert examine(VANISHING, *repeat(self.pin(1e-6, update_ratio=1e-3), 7, every=5)) == []

    def test_a_small_loss_is_no_disease(self):
        record = make_record(build_chain(3), gains={"Sigmoid": 0.5}, loss_gradient=1e-6)
        assert examine(VANISHING, record) == []

    @pytest.mark.parametrize("facts", [{"trainable": False}, {"optimized": False}])
    def test_frozen_layers_are_left_alone(self, facts):
        record = make_record(build_chain(10), gains=SIGMOIDS)
        params = tuple(replace(param, **facts) for param in record.layer_set.params)
        frozen = replace(record.layer_set, params=params)
        assert examine(VANISHING, replace(record, layer_set=frozen)) == []

    def test_a_vanishing_tower_is_seen_beside_a_healthy_one(self):
        net = Network()
        for side in ("left", "right"):
            net.add(f"{side}.0", "Linear", inputs=())
            net.add(f"{side}.1", "Linear")
        net.add("join", "Add", inputs=(1, 3))
        net.add("head", "Linear", is_head=True)
        sign = see(VANISHING, make_record(net.build(), gains={"left.1": 1e-7}))
        assert sign.layers == ("left.0",)
        assert sign.cause == "weight_scale"

    def test_a_bare_parameter_is_seen_by_its_share(self):
        net = Network()
        net.add("fc", "Linear", inputs=())
        net.add("head", "Linear", is_head=True)
        net.add_param("bare")
        record = change_param(make_record(net.build()), "grad_l2_norm", {"bare": 1e-9})
        sign = see(VANISHING, change_param(record, "update_l2_norm", {"bare": 1e-10}))
        assert sign.layers == ("bare",)

    def test_a_weight_that_does_not_change_is_said_to_stand_still(self):
        record = make_record(build_chain(10), gains=SIGMOIDS)
        still = change_param(record, "update_l2_norm", {"fc0.weight": 0.0})
        assert "fc0.weight does not change at all;" in see(VANISHING, still).message

    def test_no_gradient_at_all_is_said_so(self):
        record = make_record(build_chain(6, "ReLU"), gains={"act3": 0.0})
        sign = see(VANISHING, change(record, "dead_fraction", {"act3": 1.0}))
        assert sign.cause == "dead_units"
        assert sign.message.startswith("fc0 to fc3 get no gradient at all, unlike ")


class TestThroughTime:
    GRADS = (1e-8, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0)

    def test_time_steps_that_had_a_gradient_were_cut_off_by_a_step_that_replaced_weights(self):
        whole = give(unroll(8), [0.5] * 7 + [1.0])
        broken = change_param(whole, "update_l2_norm", {"cell.weight": 100.0})
        later = repeat(give(unroll(8), list(self.GRADS)), 7, every=10, start=10)
        assert see(THROUGH_TIME, broken, *later).cause == "learning_rate"
        # where it was so from the start, that step says nothing of time
        lost = replace(later[0], global_step=0)
        lost = change_param(lost, "update_l2_norm", {"cell.weight": 100.0})
        assert examine(THROUGH_TIME, lost, *later) == []

    def test_a_layer_that_remembered_and_was_taught_to_forget_lacks_nothing(self):
        whole = give(unroll(8), [0.5] * 7 + [1.0])
        later = repeat(give(unroll(8), list(self.GRADS)), 7, every=10, start=10)
        assert examine(THROUGH_TIME, whole, *later) == []

    def test_lost_time_steps_without_progress_are_seen(self):
        records = repeat(give(unroll(8), list(self.GRADS)), 7, every=10)
        sign = see(THROUGH_TIME, *records)
        assert (sign.cause, sign.layers) == ("through_time", ("cell",))
        assert "get 100 million times less gradient than the last ones" in sign.message

    def test_a_task_that_progresses_has_no_need_of_them(self):
        records = [
            change(record, "grad_output_l2_norm", {"head": 0.8**i})
            for i, record in enumerate(repeat(give(unroll(8), list(self.GRADS)), 10, every=10))
        ]
        assert examine(THROUGH_TIME, *records) == []

    def test_while_the_loss_says_too_little_it_is_a_note_and_asks_for_samples(self):
        records = repeat(give(unroll(8), list(self.GRADS)), 7, every=10)
        place = records[0].layer_set.rows.step.index("loss")
        for record in records:
            record.step_values[place] = 1.0
        sign = see(THROUGH_TIME, *records)
        assert (sign.severity, sign.is_open) == ("note", True)
        doctor = Doctor(rules=(THROUGH_TIME,))
        for record in records:
            doctor.observe(record)
        assert doctor.is_waiting

    def test_the_first_steps_are_too_early_to_tell(self):
        records = repeat(give(unroll(8), list(self.GRADS)), 6)
        assert examine(THROUGH_TIME, *records) == []

    def test_time_steps_that_are_fed_are_healthy(self):
        records = repeat(give(unroll(8), [0.1] * 8), 6, every=10)
        assert examine(THROUGH_TIME, *records) == []


class TestExploding:
    def test_growth_over_depth_is_seen(self):
        record = make_record(build_chain(9, "ReLU"), gains={"Linear": 10.0})
        sign = see(EXPLODING, record)
        assert (sign.cause, sign.layers[0]) == ("weight_scale", "fc0")
        assert sign.observed == pytest.approx(1e7)  # the head's own gain is the target's scale
        assert "is 10 million times that of the outputs" in sign.message

    def test_a_share_beyond_all_growth_names_the_worst_layer(self):
        record = make_record(build_chain(9, "ReLU"), gains={"Linear": 10.0})
        assert see(EXPLODING, record, grown_share=3.0).layers[0] == "fc0"

    def test_mild_growth_is_not(self):
        record = make_record(build_chain(9, "ReLU"), gains={"Linear": 1.5})
        assert examine(EXPLODING, record) == []

    @pytest.mark.parametrize(
        ("update", "loss", "found"), [(0.3, 1.0, 1), (0.3, 0.5, 0), (0.02, 1.0, 0)]
    )
    def test_steps_that_shake_the_weights_are_too_large_where_the_loss_gets_nowhere(
        self, update: float, loss: float, found: int
    ):
        records = [
            worked_record(
                step,
                param={"update_l2_norm": update, "weight_l2_norm": 1.0},
                step={"loss": 1.0 if step < 20 else loss},
            )
            for step in range(0, 80, 2)
        ]
        signs = examine(EXPLODING, *records)
        assert [sign.cause for sign in signs] == ["learning_rate"] * found

    def test_weights_that_run_away_are_seen(self):
        even = make_record(build_chain(9, "ReLU"))
        grown = change_param(even, "weight_l2_norm", {"fc2.weight": 2e4, "fc8.weight": 1e6})
        sign = see(EXPLODING, even, grown)
        assert (sign.cause, sign.layers) == ("learning_rate", ("fc2",))  # fc8 is the head

    def test_a_loss_in_large_units_is_none(self):
        record = make_record(build_chain(9, "ReLU"), loss_gradient=1e12)
        assert examine(EXPLODING, record) == []

    def test_a_loss_on_a_hidden_layer_is_none(self):
        """The gradient is larger there, but no layer's gain made it so."""
        record = make_record(build_chain(9, "ReLU"))
        assert examine(EXPLODING, change(record, "grad_output_l2_norm", {"fc2": 1e9})) == []

    def test_outputs_that_grow_over_depth_are_seen(self):
        norms = {f"fc{i}": NUMEL**0.5 * 10.0**i for i in range(8)}
        record = change(make_record(build_chain(9, "ReLU")), "output_l2_norm", norms)
        assert see(EXPLODING, record).message.startswith("The output of fc7 is 10 million times")

    def test_growth_over_time_steps_is_seen(self):
        sign = see(EXPLODING, give(unroll(8), [10.0**i for i in range(7, -1, -1)]))
        assert (sign.cause, sign.layers) == ("through_time", ("cell",))

    def test_a_run_whose_weights_diverge_is_seen(self):
        calm = make_record(build_chain(3))
        replaced = make_record(build_chain(3), loss_gradient=1e6, update_ratio=10.0)
        sign = see(EXPLODING, *repeat(calm, 5), *repeat(replaced, 3, start=5))
        assert sign.cause == "learning_rate"
        assert sign.looks_back

    def test_a_growing_error_under_calm_weights_is_not(self):
        """A curriculum or a loss that changes its scale."""
        calm = make_record(build_chain(3))
        larger = make_record(build_chain(3), loss_gradient=1e6, update_ratio=1e-3)
        assert examine(EXPLODING, *repeat(calm, 5), *repeat(larger, 3, start=5)) == []

    def test_outputs_that_a_step_has_made_diverge_are_seen_behind_a_bounded_error(self):
        """As under cross-entropy, whose error signal is at most 1."""
        calm = make_record(build_chain(8), update_ratio=1e-3)
        replaced = make_record(build_chain(8), update_ratio=1.0)
        grown = change(replaced, "output_l2_norm", {"fc3": 1e3 * NUMEL**0.5})
        sign = see(EXPLODING, *repeat(calm, 5), *repeat(grown, 3, start=5))
        assert sign.cause == "learning_rate"
        assert sign.layers == ("fc3",)
        assert sign.observed == pytest.approx(1e3)
        calm_but_grown = change(calm, "output_l2_norm", {"fc3": 1e3 * NUMEL**0.5})
        assert examine(EXPLODING, *repeat(calm, 5), *repeat(calm_but_grown, 3, start=5)) == []
        large = change(replaced, "output_l2_norm", {"fc3": 30 * NUMEL**0.5})
        assert examine(EXPLODING, *repeat(calm, 5), *repeat(large, 3, start=5)) == []

    def test_outputs_that_grow_over_depth_at_the_first_record_are_no_fault_of_the_rate(self):
        record = make_record(build_chain(8), update_ratio=1.0)
        grown = change(record, "output_l2_norm", {"fc6": 1e7 * NUMEL**0.5})
        assert see(EXPLODING, *repeat(grown, 4)).cause in (None, "weight_scale", "depth")


def test_a_loss_that_jumps_and_gets_nowhere_diverges_by_its_rate():
    """Behind a softmax the gradient stays as it is, whatever the loss."""
    layer_set = build_chain(3, activation="ReLU")
    losses = [4.0] * 8 + [9e3] + [4.1] * 3
    for jumps, last in ((True, 4.1), (False, 4.1), (True, 0.4)):
        records = [
            make_record(layer_set, step, loss=loss, update_ratio=0.6 if jumps else 0.1)
            for step, loss in enumerate([*losses, *[last] * 6])
        ]
        signs = EXPLODING.examine(fill_history(records), Thresholds())
        found = [(sign.cause, sign.looks_back) for sign in signs]
        assert found == ([("learning_rate", True)] if jumps and last > 1 else [])
