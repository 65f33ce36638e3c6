"""One run against another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ComparisonThresholds:
    """When a run is worse than a baseline, than other runs, or than with a remedy.

    Attributes:
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
    """

    baseline_worse: float = 10.0
    compare_worse: float = 10.0
    compare_spread: float = 5.0
    compare_least: float = 3.0
    compare_share: float = 0.5
    compare_records: int = 3
    trial_progress: float = 0.05
