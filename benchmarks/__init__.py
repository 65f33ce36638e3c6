"""Measurements of gradwatch beside what people use today; run from a checkout, not installed."""
