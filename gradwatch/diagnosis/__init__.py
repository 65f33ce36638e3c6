"""Records to findings; pure Python and numpy, no torch."""
