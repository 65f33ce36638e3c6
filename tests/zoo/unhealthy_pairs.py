"""The unhealthy halves of pairs that a threshold or a guard decides."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.zoo import games, more_pairs, pairs, rarer_pairs
from tests.zoo.case import Case, Training


def _case(
    name: str, build: Callable[..., Training], kind: str, cause: str, region: tuple[str, ...],
    why: str, also_allowed: tuple[str, ...] = (),
) -> Case:  # fmt: skip
    fixed = partial(build, fixed=True)
    return Case(name, build, (kind,), also_allowed, cause, region, 0, why, fixed=fixed)


CASES: tuple[Case, ...] = (
    _case("sigmoids_warming_up", pairs.sigmoids_warming_up, "vanishing", "activation_derivative",
          ("fc[0-7]",), "ten sigmoids, while the rate rises to the last step"),
    _case("branch_mostly_dead", pairs.branch_mostly_dead, "dead", "dead_units",
          ("1", "1.down", "1.up"), "a branch with 30 of 32 units dead, and a task that needs it"),
    _case("outputs_stuck_at_one", pairs.outputs_stuck_at_one, "saturated", "saturation",
          ("score",), "biases of 14 hold nine of ten sigmoids at 1", ("vanishing",)),
    _case("side_tower_unmoved", partial(pairs.task_solved_beside, False), "vanishing",
          "activation_derivative", ("side.fc[0-6]",),
          "nearly all of the loss is another tower's, which has solved its task"),
    _case("factors_at_rest", more_pairs.factors_at_rest, "vanishing", "weight_scale", ("*.inner",),
          "factors of 1e-4 before the branches, at a rate at which they do not open"),
    _case("clipped_at_a_high_rate", more_pairs.clipped_at_a_high_rate, "mishandled", "not_unscaled",
          ("fc*",), "clipped while it is scaled: the weights move, and the loss hardly falls"),
    _case("bfloat16_updates_lost", partial(more_pairs.bfloat16_updates, 1000), "underflow",
          "precision", ("0", "2"), "all weights are of one size, each step below half a unit",
          ("vanishing",)),
    Case("gradients_all_cleaned", partial(more_pairs.gradients_cleaned, range(100)),
         ("nonfinite",), ("vanishing", "disconnected"), None, ("fc*",), 0,
         "no gradient is ever finite, and zeros are put in the place of all of them",
         fixed=partial(more_pairs.gradients_cleaned, range(100), True)),
    _case("own_sigmoids", rarer_pairs.own_sigmoids, "vanishing", "activation_derivative",
          ("fc[0-8]",), "ten sigmoids of no name that torch knows"),
    _case("burst_of_the_rate", rarer_pairs.burst_of_the_rate, "vanishing", "activation_derivative",
          ("fc0", "fc1"), "four sigmoids at a rate that was a hundred times higher for two steps"),
    Case("attached_late", rarer_pairs.attached_late, ("disconnected",), (), "disconnected",
         ("encoder", "encoder.*"), 0, "an encoder is cut off for a hundred steps, and learns then",
         fixed=partial(rarer_pairs.attached_late, True),
         frozen=partial(rarer_pairs.attached_late, False, True)),
    _case("units_switched_off", rarer_pairs.units_switched_off, "dead", "dead_units",
          ("fc1", "act1"), "of units that fire for all samples the tenth step silences 24 of 32"),
    Case("code_clipped_to_a_1000th", partial(rarer_pairs.code_of_levels, 12, 1e-3, 4e-3),
         ("saturated",), ("vanishing",), "saturation", ("clip", "encode", "encode.*"), 0,
         "the ends of a clamp lie so near 0 that nearly all of the code is beyond them",
         fixed=partial(rarer_pairs.code_of_levels, 12, 2.0, 4e-3)),
    Case("code_clipped_to_a_300th", partial(rarer_pairs.code_of_levels, 30, 3e-3, 1e-3),
         ("saturated",), ("vanishing",), "saturation", ("clip", "encode", "encode.*"), 0,
         "the ends of a clamp lie so near 0 that nearly all of the code is beyond them",
         fixed=partial(rarer_pairs.code_of_levels, 30, 1.0, 1e-3)),
    Case("forger_of_24_before_a_sure_critic", partial(games.forgery, 24, 4.0, 150, 3e-3),
         ("vanishing",), ("dead", "saturated"), "saturation", ("forger", "forger.*"), 0,
         "log(1 - D) is flat where a critic with a head start is sure",
         fixed=partial(games.forgery, 24, 4.0, 150, 3e-3, False)),
    Case("forger_of_40_before_a_sure_critic", partial(games.forgery, 40, 10.0, 300, 0.03),
         ("vanishing",), ("dead", "saturated"), "saturation", ("forger", "forger.*"), 0,
         "log(1 - D) is flat where a critic with a head start is sure",
         fixed=partial(games.forgery, 40, 10.0, 300, 0.03, False)),
)  # fmt: skip
