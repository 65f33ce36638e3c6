"""What the columns of a record mean: one declarative row per fact, no torch."""
