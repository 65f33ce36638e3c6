"""Remedies, tried out on copies of a model: survey -> surgery -> experiment -> ranked trials."""
