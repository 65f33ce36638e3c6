"""The gradient along the time steps of recurrent layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch.evidence.since_start import have_steps_taken_time
from gradwatch.evidence.time_steps import (
    TIME,
    find_chains,
    measure_time_growth,
    measure_time_share,
)
from gradwatch.evidence.topology import map_topology
from gradwatch.records import LayerSet
from gradwatch.thresholds import Thresholds
from tests.records_builder import (
    Network,
    change,
    fill_history,
    give,
    make_record,
    read,
    unroll,
)

CALLS = Thresholds().recurrent_calls


def bucket(n_buckets: int) -> LayerSet:
    """The time buckets inside a recurrent module, which do not feed each other in the record."""
    net = Network()
    for _ in range(n_buckets):
        net.add(f"rnn{TIME}", "RNNCell", inputs=())
    net.add("head", "Linear", inputs=(n_buckets - 1,), is_head=True)
    return net.build()


@pytest.mark.parametrize("kind", ["RNNCell", "Linear"])
def test_a_cell_called_in_a_loop_is_a_chain(kind):
    assert find_chains(map_topology(unroll(6, kind)), CALLS) == {"cell": (0, 1, 2, 3, 4, 5)}


@pytest.mark.parametrize(("first", "taken"), [(0.5, True), (1e-5, False)])
def test_time_steps_that_had_a_gradient_at_first_lost_it_to_the_steps(first, taken):
    then, now = (give(unroll(8), [share] * 4 + [1.0] * 4) for share in (first, 1e-6))
    history = fill_history([then, replace(now, global_step=60)])
    (profile,) = measure_time_share(history.latest, Thresholds())
    assert have_steps_taken_time(history, profile, Thresholds()) is taken


def test_few_calls_are_no_chain():
    assert find_chains(map_topology(unroll(CALLS - 1)), CALLS) == {}


def test_many_parallel_calls_are_no_chain():
    net = Network()
    net.add("stem", "Linear")
    for _ in range(6):
        net.add("shared", "Linear", inputs=(0,))
    assert find_chains(map_topology(net.build()), CALLS) == {}


def test_time_buckets_are_a_chain_named_like_the_module():
    assert find_chains(map_topology(bucket(5)), CALLS) == {"rnn": (0, 1, 2, 3, 4)}


def test_share_is_the_first_quarter_against_the_largest():
    grads = [1e-6, 3e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 2.0]
    (profile,) = measure_time_share(read(give(unroll(8), grads)), Thresholds())
    assert profile.fqn == "cell"
    assert profile.steps == 8
    assert profile.share == pytest.approx(2e-6 / 2.0)
    assert profile.growth == pytest.approx(2e-6 / 1.25)


def test_growth_is_the_first_quarter_against_the_last():
    (profile,) = measure_time_growth(read(give(bucket(4), [1e6, 1e3, 10.0, 1.0])), Thresholds())
    assert profile.growth == pytest.approx(1e6)
    assert profile.share == pytest.approx(1.0)


def test_steps_without_a_gradient_are_left_out():
    grads = [np.nan, 1.0, 1.0, 1.0, np.nan, 1.0]
    (profile,) = measure_time_share(read(give(unroll(6), grads)), Thresholds())
    assert profile.steps == 4
    assert measure_time_share(read(give(unroll(6), [np.nan] * 6)), Thresholds()) == []
    assert measure_time_share(read(give(unroll(6), [0.0] * 6)), Thresholds()) == []


def test_unknown_growth_is_left_out():
    assert measure_time_growth(read(give(bucket(4), [1.0, 1.0, 0.0, 0.0])), Thresholds()) == []


def test_a_profile_names_the_cell_and_what_feeds_it():
    net = Network()
    embedding = net.add("embed", "Embedding", inputs=())
    before = [net.add("cell", "RNNCell", inputs=(embedding,))]
    for _ in range(4):
        before.append(net.add("cell", "RNNCell", inputs=(embedding, before[-1])))
    net.add("head", "Linear", is_head=True)
    reading = read(change(make_record(net.build()), "grad_output_l2_norm", {"cell": 1.0}))
    (profile,) = measure_time_share(reading, Thresholds())
    assert profile.list_layers(reading) == ("cell", "embed")


def test_a_layer_without_any_gradient_has_no_profile_however_few_calls_are_asked_for():
    nothing = read(give(unroll(6), [np.nan] * 6))
    profiles = measure_time_share(nothing, Thresholds(recurrent_calls=0))
    assert "cell" not in {profile.fqn for profile in profiles}
