"""Whether a weight is reached by the loss, and moves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LearningThresholds:
    """From when on a weight is not reached by the loss, or does not move.

    Attributes:
        persistence: sampled steps in a row that a sign must last before it is a finding, or ...
        persistence_steps: ... optimizer steps that two of them must span.
        loss_share: a weight whose share of its optimizer's loss change stays below this has no part
            in what is learned.
        loss_progress: loss change of a step against the loss at the start, below which the whole
            network stands still.
        unfinished: loss against that at the start above which a network that stands still has not
            simply learned what there was.
        run_progress: sum of all steps' loss changes so far against the loss at the start, below
            which a training cannot have got anywhere (lowest of a healthy run 5e-3, of gradients
            that were clipped while they were scaled 2e-9).
        elasticity: median ``||g||*||w||`` against the loss at the start from which the gradient is
            there, and a network that stands still has steps that are too small.
        profile: a layer whose output gradient is below this share of the largest further down
            is cut off from the loss.
        sensitivity: a weight whose ``||g||*||w||`` is below this share of the network's largest
            has no part in the loss.
        update_ratio: ``||dw||/||w||`` per step below which a weight practically stands still:
            a thousand such steps change it by less than some percent.
        relative_update: the same against the network's fastest weight; it tells a layer that
            is cut off from a network that has converged or rests.
        weight_floor: weights smaller than this share of LeCun's scale are judged by that scale,
            so that a vanishing weight does not make a vanishing update look large.
        opening: change per step, against its own size, from which the factor in front of a residual
            branch counts as opening.
        disconnected_records: sampled steps in a row without any gradient.
        still_records: sampled steps with a gradient in which a weight has not changed at all, ...
        still_steps: ... and optimizer steps that they span, from which it does not move at all.
        unstepped_steps: optimizer steps of another optimizer, or backward passes of as many steps
            after the last one, from which one that does not step is no longer thought to wait for
            its turn.
        recovery_share: what was unhealthy has gone when it is absent for this share of the time
            that it lasted.
        time_gain: gradient at the first time steps against the last.
        time_patience: optimizer steps without progress before early time steps without a gradient
            are held to do harm: recurrent networks that are slow at first make none for some forty.
        recurrent_calls: calls of a cell, of an activation by each weight that no module applies, or
            stretches of time inside a module, from which a layer is taken for recurrent.
    """

    persistence: int = 3
    persistence_steps: int = 25
    loss_share: float = 1e-5
    loss_progress: float = 5e-6
    unfinished: float = 0.1
    run_progress: float = 10**-5.5
    elasticity: float = 1e-2
    profile: float = 10**-3.1
    sensitivity: float = 10**-2.4
    update_ratio: float = 10**-4.5
    relative_update: float = 1e-2
    weight_floor: float = 0.1
    opening: float = 1e-3
    disconnected_records: int = 5
    still_records: int = 3
    still_steps: int = 20
    unstepped_steps: int = 45
    recovery_share: float = 0.5
    time_gain: float = 1e-4
    time_patience: int = 60
    recurrent_calls: int = 4
