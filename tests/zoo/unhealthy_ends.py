"""Every layer is well, and what acts on the weights or the loss is not; twins in healthy_ends."""

from __future__ import annotations

from functools import partial

from tests.zoo import ends
from tests.zoo.case import Case

VANISHING, CUT = ("vanishing",), ("disconnected",)

CASES = (
    *(
        Case(
            f"penalty_of_power_{power}_in_the_loss",
            partial(ends.penalise, power, strength, width),
            VANISHING,
            ("dead",),
            "weight_decay",
            ("*",),
            why="the penalty in the loss erases every weight; without it the net learns",
            fixed=partial(ends.penalise, power, 0.0, width),
        )
        for power, strength, width in ((2, 0.3, 64), (1, 0.1, 40))
    ),
    Case(
        "adamw_takes_a_third_per_step",
        partial(ends.decay, 30.0),
        VANISHING,
        ("dead", "exploding"),
        "weight_decay",
        ("*",),
        why="rate times decay is 0.3: what a step builds has gone after ten",
        fixed=partial(ends.decay, 0.01),
        frozen=partial(ends.decay, 30.0),
    ),
    *(
        Case(
            f"likelihood_clamped_at_{least:g}",
            partial(ends.clamp_likelihood, least, width),
            CUT,
            (),
            "disconnected",
            ("*",),
            why="ten classes at 0.1 lie below the clamp, where its slope is 0",
            fixed=partial(ends.clamp_likelihood, 1e-6, width),
        )
        for least, width in ((0.3, 32), (0.5, 64))
    ),
    Case(
        "reward_is_its_own_baseline",
        partial(ends.reinforce, 1.0),
        CUT,
        (),
        "disconnected",
        ("*",),
        why="every advantage is 0; the mean over the batch as the baseline learns",
        fixed=partial(ends.reinforce, 0.0),
    ),
    *(
        Case(
            f"branch_behind_a_gate_at_minus_{-gate:.0f}",
            partial(ends.shut_branch, gate, width),
            VANISHING,
            (),
            None,
            ("branch", "gate"),
            why="the gate lets a ten-millionth of the gradient into the branch",
            fixed=partial(ends.shut_branch, 1.0, width),
        )
        for gate, width in ((-16.0, 32), (-19.0, 48))
    ),
    *(
        Case(
            f"second_task_weighs_{weight:g}",
            partial(ends.weigh_second, weight, width),
            VANISHING,
            (),
            None,
            ("size",),
            why="its head gets next to nothing under plain gradient descent",
            fixed=partial(ends.weigh_second, 1.0, width),
        )
        for weight, width in ((1e-7, 32), (1e-9, 64))
    ),
    Case(
        "inputs_of_a_millionth",
        partial(ends.feed, 1e-6, 32),
        VANISHING,
        (),
        None,
        ("*",),
        why="inputs that were divided twice: the first weight gets a millionth of its gradient",
        fixed=partial(ends.feed, 1.0, 32),
    ),
    *(
        Case(
            f"router_of_{width}_wide_experts_is_sure",
            partial(ends.route, scale, favour, width),
            VANISHING,
            ("saturated",),
            "saturation",
            ("router", "softmax", "experts"),
            why="a one-hot softmax over the experts has no slope: the router chooses one for ever",
            fixed=partial(ends.route, 1.0, 0.0, width),
            frozen=partial(ends.route, scale, favour, width),
        )
        for scale, favour, width in ((300.0, 900.0, 16), (200.0, 800.0, 24))
    ),
    Case(
        "scores_times_1000_look_back",
        partial(ends.look_back, 1000.0, 32),
        ("saturated",),
        ("vanishing", "exploding"),
        "saturation",
        ("softmax", "query", "key"),
        why="scores in the hundreds make the softmax one-hot from the start",
        fixed=partial(ends.look_back, 1.0, 32),
    ),
)
