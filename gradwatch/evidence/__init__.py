"""Records to facts: pure functions and their accumulators; numpy, no torch."""
