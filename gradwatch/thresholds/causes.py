"""Which layer, and what of it, is to blame."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CauseThresholds:
    """When a layer, or a cause, is to blame for a gradient that is lost.

    Attributes:
        mild_gain: a stage (weight and activation together) that multiplies the gradient by more
            than this is not to blame alone: the length of the chain is, ...
        long_chain: ... when it has at least this many stages.
        shared_blame: in such a chain, depth is also to blame when the lesser of the activations'
            and the weights' shares is at least this share of the whole loss.
        mild_growth: a growth per stage below which depth, and not the weights, is to blame.
        shrunk_weight: median size of the weights against that at the first record below which decay
            has taken them, and not their initialisation.
        dominant_share: a layer that takes this share of all that is lost on a path, in logarithms,
            is to blame by itself.
        dominant_stages: layers on a path from which it says something that one takes so much: of
            two, one always takes half.
        alike_share: layers that take at least this share of what the worst of their role takes, in
            logarithms, are to blame like it; the others are not.
        explained_share: share of what weights have lost, in logarithms, that their own updates must
            account for, for a penalty in the loss to have taken it and nobody by hand.
        descent_cosine: cosine between an update and the gradient from which it follows it.
        plain_factor: a factor on the gradient that is nearer to 1 is too small to say whether a
            constant or a derivative is at work.
        closed_softmax: gain of a softmax below which it is all but one-hot in the rows that the
            gradient reaches; over n equal entries it is 1/n.
        clipped: gradient at the step against the one that arrived, below which it was clipped.
        replacing_update: largest ``||dw||/||w||`` of a step, or half the growth of a norm between
            two sampled steps, from which a weight was replaced rather than trained.
        held_share: share of the steps that must have been made at a learning rate for it to be the
            training's own, from which it has come down: a burst is not.
        warm_up_rise: growth of the learning rate over the latest three records that is a warm-up.
        cause_votes: signs of an episode, from its first on, that name its cause: later ones also
            show what it has led to.
    """

    mild_gain: float = 0.6
    long_chain: int = 12
    shared_blame: float = 1 / 3
    mild_growth: float = 2.0
    shrunk_weight: float = 0.5
    dominant_share: float = 0.5
    dominant_stages: int = 3
    alike_share: float = 1 / 3
    explained_share: float = 0.5
    descent_cosine: float = 0.5
    plain_factor: float = 2.0
    closed_softmax: float = 1e-3
    clipped: float = 0.5
    replacing_update: float = 0.5
    held_share: float = 0.1
    warm_up_rise: float = 1.01
    cause_votes: int = 5
