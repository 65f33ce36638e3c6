"""Trainings that people ask about, where something is wrong; each with what mends it."""

from __future__ import annotations

from functools import partial

from torch import nn

from tests.zoo import asked, reported
from tests.zoo.case import Case

VANISHING, DEAD = ("vanishing",), ("dead",)
ADAPTERS = ("0", "2")

CASES = (
    *(
        Case(
            f"adapter_of_rank_{rank}_double_zero",
            partial(reported.adapt, width, rank, 0.0),
            VANISHING,
            ("disconnected",),
            None,
            ADAPTERS,
            why="both factors begin at zero, and each is the other's gradient",
            fixed=partial(reported.adapt, width, rank, 0.3),
        )
        for width, rank in ((40, 3), (72, 8))
    ),
    *(
        Case(
            f"speller_{width}_rate_{rate:g}",
            partial(reported.spell, letters, width, rate, clip),
            ("exploding", "dead", "vanishing"),
            ("saturated", "unmoved"),
            None,
            ("memory", "letters", "guess"),
            why="steps of plain gradient descent that shake or silence the rectified recurrence",
            fixed=partial(reported.spell, letters, width, 1.0, clip),
        )
        for letters, width, rate, clip in ((40, 24, 24.0, 0.25), (70, 40, 16.0, 0.5))
    ),
    Case(
        "sigmoid_chain_90_default",
        partial(reported.chain, nn.Sigmoid, 90),
        VANISHING,
        (),
        "activation_derivative",
        ("*",),
        why="0.24 of each sigmoid and 0.58 of each weight; float32 ends after some fifty",
        fixed=partial(reported.chain, nn.ReLU, 90, residual=True),
    ),
    Case(
        "relu_chain_110_default",
        partial(reported.chain, nn.ReLU, 110),
        VANISHING,
        (),
        None,
        ("*",),
        why="no rectifier multiplies by more than 1: the weights, at 0.58 a layer, are to blame",
        fixed=partial(reported.chain, nn.ReLU, 110, residual=True),
    ),
    *(
        Case(
            f"policy_of_width_{width}_on_raw_states",
            partial(reported.steer, scale, width),
            ("saturated", "vanishing"),
            ("dead",),
            None,
            ("4", "5"),
            why="states in their own units close the output tanh for good",
            fixed=partial(reported.steer, 1.0, width),
        )
        for scale, width in ((400.0, 48), (2000.0, 96))
    ),
    Case(
        "sigmoid_stages_recomputed",
        partial(reported.recompute, nn.Sigmoid, 14, 18),
        VANISHING,
        (),
        None,
        ("stages*",),
        why="fourteen sigmoid layers in reentrant checkpoints",
        fixed=partial(reported.recompute, nn.ReLU, 4, 18),
    ),
    Case(
        "sigmoid_chain_by_autograd_grad",
        partial(reported.differentiate, nn.Sigmoid, 11),
        VANISHING,
        (),
        None,
        ("[0-9]", "1?"),
        why="eleven sigmoid layers whose gradients are put in place by hand",
        fixed=partial(reported.differentiate, nn.ReLU, 3),
    ),
    *(
        Case(
            f"restoring_{size}_pictures_dead_channels",
            partial(reported.restore, size, channels, -15.0, kept),
            ("dead", "vanishing"),
            (),
            None,
            ("0", "1", "2", "3"),
            why="nearly all channels of the middle convolution never fire",
            fixed=partial(reported.restore, size, channels, 0.0, 0),
        )
        for size, channels, kept in ((1, 24, 2), (3, 16, 1))
    ),
    *(
        Case(
            f"conditioned_{channels}_channels_dead",
            partial(reported.condition, channels, dead),
            DEAD,
            (),
            None,
            ("filters", "condition"),
            why="most channels never fire; a linear layer runs in between",
            fixed=partial(reported.condition, channels, 0),
        )
        for channels, dead in ((20, 19), (48, 47))
    ),
    Case(
        "projection_dead_beside_a_convolution",
        partial(reported.pad, 40, -60.0),
        DEAD,
        ("vanishing",),
        None,
        ("project",),
        why="no position of any sequence makes one of the projection's units fire",
        fixed=partial(reported.pad, 40, 0.1),
    ),
    *(
        Case(
            f"same_pair_at_step_{step}",
            partial(reported.pair_up, width, step),
            ("nonfinite",),
            (),
            None,
            ("*",),
            step,
            why="two samples are one: the gradient of a square root at 0 is infinite",
            fixed=partial(reported.pair_up, width, 1000),
        )
        for width, step in ((24, 40), (64, 70))
    ),
    Case(
        "answer_behind_a_cut",
        partial(reported.answer, 36, is_cut=True),
        ("disconnected",),
        (),
        None,
        ("trunk", "trunk.0", "topic"),
        why="a hook detaches what the trunk returns",
        fixed=partial(reported.answer, 36),
    ),
    Case(
        "softmax_over_one_output",
        partial(asked.decide, 32, has_one_entry=True),
        ("disconnected",),
        (),
        "disconnected",
        ("0", "2"),
        why="a softmax over one entry is 1 whatever it is given",
        fixed=partial(asked.decide, 32, has_one_entry=False),
    ),
    *(
        Case(
            f"gate_of_{width}_normalised_one_by_one",
            partial(asked.weigh, width, width),
            ("disconnected",),
            (),
            "disconnected",
            ("gate.0",),
            why="GroupNorm with one value in a group returns its bias whatever it is given",
            fixed=partial(asked.weigh, width, 4),
        )
        for width in (32, 48)
    ),
    Case(
        "cell_cut_at_each_step",
        partial(asked.remember, 32, 30, is_cut=True),
        VANISHING,
        (),
        "disconnected",
        ("cell",),
        why="the state is detached in the loop over time, and what matters came at its first step",
        fixed=partial(asked.remember, 32, 30, is_cut=False),
    ),
    Case(
        "logarithm_of_a_sure_gate",
        partial(asked.gate, 32, 0.0),
        ("nonfinite",),
        (),
        None,
        ("*",),
        why="the logarithm of a sigmoid that has become 0",
        fixed=partial(asked.gate, 32, 1e-6),
    ),
    Case(
        "exponential_of_large_inputs",
        partial(asked.encode, 32, 40.0, 1e3),
        ("exploding", "nonfinite"),
        ("dead",),
        None,
        ("*",),
        why="a log-variance of inputs in large units: its exponential is beyond everything",
        fixed=partial(asked.encode, 32, 1.0, 6.0),
    ),
    Case(
        "targets_below_an_output_relu",
        partial(asked.owe, 32, is_rectified=True),
        ("dead", "vanishing"),
        (),
        "dead_units",
        ("0", "1", "2", "3"),
        why="no target can be reached from above 0",
        fixed=partial(asked.owe, 32, is_rectified=False),
    ),
)
