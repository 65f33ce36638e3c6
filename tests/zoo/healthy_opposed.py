"""Outputs that some elements are right to have closed: twins of those at their wrong end."""

from __future__ import annotations

from functools import partial

from tests.zoo import opposed
from tests.zoo.case import Case

CASES = (
    Case(
        "scores_before_a_loss_of_logits",
        partial(opposed.recommend, is_squashed=False),
        why="the loss has the sigmoid in it",
    ),
    Case(
        "actor_on_scaled_states_before_a_critic",
        partial(opposed.steer_by_a_critic, is_scaled=True),
        why="the actor's tanh begins open",
    ),
    Case(
        "peaks_within_a_clamp",
        partial(opposed.find_peaks, 0.02),
        why="all but one pixel of an image are right to be off",
    ),
)
