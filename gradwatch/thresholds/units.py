"""Saturated and dead units."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UnitThresholds:
    """When units are saturated or dead, inside the network and at its output.

    Attributes:
        saturated_fraction: share of saturated elements of a hidden activation.
        flat_fraction: the same of an activation that is flat on one side only, such as ELU or SiLU,
            and of a clamp (a code that learns had 97 % of its elements beyond the ends).
        saturated_derivative: mean |phi'| against its maximum below which saturation, and not the
            function's own slope, is the cause.
        input_scale: root mean square of what a weight takes in, by its output at the first record,
            from which its sigmoids and tanhs would saturate whatever the weights: standard weights
            bring half of a tanh's elements to where it is flat from 3 on, a sigmoid's from 6.
        stuck: loss against that at the start above which outputs that are saturated, while the
            loss has levelled off, keep it from falling.
        rare_output: scale of an output below which it is off nearly everywhere, as a detector of
            rare things is right to be; and share of its elements that the loss pulls back from
            which these are not rare.
        output_gain: share of the gradient that an activation at the network's output lets through;
            below it since the first step, the outputs are saturated and not sure.
        dead_fraction: share of units that never fired over the window.
        solved_loss: share of the first loss below which a network has learned its task in spite of
            dead units that something leads around.
        dead_least: least share that must be dead beyond chance in a layer of few units, at
            ``dead_quantile`` standard deviations (1.64: 95 %).
        dead_quantile: see ``dead_least``.
        dead_coin_quantile: standard deviations beyond a half that the share must be where the sign
            of a unit is a coin's: where the living units fire for ``dead_constant`` of the samples
            or more, and the share of zeros has grown by no more than ``dead_constant_growth``
            since the first record, ``dead_settling`` optimizer steps ago at most (measured on 20
            seeds of a chain of ten layers that learns: 28 to 78 % of 32 units are silent at first,
            and less than half from step 60 on).
        dead_constant, dead_constant_growth, dead_settling: see ``dead_coin_quantile``.
        dead_chance: a unit counts as dead only when, firing ``dead_rarity`` times more rarely than
            the living ones, it would have stayed silent over the window with less than this
            probability.
        dead_rarity: see ``dead_chance``.
        dead_collapse: share of zeros of a layer that is all but silent, so that its last living
            units say nothing about the others, ...
        dead_collapse_from: ... if it was below this at the layer's first record.
    """

    saturated_fraction: float = 0.8
    flat_fraction: float = 0.99
    saturated_derivative: float = 0.35
    input_scale: float = 5.0
    stuck: float = 0.3
    rare_output: float = 0.1
    output_gain: float = 1e-4
    dead_fraction: float = 0.6
    solved_loss: float = 0.1
    dead_least: float = 0.4
    dead_quantile: float = 1.64
    dead_coin_quantile: float = 3.0
    dead_constant: float = 0.8
    dead_constant_growth: float = 0.1
    dead_settling: int = 60
    dead_chance: float = 0.05
    dead_rarity: float = 10.0
    dead_collapse: float = 0.99
    dead_collapse_from: float = 0.9
