"""Outputs that are at their wrong end, and what would bring them back."""

from __future__ import annotations

from functools import partial

from tests.zoo import opposed
from tests.zoo.case import Case

CASES = (
    Case(
        "sigmoid_before_a_loss_of_logits",
        partial(opposed.recommend, is_squashed=True),
        ("saturated", "vanishing"),
        (),
        "saturation",
        ("sigmoid", "score*", "users", "items"),
        60,
        "all scores go to 0, the least that the loss can be given, and the sigmoid closes",
        fixed=partial(opposed.recommend, is_squashed=False),
    ),
    Case(
        "actor_on_raw_states_before_a_critic",
        partial(opposed.steer_by_a_critic, is_scaled=False),
        ("vanishing", "saturated"),
        (),
        "saturation",
        ("actor*",),
        100,
        "raw states close the actor's tanh; Adam moves the actor by what noise is left",
        fixed=partial(opposed.steer_by_a_critic, is_scaled=True),
    ),
    Case(
        "peaks_beyond_a_clamp",
        partial(opposed.find_peaks, 2.0),
        ("vanishing", "exploding"),
        ("saturated", "dead"),
        "learning_rate",
        ("*",),
        why="the first steps send every probability beyond the clamp, where no gradient is",
        fixed=partial(opposed.find_peaks, 0.02),
    ),
)
