"""Facts to findings: rules, episodes and advice; no torch."""
