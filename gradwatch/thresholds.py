"""Thresholds of the rules: named, documented, and nowhere else.

Where a threshold separates two populations it stands at the middle of the gap between them on a
log scale; ``docs/thresholds.md`` shows both sides as measured on the public zoo, made by
``benchmarks.ablation``.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from dataclasses import dataclass

from gradwatch.errors import InvalidInput


@dataclass(frozen=True)
class Thresholds:
    """When a measurement counts as a sign of a finding.

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
        mild_gain: a stage (weight and activation together) that multiplies the gradient by more
            than this is not to blame alone: the length of the chain is, ...
        long_chain: ... when it has at least this many stages.
        shared_blame: in such a chain, depth is also to blame when the lesser of the activations'
            and the weights' shares is at least this share of the whole loss.
        shrunk_weight: median size of the weights against that at the first record below which decay
            has taken them, and not their initialisation.
        saturated_fraction: share of saturated elements of a hidden activation.
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
        flat_fraction: the same of an activation that is flat on one side only, such as ELU or SiLU,
            and of a clamp (a code that learns had 97 % of its elements beyond the ends).
        saturated_derivative: mean |phi'| against its maximum below which saturation, and not the
            function's own slope, is the cause.
        dead_fraction: share of units that never fired over the window.
        solved_loss: share of the first loss below which a network has learned its task in spite of
            dead units that something leads around.
        dead_least: least share that must be dead beyond chance in a layer of few units, at
            ``dead_quantile`` standard deviations (1.64: 95 %).
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
        exploding_growth: growth of gradients or outputs over depth or time.
        divergence: growth of the error signal over its first values that counts as diverging, and
            of the loss after a step has replaced weights (on the zoo then: healthy below 7).
        output_growth: growth of a hidden output's scale over its first one, after a step has
            replaced the weights, that counts as diverging.
        weight_growth: growth of a hidden weight over its first norm, or LeCun's scale if that is
            larger, that counts as diverging.
        grown_share: share of the decades of a growth from which a layer has part in it, and below
            which a training that is to grow so far has begun even.
        residual_share: joins against weights from which a network is residual, so that its depth is
            not the number of its weights.
        shaking_update: change of all weights by one step, against their size, that is no training
            any more where the loss gets nowhere (what changes by a tenth has forgotten after ten
            steps what it was).
        shaking_records: records from which that is a habit and no shock.
        mild_growth: a growth per stage below which depth, and not the weights, is to blame.
        underflow_zero_fraction: share of half-precision gradients flushed to zero.
        underflow_rms: gradient scale at which float16 starts to flush (smallest subnormal 6e-8).
        overflow_rms: scale of a layer's output from which it may leave float16's range (65504) in
            what follows: a square does at 256, which some elements reach at an eighth of that.
        lost_records: sampled steps over which a half-precision weight with a gradient has lost
            all but nothing of its updates.
        still_records: sampled steps with a gradient in which a weight has not changed at all, ...
        still_steps: ... and optimizer steps that they span, from which it does not move at all.
        unstepped_steps: optimizer steps of another optimizer, or backward passes of as many steps
            after the last one, from which one that does not step is no longer thought to wait for
            its turn.
        clipped: gradient at the step against the one that arrived, below which it was clipped.
        rank_spread: relative difference of a norm between ranks that hold the same tensor, above
            which they are apart (0 where sums are exact to the bit, float32 rounds at 6e-8).
        least_fall: share of the loss that a task has to lose to count as making progress, one
            standard error considered.
        seen_fall: standard deviations by which the latest losses must rank below the first ones for
            a fall to be seen (of losses that stay, chance takes one in thirty beyond 2; 268 of the
            272 healthy runs of the zoo are beyond it).
        paired_fall: share of the first loss that must have been lost by the gradients on the same
            batches, by as many standard deviations, where the losses of different batches scatter
            too much for a fall to be seen.
        progress: the error signal at the output has to fall below this share of its first values
            to count as learning.
        converged: the error signal below this share of its first values is that of a training which
            has converged: what was well at first and has become sure or still is no finding.
        patience: optimizer steps without progress before a loss over time is held to do harm.
        time_patience: ... and before early time steps without a gradient are: recurrent networks
            that are slow at first make no progress for some forty.
        time_gain: gradient at the first time steps against the last.
        recurrent_calls: calls of a cell, of an activation by each weight that no module applies, or
            stretches of time inside a module, from which a layer is taken for recurrent.
        disconnected_records: sampled steps in a row without any gradient.
        baseline_worse: a known finding is worse than it was from this factor on (the same training
            with another seed differs by less than ten).
        compare_worse: a layer learns less than in another run from this factor on, where nothing
            tells how far runs of the same training lie apart (seeds differ by less than ten).
        compare_spread: ... and where several runs do: standard deviations of their logarithms.
        compare_least: ... but never below this factor: a few runs may agree by chance.
        compare_share: growth of a layer's share of dead or saturated units that counts as worse.
        compare_records: sampled steps that two runs must share to be compared.
        trial_progress: share of the best remedy's fall of the loss below which another hardly
            learns; a few steps at one learning rate do not compare speeds more closely, and above
            it the smaller change of the model counts for more.
        sudden_change: factor between two neighbouring sampled steps from which a gradient that
            falls or grows, or a loss that grows, is marked on the charts; it is no finding.
        allow_unjudged: ``fnmatch`` patterns of parameters that need not be seen to learn, and that
            no optimizer need hold.
        ignore_kinds, ignore_layers: findings to silence, by kind and by ``fnmatch`` pattern.
        replacing_update: largest ``||dw||/||w||`` of a step, or half the growth of a norm between
            two sampled steps, from which a weight was replaced rather than trained.
        held_share: share of the steps that must have been made at a learning rate for it to be the
            training's own, from which it has come down: a burst is not.
        warm_up_rise: growth of the learning rate over the latest three records that is a warm-up.
        levelled: fall of the loss while the number of steps doubles below which it has levelled
            off; a loss that follows a power law of the steps falls by a fixed share then.
        levelled_records: latest records from which that is known.
        dominant_share: a layer that takes this share of all that is lost on a path, in logarithms,
            is to blame by itself.
        dominant_stages: layers on a path from which it says something that one takes so much: of
            two, one always takes half.
        alike_share: layers that take at least this share of what the worst of their role takes, in
            logarithms, are to blame like it; the others are not.
        explained_share: share of what weights have lost, in logarithms, that their own updates must
            account for, for a penalty in the loss to have taken it and nobody by hand.
        descent_cosine: cosine between an update and the gradient from which it follows it.
        rounding_share: a gradient below this share of the network's largest is what float32 leaves
            of an exact zero (it rounds at 6e-8, and sums of many terms at more).
        plain_factor: a factor on the gradient that is nearer to 1 is too small to say whether a
            constant or a derivative is at work.
        closed_softmax: gain of a softmax below which it is all but one-hot in the rows that the
            gradient reaches; over n equal entries it is 1/n.
        lost_share: update of a half-precision weight, against half a unit in the last place, below
            which it is lost but for elements near zero.
        nonfinite_records: records in a row after which a gradient that is not finite counts,
            although it has not reached the weights.
        recovery_share: what was unhealthy has gone when it is absent for this share of the time
            that it lasted.
        cause_votes: signs of an episode, from its first on, that name its cause: later ones also
            show what it has led to.
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
    mild_gain: float = 0.6
    long_chain: int = 12
    shared_blame: float = 1 / 3
    shrunk_weight: float = 0.5
    saturated_fraction: float = 0.8
    input_scale: float = 5.0
    stuck: float = 0.3
    rare_output: float = 0.1
    output_gain: float = 1e-4
    flat_fraction: float = 0.99
    saturated_derivative: float = 0.35
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
    exploding_growth: float = 10**3.5
    divergence: float = 1e3
    output_growth: float = 10**2.5
    weight_growth: float = 100.0
    mild_growth: float = 2.0
    underflow_zero_fraction: float = 0.5
    underflow_rms: float = 5e-7
    overflow_rms: float = 32.0
    lost_records: int = 5
    still_records: int = 3
    still_steps: int = 20
    unstepped_steps: int = 45
    clipped: float = 0.5
    rank_spread: float = 1e-5
    least_fall: float = 0.12
    seen_fall: float = 2.0
    paired_fall: float = 1e-2
    progress: float = 0.8
    converged: float = 1e-2
    patience: int = 30
    time_gain: float = 1e-4
    disconnected_records: int = 5
    baseline_worse: float = 10.0
    compare_worse: float = 10.0
    compare_spread: float = 5.0
    compare_least: float = 3.0
    compare_share: float = 0.5
    compare_records: int = 3
    trial_progress: float = 0.05
    sudden_change: float = 100.0
    grown_share: float = 0.5
    residual_share: float = 0.25
    shaking_update: float = 0.1
    shaking_records: int = 5
    time_patience: int = 60
    recurrent_calls: int = 4
    allow_unjudged: tuple[str, ...] = ()
    ignore_kinds: tuple[str, ...] = ()
    ignore_layers: tuple[str, ...] = ()
    replacing_update: float = 0.5
    held_share: float = 0.1
    warm_up_rise: float = 1.01
    levelled: float = 0.1
    levelled_records: int = 8
    dominant_share: float = 0.5
    dominant_stages: int = 3
    alike_share: float = 1 / 3
    explained_share: float = 0.5
    descent_cosine: float = 0.5
    rounding_share: float = 1e-6
    plain_factor: float = 2.0
    closed_softmax: float = 1e-3
    lost_share: float = 0.01
    nonfinite_records: int = 2
    recovery_share: float = 0.5
    cause_votes: int = 5

    def __post_init__(self) -> None:
        for row in dataclasses.fields(self):
            value = getattr(self, row.name)
            if value is row.default or isinstance(row.default, tuple):
                continue
            if type(value) is float and 0 <= value < math.inf:
                continue  # the usual case: asking whether it is a number takes its time
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise InvalidInput(
                    f"Expected {row.name} to be a number, got {value!r}. Pass a number from 0."
                )
            if not (math.isfinite(value) and float(value) >= 0):
                raise InvalidInput(
                    f"Expected {row.name} to be finite and not below 0, got {value}. "
                    "Leave the field out for its default."
                )

    def replace(self, **changes: object) -> Thresholds:
        """A copy with some fields changed.

        Args:
            **changes: fields by name.

        Raises:
            InvalidInput: there is no such threshold, or it cannot have this value.

        Example:
            >>> Thresholds().replace(ignore_kinds=("dead",)).ignore_kinds
            ('dead',)
        """
        known = {row.name for row in dataclasses.fields(self)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise InvalidInput(
                f"Expected thresholds among {', '.join(sorted(known))}, got {unknown[0]!r}."
            )
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


DEFAULTS = Thresholds()
"""Those of a run that chooses none; they cannot be changed, and making them takes its time."""
