"""What the number format loses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PrecisionThresholds:
    """When numbers are lost to their format, and when ranks are apart.

    Attributes:
        underflow_zero_fraction: share of half-precision gradients flushed to zero.
        underflow_rms: gradient scale at which float16 starts to flush (smallest subnormal 6e-8).
        overflow_rms: scale of a layer's output from which it may leave float16's range (65504) in
            what follows: a square does at 256, which some elements reach at an eighth of that.
        lost_records: sampled steps over which a half-precision weight with a gradient has lost
            all but nothing of its updates.
        lost_share: update of a half-precision weight, against half a unit in the last place, below
            which it is lost but for elements near zero.
        rounding_share: a gradient below this share of the network's largest is what float32 leaves
            of an exact zero (it rounds at 6e-8, and sums of many terms at more).
        nonfinite_records: records in a row after which a gradient that is not finite counts,
            although it has not reached the weights.
        rank_spread: relative difference of a norm between ranks that hold the same tensor, above
            which they are apart (0 where sums are exact to the bit, float32 rounds at 6e-8).
    """

    underflow_zero_fraction: float = 0.5
    underflow_rms: float = 5e-7
    overflow_rms: float = 32.0
    lost_records: int = 5
    lost_share: float = 0.01
    rounding_share: float = 1e-6
    nonfinite_records: int = 2
    rank_spread: float = 1e-5
