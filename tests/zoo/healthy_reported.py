"""Trainings that people ask about, where nothing is wrong: twins of the unhealthy ones."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from tests.zoo import asked, reported
from tests.zoo.case import Case

LEAST = torch.finfo(torch.float32).min

CASES = (
    Case("adapter_of_rank_3", partial(reported.adapt, 40, 3, 0.3), why="one factor is random"),
    Case("speller_24_rate_1", partial(reported.spell, 40, 24, 1.0, 0.25), why="a usual rate"),
    Case("policy_on_scaled_states", partial(reported.steer, 1.0, 48), why="states of unit scale"),
    Case("relu_stages_recomputed", partial(reported.recompute, nn.ReLU, 4, 18), why="four layers"),
    Case("relu_chain_by_autograd_grad", partial(reported.differentiate, nn.ReLU, 3), why="three"),
    Case(
        "restoring_1_picture", partial(reported.restore, 1, 24, 0.0, 0), why="every channel fires"
    ),
    Case("conditioned_20_channels", partial(reported.condition, 20, 0), why="every channel fires"),
    *(
        Case(
            f"padding_beside_{width}_filters",
            partial(reported.pad, width, bias),
            why="padded positions are no units",
        )
        for width, bias in ((16, -0.1), (40, -0.2))
    ),
    Case(
        "scores_masked_with_infinity",
        partial(reported.read_on, 24, 32, float("-inf")),
        why="-inf is meant: nothing behind the softmax is hurt",
    ),
    Case(
        "scores_masked_with_the_least_number",
        partial(reported.read_on, 40, 48, LEAST),
        why="the least number is meant: nothing behind the softmax is hurt",
    ),
    Case(
        "forecast_lstm_mostly_noise",
        partial(reported.forecast, nn.LSTM, 24, 1.0, 0.7),
        why="the last two of thirty steps matter, and the loss reaches the noise",
    ),
    Case(
        "forecast_gru_in_large_units",
        partial(reported.forecast, nn.GRU, 40, 20.0, 0.4),
        why="the last two of thirty steps matter, and the loss reaches the noise",
    ),
    *(
        Case(
            f"second_answer_of_{width}_unused",
            partial(reported.answer, width),
            why="one of two answers has no consumer on the way to the loss",
        )
        for width in (36, 80)
    ),
    Case(
        "pairs_that_differ",
        partial(reported.pair_up, 24, 1000),
        why="no two samples of a pair are the same",
    ),
    Case("sigmoid_over_one_output", partial(asked.decide, 48, has_one_entry=False), why="no cut"),
    *(
        Case(f"gate_of_{width}_normalised", partial(asked.weigh, width, 4), why="several values")
        for width in (32, 48)
    ),
    Case("cell_with_its_state", partial(asked.remember, 24, 20, is_cut=False), why="no cut"),
    Case("logarithm_of_a_gate_with_a_floor", partial(asked.gate, 48, 1e-6), why="never of 0"),
    Case(
        "root_at_zero_behind_a_rectifier",
        partial(asked.locate, 32, is_rectified=True),
        why="NaN where the rectifier is flat reaches no weight, and the loss falls as without",
    ),
    Case("exponential_of_bounded_inputs", partial(asked.encode, 48, 1.0, 6.0), why="bounded"),
    Case("targets_below_zero", partial(asked.owe, 48, is_rectified=False), why="no rectifier"),
)
