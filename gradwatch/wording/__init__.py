"""Numbers, regions and modules as a person would say them; no torch."""
