"""The healthy halves of pairs that a threshold or a guard decides."""

from __future__ import annotations

from functools import partial

from tests.zoo import games, more_pairs, pairs, rarer_pairs
from tests.zoo.case import Case

CASES: tuple[Case, ...] = (
    Case("small_loss_warmed_up", pairs.small_loss_warmed_up,
         why="a side task of weight 1e-7 moves as fast as the rest, as slowly as warm-up has it"),
    Case("units_of_rare_kinds", pairs.rare_units,
         why="a unit for each of 600 kinds of samples is silent over most windows, and not dead"),
    Case("branch_switched_off", pairs.branch_switched_off,
         why="units fall silent under a penalty when the task is solved without them"),
    Case("rare_positives", pairs.rare_positives,
         why="outputs of a detector of rare things are off nearly everywhere, as the labels are"),
    Case("side_task_solved", partial(pairs.task_solved_beside, True),
         why="one of two tasks is solved to the last bit: its tower has nothing left to learn"),
    Case("expert_of_later_data", more_pairs.expert_of_later_data,
         why="the third expert's samples come in the second half of the training"),
    Case("one_token_context", more_pairs.one_token_context,
         why="a softmax over a single key has nothing to choose"),
    Case("bfloat16_rate_raised", partial(more_pairs.bfloat16_updates, 4),
         why="the first four steps are lost to bfloat16, until the rate is ten times as high"),
    Case("float16_max_pool", more_pairs.float16_max_pool,
         why="15 of 16 elements of a gradient in float16 are zero, as the pooling has it"),
    Case("bad_batch_cleaned", partial(more_pairs.gradients_cleaned, range(3, 4)),
         why="one gradient that is not finite, in whose place the loop puts zeros"),
    Case("own_rectifiers", partial(rarer_pairs.own_sigmoids, True),
         why="ten rectifiers of no name that torch knows, with He's weights"),
    Case("tanhs_after_a_burst", partial(rarer_pairs.burst_of_the_rate, True),
         why="four tanhs at a rate that was a hundred times higher for two steps"),
    Case("units_that_always_fire", partial(rarer_pairs.units_switched_off, True),
         why="biases of 3 let the units of a layer fire for all samples"),
    Case("code_between_its_ends", partial(rarer_pairs.code_of_levels, 12, 2.0, 4e-3),
         why="a code of whole levels between the ends of a clamp that hold most of it"),
    Case("code_at_its_ends", partial(rarer_pairs.code_of_levels, 30, 0.1, 1e-3),
         why="a code that learns to lie at or beyond the ends of a clamp, for about half of it"),
    Case("forger_before_a_sure_critic_learns", partial(games.forgery, 24, 4.0, 150, 5e-3, False),
         why="-log(D) is steep where a critic with a head start is sure"),
    Case("body_at_rest_when_solved", partial(games.solved_by_two, 20, 0.1),
         why="outputs are sure of what is right, and the body stands still, under its own rate"),
)  # fmt: skip
