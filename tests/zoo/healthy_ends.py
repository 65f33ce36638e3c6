"""Twins of the runs in unhealthy_ends: the same with a number that does no harm."""

from __future__ import annotations

from functools import partial

from tests.zoo import ends
from tests.zoo.case import Case

CASES = (
    Case("mild_squares_in_the_loss", partial(ends.penalise, 2, 1e-4, 64), why="a usual penalty"),
    Case("mild_sizes_in_the_loss", partial(ends.penalise, 1, 1e-5, 40), why="a usual penalty"),
    Case("adamw_usual_decay", partial(ends.decay, 0.01), why="a ten-thousandth per step"),
    Case("adamw_strong_decay", partial(ends.decay, 2.0), why="2 % per step, and it learns"),
    Case("likelihood_clamped_low", partial(ends.clamp_likelihood, 1e-6, 32), why="out of reach"),
    Case("reward_against_the_mean", partial(ends.reinforce, 0.0), why="advantages differ"),
    Case("branch_behind_an_open_gate", partial(ends.shut_branch, 1.0, 32), why="0.73 passes"),
    Case("second_task_weighs_1", partial(ends.weigh_second, 1.0, 32), why="both tasks learn"),
    Case("inputs_of_unit_size", partial(ends.feed, 1.0, 32), why="standardised inputs"),
    Case("router_mixes_experts", partial(ends.route, 1.0, 0.0, 16), why="it learns whom to ask"),
    Case("scores_by_the_root_look_back", partial(ends.look_back, 1.0, 32), why="open at first"),
)
