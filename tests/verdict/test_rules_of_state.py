"""Rules on the state of layers: what each must see, and close to it what it must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch.records import StepRecord
from gradwatch.schema.cut import Cut
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.rules.dead import DEAD
from gradwatch.verdict.rules.disconnected import DISCONNECTED
from gradwatch.verdict.rules.nonfinite import NONFINITE
from gradwatch.verdict.rules.saturated import SATURATED
from gradwatch.verdict.rules.underflow import UNDERFLOW
from tests.records_builder import (
    NUMEL,
    WEIGHT_NORM,
    Network,
    build_chain,
    change,
    change_param,
    change_step,
    make_record,
    repeat,
)
from tests.verdict.examination import examine, see


def hold_weights_in(dtype: str, record: StepRecord) -> StepRecord:
    params = tuple(replace(param, dtype=dtype) for param in record.layer_set.params)
    return replace(record, layer_set=replace(record.layer_set, params=params))


class TestDead:
    HEALTHY = make_record(build_chain(4, "ReLU"))

    def test_silent_units_are_seen_with_the_weight_that_feeds_them(self):
        sign = see(DEAD, *repeat(change(self.HEALTHY, "dead_fraction", {"act1": 0.8}), 3))
        assert (sign.cause, sign.layers, sign.severity) == (
            "dead_units",
            ("act1", "fc1"),
            "critical",
        )
        assert sign.observed == 0.8

    @pytest.mark.parametrize("share", [0.08, 0.3, 0.5])
    def test_some_are_normal_and_worth_no_note(self, share):
        assert examine(DEAD, *repeat(change(self.HEALTHY, "dead_fraction", share), 3)) == []

    @pytest.mark.parametrize(("loss", "severity"), [(0.05, "note"), (0.9, "critical")])
    def test_beside_a_skip_the_loss_tells_whether_they_do_harm(self, loss, severity):
        net = Network()
        stem = net.add("stem", "Linear")
        net.add("branch", "Linear")
        act = net.add("act", "ReLU")
        net.add("head", "Linear", inputs=(stem, act), is_head=True)
        record = change(make_record(net.build()), "dead_fraction", {"act": 0.9})
        at_first = change_step(record, loss=1.0)
        sign = see(DEAD, *repeat(at_first, 5), *repeat(change_step(record, loss=loss), 8))
        assert sign.severity == severity

    @pytest.mark.parametrize(
        ("fqn", "loss", "counts"),
        [("(outside):relu", 1.0, False), ("act4", 0.01, False), ("act4", 1.0, True)],
    )
    def test_a_margin_that_is_met_is_no_death(self, fqn, loss, counts):
        *inner, last = self.HEALTHY.layer_set.layers[:-1]
        head = replace(last, fqn=fqn, is_head=True)
        layer_set = replace(
            self.HEALTHY.layer_set, layers=(*inner, head, self.HEALTHY.layer_set.layers[-1])
        )
        began = change_step(replace(self.HEALTHY, layer_set=layer_set), loss=1.0)
        silent = change_step(change(began, "dead_fraction", {fqn: 1.0}), loss=loss)
        records = [*repeat(began, 5), *repeat(silent, 5, start=5)]
        assert bool(examine(DEAD, *records)) == counts

    def test_a_layer_of_one_unit_that_never_fires_lets_nothing_through(self):
        params = [replace(param, shape=(1, 64)) for param in self.HEALTHY.layer_set.params]
        narrow = replace(
            self.HEALTHY, layer_set=replace(self.HEALTHY.layer_set, params=tuple(params))
        )
        sign = see(DEAD, *repeat(change(narrow, "dead_fraction", {"act1": 1.0}), 3))
        assert (sign.layers[0], sign.severity) == ("act1", "critical")

    def test_zeros_are_no_death(self):
        assert examine(DEAD, change(self.HEALTHY, "zero_fraction", 0.94)) == []

    def test_too_few_samples_say_nothing(self):
        """An expert that saw ten samples."""
        quiet = change(self.HEALTHY, "dead_fraction", {"act1": 0.8})
        quiet = change(quiet, "zero_fraction", {"act1": 0.97})
        assert examine(DEAD, change(quiet, "unit_samples", {"act1": 10.0})) == []

    @pytest.mark.parametrize(
        "setting", [{"dead_rarity": 0.01}, {"dead_rarity": 0.0}, {"persistence": 1}]
    )
    def test_any_setting_can_be_judged_by(self, setting):
        dead = change(self.HEALTHY, "dead_fraction", {"act1": 0.8})
        assert examine(DEAD, *repeat(dead, 3), **setting)[0].severity == "critical"

    @pytest.mark.parametrize(("units", "counts"), [(6, False), (64, True)])
    def test_most_units_of_a_narrow_layer_may_be_silent_by_chance(self, units, counts):
        quiet = change(self.HEALTHY, "dead_fraction", {"act1": 4 / 6})
        quiet = change(quiet, "zero_fraction", {"act1": 0.8})
        params = tuple(replace(param, shape=(units, 64)) for param in quiet.layer_set.params)
        narrow = replace(quiet, layer_set=replace(quiet.layer_set, params=params))
        assert bool(examine(DEAD, *repeat(narrow, 3))) == counts

    @pytest.mark.parametrize(("zeros_at_first", "counts"), [(0.69, False), (0.4, True)])
    def test_signs_that_biases_draw_are_no_death(self, zeros_at_first, counts):
        """Living units that always fire: a coin has silenced the others, unless they once fired."""
        params = tuple(replace(param, shape=(32, 32)) for param in self.HEALTHY.layer_set.params)
        fresh = replace(self.HEALTHY, layer_set=replace(self.HEALTHY.layer_set, params=params))
        fresh = change(fresh, "zero_fraction", {"act1": zeros_at_first})
        drawn = change(fresh, "dead_fraction", {"act1": 22 / 32})
        drawn = change(drawn, "zero_fraction", {"act1": 0.7})
        assert bool(examine(DEAD, fresh, *repeat(drawn, 3))) == counts
        late = replace(drawn, global_step=Thresholds().dead_settling)
        assert examine(DEAD, fresh, *repeat(drawn, 3), late)

    def test_units_that_die_of_a_large_step_died_of_the_learning_rate(self):
        dying = change(self.HEALTHY, "dead_fraction", {"act1": 0.8})
        replaced = change_param(dying, "update_l2_norm", {"fc1.weight": 100.0})
        sign = see(DEAD, *repeat(self.HEALTHY, 6), replaced, dying, dying)
        assert sign.cause == "learning_rate"


class TestSaturated:
    def test_saturated_activations_are_seen_with_the_weight_that_feeds_them(self):
        record = change(make_record(build_chain(4)), "saturated_fraction", {"act1": 0.9})
        sign = see(SATURATED, record)
        assert (sign.cause, sign.layers) == ("saturation", ("act1", "fc1"))
        assert sign.severity == "warning"

    def test_half_saturated_is_not(self):
        assert (
            examine(SATURATED, change(make_record(build_chain(4)), "saturated_fraction", 0.7)) == []
        )

    @pytest.mark.parametrize(("loss", "signs"), [(0.05, 0), (0.5, 1)])
    def test_what_a_large_step_has_closed_is_harmless_where_the_task_is_solved(self, loss, signs):
        layer_set = build_chain(4)
        first = [make_record(layer_set, step, update_ratio=1.0, loss=1.0) for step in range(8)]
        last = [make_record(layer_set, step, loss=loss) for step in range(8, 24)]
        closed = [change(record, "saturated_fraction", {"act1": 0.9}) for record in last]
        assert len(examine(SATURATED, *first, *closed)) == signs

    @pytest.mark.parametrize(("opposed", "signs"), [(0.01, 0), (0.2, 1), (np.nan, 0)])
    def test_an_output_that_is_off_is_stuck_where_many_elements_are_to_be_on(self, opposed, signs):
        net = Network()
        net.add("fc", "Linear")
        net.add("probability", "Sigmoid", is_head=True)
        records = [make_record(net.build(), step, loss=0.7) for step in range(60)]
        for statistic, value in (
            *(("saturated_fraction", 1.0), ("opposed_fraction", opposed)),
            ("output_l2_norm", 1e-3 * NUMEL**0.5),
        ):
            records = [change(record, statistic, {"probability": value}) for record in records]
        assert len(examine(SATURATED, *records)) == signs

    @pytest.mark.parametrize(("fraction", "signs"), [(0.95, 0), (1.0, 1)])
    def test_what_is_flat_on_one_side_is_saturated_when_all_of_it_is(self, fraction, signs):
        record = change(make_record(build_chain(4, "SiLU")), "saturated_fraction", fraction)
        assert len(examine(SATURATED, record)) == signs

    @pytest.mark.parametrize("facts", [{"is_gate": True}, {"is_head": True}, {"type": "ReLU"}])
    def test_gates_heads_and_rectifiers_are_right_to_be_sure(self, facts):
        record = change(make_record(build_chain(4)), "saturated_fraction", 0.99)
        layers = [
            replace(layer, **facts) if layer.role == "activation" else layer
            for layer in record.layer_set.layers
        ]
        other = replace(record, layer_set=replace(record.layer_set, layers=tuple(layers)))
        assert examine(SATURATED, other) == []


class TestUnderflow:
    def make_faint(self, dtype: str) -> StepRecord:
        record = make_record(build_chain(4, "Tanh", dtype), gains={"fc2": 1e-9})
        return change(record, "grad_zero_fraction", {"fc0": 0.9, "act0": 0.9, "fc1": 0.9})

    def test_gradients_flushed_to_zero_are_seen(self):
        sign = see(UNDERFLOW, self.make_faint("float16"))
        assert sign.cause == "precision"
        assert {"fc0", "act0", "fc1"} <= set(sign.layers)
        assert "fc3" not in sign.layers

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_wider_ranges_do_not_flush(self, dtype):
        assert examine(UNDERFLOW, self.make_faint(dtype)) == []

    def test_zeros_of_a_gradient_that_is_not_faint_are_others(self):
        record = make_record(build_chain(4, "Tanh", "float16"))
        assert examine(UNDERFLOW, change(record, "grad_zero_fraction", 0.9)) == []

    @pytest.mark.parametrize(
        ("dtype", "ratio"), [("float16", 0), ("bfloat16", 0), ("bfloat16", 1e-5)]
    )
    def test_half_precision_weights_that_hardly_change_are_seen(self, dtype, ratio):
        update = {"fc1.weight": ratio * WEIGHT_NORM}
        record = change_param(make_record(build_chain(3)), "update_l2_norm", update)
        sign = see(UNDERFLOW, *repeat(hold_weights_in(dtype, record), 6))
        assert sign.layers == ("fc1",)
        assert dtype in sign.message
        assert examine(UNDERFLOW, *repeat(record, 6)) == []


class TestNonfinite:
    HEALTHY = make_record(build_chain(4))

    def test_the_first_output_that_is_not_finite_is_named(self):
        broken = change(
            self.HEALTHY, "output_l2_norm", {"act1": np.inf, "fc2": np.inf, "fc3": np.inf}
        )
        broken = change_param(broken, "update_l2_norm", {"fc0.weight": np.inf})
        assert see(NONFINITE, broken).layers == ("act1",)

    def test_a_gradient_alone_is_named_from_the_loss_back(self):
        broken = change(self.HEALTHY, "grad_output_l2_norm", {"fc0": np.inf, "fc1": np.inf})
        broken = change_param(broken, "update_l2_norm", {"fc0.weight": np.inf})
        assert see(NONFINITE, broken).layers == ("fc1",)

    def test_one_that_never_reached_the_weights_counts_when_it_lasts(self):
        broken = change(self.HEALTHY, "grad_output_l2_norm", {"fc0": np.inf})
        assert examine(NONFINITE, self.HEALTHY, broken) == []
        assert see(NONFINITE, broken, broken).layers == ("fc0",)

    @pytest.mark.parametrize(
        ("facts", "source", "scale", "cause"),
        [
            ({"passes_float16": True}, "float32", 76.0, "precision"),
            ({}, "float16", 300.0, "precision"),
            ({}, "float16", 1.0, None),
            ({"passes_float16": True}, "float32", 1.0, None),
            ({}, "float32", 300.0, None),
            ({}, "bfloat16", 300.0, None),
        ],
    )
    def test_what_overflows_between_layers(self, facts, source, scale, cause):
        """Named also at later steps, when the weights and with them all outputs are broken."""
        net = Network()
        net.add("proj", "Linear", dtype=source)
        net.add("norm", "LayerNorm", **facts)
        net.add("head", "Linear", is_head=True)
        record = change(make_record(net.build()), "output_l2_norm", {"proj": scale * NUMEL**0.5})
        record = change(record, "output_l2_norm", {"norm": np.inf, "head": np.inf})
        record = change_param(record, "update_l2_norm", np.inf)
        later = change(record, "output_l2_norm", np.inf)
        assert see(NONFINITE, record).cause == cause
        assert see(NONFINITE, record, later, later).cause == cause

    @pytest.mark.parametrize(
        ("dtype", "scale", "cause"),
        [("float16", 300.0, "precision"), ("float16", 1.0, None), ("float32", 300.0, None)],
    )
    def test_what_overflows_behind_the_last_layer(self, dtype, scale, cause):
        record = make_record(build_chain(3, dtype=dtype))
        record = change(record, "output_l2_norm", {"fc2": scale * NUMEL**0.5})
        record = change(record, "grad_output_l2_norm", np.inf)
        assert see(NONFINITE, change_param(record, "update_l2_norm", np.inf)).cause == cause

    @pytest.mark.parametrize(
        ("dtype", "cause", "remedy"),
        [("float16", "precision", "eps=1e-4"), ("bfloat16", None, "0 by 0")],
    )
    def test_a_step_that_breaks_what_was_finite_is_the_optimizers(self, dtype, cause, remedy):
        record = hold_weights_in(dtype, make_record(build_chain(3)))
        sign = see(NONFINITE, change_param(record, "update_l2_norm", {"fc0.weight": np.inf}))
        assert (sign.cause, sign.layers) == (cause, ("fc0",))
        assert "The optimizer's step" in sign.message
        assert remedy in sign.remedy

    def test_finite_numbers_are_well_however_large(self):
        assert examine(NONFINITE, change(self.HEALTHY, "output_l2_norm", 1e30)) == []


class TestDisconnected:
    def cut(self, **facts) -> StepRecord:
        record = make_record(build_chain(4))
        record = change_param(record, "grad_l2_norm", {"fc0.weight": np.nan})
        record = change_param(record, "update_l2_norm", {"fc0.weight": 0.0})
        record = change(record, "grad_output_l2_norm", {"fc0": np.nan})
        params = tuple(replace(param, **facts) for param in record.layer_set.params)
        return replace(record, layer_set=replace(record.layer_set, params=params))

    def test_a_parameter_that_never_gets_a_gradient_is_seen(self):
        sign = see(DISCONNECTED, *repeat(self.cut(), 5))
        assert (sign.layers, sign.cause, sign.severity) == (("fc0",), "disconnected", "critical")

    def test_the_whole_window_is_needed(self):
        assert examine(DISCONNECTED, *repeat(self.cut(), 4)) == []
        assert examine(DISCONNECTED, make_record(self.cut().layer_set), *[self.cut()] * 4) == []

    def test_one_that_is_never_used_is_a_note(self):
        assert see(DISCONNECTED, *repeat(self.cut(used=False), 5)).severity == "note"

    def test_frozen_parameters_are_cut_on_purpose(self):
        assert examine(DISCONNECTED, *repeat(self.cut(trainable=False), 9)) == []

    def test_what_nothing_uses_is_a_note(self):
        net = Network()
        trunk = net.add("trunk", "Linear")
        net.add("spare", "Linear")
        net.add("head", "Linear", inputs=(trunk,), is_head=True)
        record = make_record(net.build())
        record = change(record, "grad_output_l2_norm", {"spare": np.nan})
        record = change_param(record, "grad_l2_norm", {"spare.weight": np.nan})
        record = change_param(record, "update_l2_norm", {"spare.weight": 0.0})
        sign = see(DISCONNECTED, *repeat(record, 5))
        assert (sign.layers, sign.severity) == (("spare",), "note")
        cut = Cut("detach", "model.py:4", "x.detach()", "Net.forward", layers=("spare",))
        record = replace(record, layer_set=replace(record.layer_set, cuts=(cut,)))
        sign = see(DISCONNECTED, *repeat(record, 5))
        assert (sign.severity, sign.source) == ("critical", "model.py:4")
        assert "model.py:4, `x.detach()` in Net.forward" in sign.message

    def test_exact_zeros_are_gradients(self):
        record = make_record(build_chain(4), gains={"fc1": 0.0})
        assert examine(DISCONNECTED, *repeat(record, 9)) == []

    def test_copies_that_somebody_keeps_are_left_alone(self):
        kept = change_param(self.cut(), "update_l2_norm", {"fc0.weight": 0.1})
        assert examine(DISCONNECTED, *repeat(kept, 9)) == []

    def waits(self) -> StepRecord:
        """Nothing is known of a parameter whose own optimizer has not stepped."""
        return change_param(self.cut(), "update_l2_norm", {"fc0.weight": np.nan})

    def test_a_parameter_whose_optimizer_waits_is_left_alone(self):
        assert examine(DISCONNECTED, *repeat(self.waits(), 9)) == []

    def test_a_path_that_the_loss_never_asks_for_is_seen(self):
        silent = make_record(build_chain(4), loss_gradient=0.0)
        assert examine(DISCONNECTED, *repeat(silent, 6, every=5)) == []
        sign = see(DISCONNECTED, *repeat(silent, 7, every=5))
        assert sign.layers == ("fc0", "fc1", "fc2", "fc3")

    def test_one_that_was_asked_for_once_has_learned(self):
        """A hinge loss whose margins are all kept by now."""
        layer_set = build_chain(4)
        kept = repeat(make_record(layer_set, loss_gradient=0.0), 20, every=5, start=5)
        assert examine(DISCONNECTED, make_record(layer_set), *kept) == []
