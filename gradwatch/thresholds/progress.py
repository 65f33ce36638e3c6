"""Whether the loss falls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressThresholds:
    """When the loss has fallen, levelled off, or come to nothing.

    Attributes:
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
        levelled: fall of the loss while the number of steps doubles below which it has levelled
            off; a loss that follows a power law of the steps falls by a fixed share then.
        levelled_records: latest records from which that is known.
    """

    least_fall: float = 0.12
    seen_fall: float = 2.0
    paired_fall: float = 1e-2
    progress: float = 0.8
    converged: float = 1e-2
    patience: int = 30
    levelled: float = 0.1
    levelled_records: int = 8
