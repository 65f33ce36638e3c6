"""Over how many records a level is taken: sampling, which decides nothing by itself.

What a level is held against, and for how long it must last, are ``gradwatch.Thresholds``.
"""

from __future__ import annotations

FIRST_RECORDS = 5
"""Records whose middle is where a training began."""

EARLY_LOSSES = 10
"""Records whose mean loss a fall is measured from: with fewer, what the first batches happened to
be decides."""

LATEST_RECORDS = 12
"""Records whose loss, or whose steps, are those of late."""

WINDOW = 8
"""Readings that rules may look back on, and error signals."""

LATEST_RATES = 3
"""Records over which a learning rate that rises shows."""

RECENT_SHARES = 2
"""Records over which the largest share of a parameter counts: shares of a minibatch scatter."""
